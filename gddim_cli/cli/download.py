"""`gddim download`: released checkpoints, reference statistics and Inception networks into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, say
from gddim_cli.errors import UsageError

MEGABYTE = 1_000_000

EPILOG = """[bold]Examples[/bold]

gddim download cld-cifar10

gddim download cldsgm-cifar10 --from ~/Downloads/checkpoint_800000.pth

gddim download stats-cifar10-tf inception

[bold]Environment[/bold]

GDDIM_HOME: the cache folder (default: the platform's).

GDDIM_MIRROR: a base URL to try first; the name of the published file (see gddim checkpoints NAME) is appended."""


def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names that `gddim checkpoints` lists.")],
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Read the published file from this path instead of downloading it; the file is kept.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the published file beside the converted one.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
) -> None:
    """Fetch released models, reference statistics and Inception networks. Rerun to resume.

    Checks the structure of each file, and its sha256 against the model card or the first download. Converts training
    states to the native format, about a quarter of their size.
    """
    if from_file and len(names) > 1:
        raise UsageError("--from is one file: give one NAME with it")

    from gddim_cli.hub.download import Download, card_with_source

    for name in names:
        card_with_source(name)  # a wrong name is told before anything is fetched
    for name in names:
        with Bytes() as bar:
            Download(bar.say, bar, from_file, keep, offline).get(name)


class Bytes:
    """A progress bar in megabytes that begins when the size is known."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, have: int, total: int | None) -> None:
        """Shows that `have` of `total` bytes are there."""
        if not total:
            return
        if self.bar is None or self.bar.total != total // MEGABYTE:
            self.close()
            self.bar = Progress(total // MEGABYTE, "MB", start=have / MEGABYTE)
            self.bar.__enter__()
        self.bar.advance(have / MEGABYTE - self.bar.done)

    def say(self, text: str) -> None:
        """A line, after the bar of what came before."""
        self.close()
        say(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None


app = options.command(download, EPILOG)
