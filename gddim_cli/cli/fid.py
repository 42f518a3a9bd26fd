"""`gddim fid`: metrics of images against a reference, with everything that each value depends on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.fid_statistics import check_output, write
from gddim_cli.cli.progress import Progress, say, stdout
from gddim_cli.errors import DataError, OutputError, UsageError
from gddim_cli.evaluation.metrics.registry import METRICS, find_metrics
from gddim_cli.evaluation.protocols import MODES, PROTOCOLS, find_mode, find_protocol
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gddim_cli.evaluation.evaluator import FeaturesOf
    from gddim_cli.evaluation.extractors import Extractor
    from gddim_cli.evaluation.report import Measurement
    from gddim_cli.images.sources import ImageSource

STATS = "stats"
IMAGES = "imgs"

EPILOG = """[bold]Examples[/bold]

gddim fid imgs/ --ref mnist

gddim fid imgs/ --protocol gddim-paper --json

gddim fid imgs.zip --ref cifar10:test --mode clean --metrics fid,kid,prdc

gddim fid stats photos/ photos.npz        (a reference of your own)

gddim fid imgs/ --ref photos.npz"""


def completing(known: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What shell completion offers: the known names; of a comma-separated list, for its last part."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known() if name.startswith(last)]

    return complete


def fid(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES | stats IMAGES OUT.npz",
            help="A folder, .zip, .tar, .npz or .npy of images, or an output folder of gddim sample. Default: imgs/. stats "
            "IMAGES OUT.npz writes the statistics of the images to a file, for use as --ref.",
            show_default=False,
        ),
    ] = None,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            help="Evaluate only this many images: a fixed random subset, or the first ones of a run of gddim sample. "
            "Default: all.",
            rich_help_panel="Images",
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Reference to compare the images with: mnist or cifar10 (each with :train or :test), cifar10-edm, "
            "cifar10-tf, cifar10-scoresde, the path of other images, or an .npz of statistics. Default: mnist or cifar10, "
            "by the shape of the images.",
            rich_help_panel="Reference",
            autocompletion=completing(lambda: REFERENCES),
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PROTOCOLS),
            help="A published way to measure FID: fixes reference, mode, quantisation and number of images.",
            rich_help_panel="Reference",
            autocompletion=completing(lambda: PROTOCOLS),
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="The network and how images are resized for it: legacy_tensorflow, clean, legacy_pytorch (as in clean-fid) "
            "or lenet. Default: the mode the reference was made with, else legacy_tensorflow.",
            rich_help_panel="Reference",
            autocompletion=completing(lambda: MODES),
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Metrics to compute: fid, fid-infinity (extrapolated to infinitely many images), kid, prdc (precision, "
            "recall, density, coverage), or a plugin's. Options follow a name: prdc:k=3. Default: fid.",
            rich_help_panel="Metrics",
            autocompletion=completing(lambda: METRICS),
            show_default=False,
        ),
    ] = "fid",
    save_stats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Also write the statistics of the images to this file, for use as --ref.",
            rich_help_panel="Output",
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Batch size. Affects speed; values change only by rounding.",
            rich_help_panel="Speed",
        ),
    ] = 64,
    device: options.Device = "auto",
    threads: options.Threads = None,
    cache: Annotated[
        bool,
        typer.Option(
            help="Cache the features, so that measuring the same images again takes no time.", rich_help_panel="Speed"
        ),
    ] = True,
    key: Annotated[
        str | None,
        typer.Option(
            help="Name of the array of an .npz that holds the images. Default: the only array of images.",
            rich_help_panel="Advanced",
        ),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Another network with Inception's interface. The result is then FD(FILE), which is not FID.",
            rich_help_panel="Advanced",
        ),
    ] = None,
) -> None:
    """Measure images: FID and other metrics against a reference.

    Digits need no download: the features of a bundled classifier give the distance FD(lenet-mnist).
    """
    images, stats = parse(words or [])
    for option, path in (("stats", stats), ("--save-stats", save_stats)):
        options.suffix(option, path, ".npz")
    if num is not None and num < 2:
        raise UsageError(f"--num: {num} is too few; a covariance needs at least two images")
    if stats and (ref is not None or protocol or metrics != "fid" or save_stats):
        raise UsageError("stats: takes no reference and computes no metric; leave out those options")
    chosen = find_metrics(metrics)
    if mode is not None:
        find_mode(mode)
    if protocol is not None:
        find_protocol(protocol)

    from gddim_cli.evaluation.evaluator import open_evaluator, open_extractor, under_protocol
    from gddim_cli.evaluation.published import published_advice
    from gddim_cli.evaluation.report import report

    where = find_device(device)
    options.use_threads(threads, where)
    source = open_source(images, key, num)
    for option, path in (("stats", stats), ("--save-stats", save_stats)):
        if path:
            check_output(option, path, [images, Path(ref)] if ref else [images], source, force)
    processes = world().join()
    with feature_folder(cache) as folder:
        features_of = measuring(folder, batch_size)
        if stats:
            extractor = open_extractor(mode, inception, where, source.shape)
            features = features_of(source, extractor)
            if processes.main:
                write(stats, source, extractor, features)
            return
        first = open_evaluator(ref, protocol, mode, inception, where, source.shape, features_of, chosen[0])
        evaluators = [first.with_metric(metric) for metric in chosen]
        source = under_protocol(source, first)
        for evaluator in evaluators:
            evaluator.check_count(source.count)
        features = features_of(source, first.extractor)
        if not processes.main:
            return
        with Progress(len(evaluators), "metrics") as progress:
            found = report(source, evaluators, features, progress.advance)
        if save_stats:
            write(save_stats, source, first.extractor, features)
    show(found, json)
    if source.is_run and (advice := published_advice(Path(source.name), found.n)):
        say(f"note: {advice}")


def parse(words: list[str]) -> tuple[Path, Path | None]:
    """The images, and the output of `stats`, or None.

    Raises:
        UsageError: too many words, or too few.
    """
    if words[:1] == [STATS]:
        if len(words) != 3:
            raise UsageError("stats: takes the images and the file to write: gddim fid stats IMAGES OUT.npz")
        return Path(words[1]), Path(words[2])
    if len(words) > 1:
        raise UsageError(f"takes one set of images, not {len(words)} ({' '.join(words)}); give the other one as --ref")
    return Path(words[0] if words else IMAGES), None


def open_source(images: Path, key: str | None, num: int | None) -> ImageSource:
    """The images to measure.

    Raises:
        DataError: as `open_images`; the message for the missing default folder says how to make it.
    """
    from gddim_cli.runs.images import open_images

    if images == Path(IMAGES) and not images.exists():
        raise DataError(f"{images}: no such folder; make images with gddim sample, or name others: gddim fid IMAGES")
    return open_images(images, key, num)


@contextmanager
def feature_folder(cache: bool) -> Iterator[Path]:
    """The folder for features: in the cache, or one that is removed when the command ends."""
    from gddim_cli.hub.store import cache_folder
    from gddim_cli.runtime.files import probe

    folder = cache_folder() / "features"
    if cache:
        try:
            probe(folder / "probe")
        except OutputError as error:
            say(f"features are not kept: {error}")
            cache = False
    if world().broadcast(cache):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gddim-") as temporary:
        yield world().broadcast(Path(temporary))
        world().barrier()


def measuring(folder: Path, batch_size: int) -> FeaturesOf:
    """What measures images, with a bar, into a folder."""
    from gddim_cli.evaluation.features import features_of

    def measure(source: ImageSource, extractor: Extractor) -> NDArray[np.float32]:
        name, array = printable(source.name), getattr(source, "key", None)
        if array:
            say(f"{name}: uses its array {printable(array)}")
        if source.ignored:
            files = "1 file" if source.ignored == 1 else f"{source.ignored} files"
            say(f"{name}: ignores {files} that {'the run did not write' if source.is_run else 'are not images'}")
        with Progress(source.count, "images") as progress:
            return features_of(
                source,
                extractor,
                folder,
                batch_size,
                progress.advance,
                lambda: say(f"waiting for another process that measures {name}"),
            )

    return measure


def show(found: Measurement, json: bool) -> None:
    """Prints the values on stdout and the notes on stderr."""
    from gddim_cli.evaluation.report import lines

    for warning in found.warnings:
        say(f"note: {warning}")
    with stdout() as out:
        out.write((found.json() if json else "\n".join(lines(found))) + "\n")


app = options.command(fid, EPILOG)
