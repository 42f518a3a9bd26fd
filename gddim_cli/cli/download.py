"""`gddim download`: released checkpoints, reference statistics and Inception networks into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, say, stdout
from gddim_cli.errors import UsageError
from gddim_cli.settings import about

MEGABYTE = 1_000_000

MODELS = {"gddim-paper": "cld-cifar10", "edm": "edm-cifar10-uncond-vp"}
"""By protocol, the model whose published FID was measured under this protocol."""

EPILOG = """[bold]Examples[/bold]

gddim download cld-cifar10

gddim download --protocol gddim-paper

gddim download edm-cifar10-uncond-vp --with-fid --list

gddim download cldsgm-cifar10 --from ~/Downloads/checkpoint_800000.pth

[bold]Environment[/bold]

GDDIM_HOME: cache folder. Default: the platform's cache folder for gddim.

GDDIM_MIRROR: base URL of a mirror, which is tried first. The mirror must use the file names that --list prints."""


def downloadable() -> list[str]:
    """The names that can be downloaded, for shell completion."""
    from gddim_cli.cli.checkpoints import known_names

    return known_names()


def protocol_names() -> list[str]:
    """The protocols, for shell completion."""
    from gddim_cli.evaluation.protocols import PROTOCOLS

    return list(PROTOCOLS)


PROTOCOL = (
    "Also download the statistics and the Inception network for FID under this protocol. If you name no model, also "
    "download the model whose published FID was measured under the protocol (there is no such model for --protocol "
    "clean)."
)
WITH_FID = (
    "Also download the reference statistics and the Inception network with which each model's published FID was "
    "measured. Default: off, with one exception: the bare command gddim download cld-cifar10 also downloads the files for "
    "gddim fid --ref cifar10."
)
LIST = "Only print the files and their URLs, so that you can download them by other means."
FROM = "Local copy of the published file, to use instead of a download. The copy is not changed."
KEEP = "Keep the published file beside the converted one."


class DownloadSettings(msgspec.Struct, frozen=True, kw_only=True, rename={"only_list": "list", "source": "from"}):
    """What `gddim download` fetches, and from where."""

    protocol: Annotated[str, about(PROTOCOL, panel="Data", metavar="NAME", complete=protocol_names)] | None = None
    with_fid: Annotated[bool, about(WITH_FID, panel="Data", flag="--with-fid/--without-fid")] | None = None
    only_list: Annotated[bool, about(LIST, panel="Output", flag="--list")] = False
    source: Annotated[Path, about(FROM, panel="Data", metavar="FILE")] | None = None
    keep: Annotated[bool, about(KEEP, panel="Output", flag="--keep")] = False
    offline: Annotated[bool, about("Never use the network.", panel="Data", flag="--offline")] = False


def download(
    asked: DownloadSettings,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Names that `gddim checkpoints` lists.", autocompletion=downloadable),
    ] = None,
) -> None:
    """Download released models, reference statistics and Inception networks. Interrupted downloads are resumed.

    The command checks the structure and the sha256 of each file. The sha256 must equal the one recorded at the
    first download. If the authors published a sha256, the file's sha256 must equal
    that one, too. Models are converted to the native format.
    """
    from gddim_cli.hub.download import Download, card_with_source
    from gddim_cli.hub.store import RELEASED

    wanted = all_names(names or [], asked.protocol, bool(asked.with_fid))
    if wanted == [RELEASED] and asked.with_fid is None and not asked.source and not asked.offline:
        wanted += fid_files("cifar10", "legacy_tensorflow")
    if not wanted and not asked.only_list:
        raise UsageError("expected a NAME, or --protocol NAME; gddim checkpoints lists the names")
    if asked.source and len(wanted) > 1:
        raise UsageError("--from: names one file, so give exactly one NAME")
    for name in wanted:
        card_with_source(name)  # A wrong name is reported before anything is fetched.
    if asked.only_list:
        print_files(wanted)
        return
    for name in wanted:
        with Bytes() as bar:
            Download(bar.say, bar, asked.source, asked.keep, asked.offline).get(name)


def all_names(names: list[str], protocol: str | None, with_fid: bool) -> list[str]:
    """The given names and the names of the files that FID needs, each once.

    Raises:
        UsageError: an unknown protocol, or a model without a published reference.
    """
    from gddim_cli.hub import store

    found = list(names)
    if protocol is not None:
        from gddim_cli.evaluation.protocols import find_protocol

        chosen = find_protocol(protocol)
        found = found or [MODELS[protocol]] if protocol in MODELS else found
        found += fid_files(chosen.ref, chosen.mode)
    if with_fid:
        for name in [name for name in names if name in store.names()]:
            reference = store.card_of(name).reference
            if reference is None:
                raise UsageError(f"--with-fid: {name} has no published reference statistics")
            found += fid_files(reference, "legacy_tensorflow")
    return list(dict.fromkeys(found))


def fid_files(reference: str, mode: str) -> list[str]:
    """The published files that FID against a named reference needs."""
    from gddim_cli.evaluation.extractors.weights import FILES
    from gddim_cli.evaluation.references import REFERENCES

    return [REFERENCES[reference].files[mode], FILES[mode]]


def print_files(names: list[str]) -> None:
    """Prints names, file names, sizes and addresses on stdout, and on stderr what to do with the files."""
    from gddim_cli.hub import store
    from gddim_cli.hub.download import card_with_source
    from gddim_cli.hub.places import name_on_mirror

    names = names or [name for name in [*store.names(), *store.file_names()] if has_source(name)]
    with stdout() as out:
        for name in names:
            card = card_with_source(name)
            assert card.source is not None
            size = f"{card.source.size / 1e6:.0f} MB"
            out.write(f"{name}\t{name_on_mirror(card)}\t{size}\t{card.source.url or card.source.page}\n")
    say("copy the files to the machine that runs gddim; there, for each file: gddim download NAME --from FILE")


def has_source(name: str) -> bool:
    """Whether a name of the catalogue is published somewhere and does not ship with the package."""
    from gddim_cli.hub import store

    return name not in store.names() or store.card_of(name).source is not None


class Bytes:
    """A progress bar in megabytes that starts when the size is known."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, have: int, total: int | None) -> None:
        """Shows that `have` of `total` bytes have arrived."""
        if not total:
            return
        if self.bar is None or self.bar.total != total // MEGABYTE:
            self.close()
            self.bar = Progress(total // MEGABYTE, "MB", start=have / MEGABYTE)
            self.bar.__enter__()
        self.bar.advance(have / MEGABYTE - self.bar.done)

    def say(self, text: str) -> None:
        """Prints a line, after closing the bar."""
        self.close()
        say(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None


app = options.command(options.with_settings(download), EPILOG)
