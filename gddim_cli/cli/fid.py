"""`gddim fid`: images to a distance that says what it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, say, stdout
from gddim_cli.errors import OutputError, UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gddim_cli.evaluation.extractors import Extractor
    from gddim_cli.evaluation.report import Measurement
    from gddim_cli.images.sources import ImageSource

STATS = "stats"
KEPT = 10_000
"""Features in a statistics file: as many as precision and recall take of a side."""

EPILOG = """[bold]Examples[/bold]

gddim fid imgs/ --ref mnist

gddim fid imgs/ --protocol gddim-paper --json

gddim fid imgs.zip --ref cifar10:test --mode clean --metrics fid,kid,prdc

gddim fid stats photos/ photos.npz        (a reference of your own)

gddim fid imgs/ --ref photos.npz"""


def fid(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES | stats IMAGES OUT.npz",
            help="A folder, .zip, .tar, .npz or .npy of images, or a folder of gddim sample (default: imgs/). "
            "stats: writes the statistics of images, for --ref.",
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="mnist, cifar10 (each :train or :test), cifar10-edm, cifar10-tf, cifar10-scoresde; or images, or statistics "
            "in an .npz (default: by the images' shape).",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="gddim-paper|edm|clean", help="Reference, mode, quantisation and count, as published."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="legacy_tensorflow|clean|legacy_pytorch|lenet",
            help="How images come to the network (default: as the reference was made, else legacy_tensorflow).",
        ),
    ] = None,
    num: Annotated[int | None, typer.Option("--num", "-n", help="Use the first so many images (default: all).")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="What to compute: fid, fid-infinity (extrapolated to infinitely many images), kid, prdc (precision, recall, "
            "density, coverage), and metrics of plugins. Options follow a name: prdc:k=3. Default: fid.",
        ),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another network with Inception's interface; the result is then no FID."),
    ] = None,
    save_stats: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="The statistics of the images too, for --ref.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The array of an .npz that holds the images.")] = None,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images at once; changes the speed only.")] = 64,
    cache: Annotated[bool, typer.Option(help="Keep the features, so that a second call is instant.")] = True,
    json: options.Json = False,
) -> None:
    """Measure images: FID with its protocol, KID, precision and recall; digits offline."""
    images, stats = parse(words or [])
    options.positive("--batch-size", batch_size)
    for option, path in (("stats", stats), ("--save-stats", save_stats)):
        options.suffix(option, path, ".npz")
    if num is not None and num < 2:
        raise UsageError(f"--num: {num} is too few; a covariance needs at least two images")
    if stats and (ref or protocol or metrics or save_stats):
        raise UsageError("stats: takes no reference and measures no distance; leave those options out")

    from gddim_cli.evaluation.metrics.registry import find_metrics

    chosen = find_metrics(metrics or "fid")

    from gddim_cli.evaluation.evaluator import open_evaluator, open_extractor, under_protocol
    from gddim_cli.evaluation.report import report
    from gddim_cli.runs.images import open_images
    from gddim_cli.runtime.files import probe

    for path in (stats, save_stats):
        if path:
            keep_inputs(path, images, ref)
            probe(path)
    where = find_device(device)
    source = open_images(images, key, num)
    team = world().join()
    with feature_folder(cache) as folder:

        def features_of(what: ImageSource, extractor: Extractor) -> NDArray[np.float32]:
            return with_progress(what, extractor, folder, batch_size)

        if stats:
            maker = open_extractor(mode, inception, where, source.shape)
            features = features_of(source, maker)
            if team.main:
                write(stats, source, maker, features)
            return
        first = open_evaluator(ref, protocol, mode, inception, where, source.shape, features_of, chosen[0])
        evaluators = [first.with_metric(metric) for metric in chosen]
        source = under_protocol(source, first)
        for evaluator in evaluators:
            evaluator.check_count(source.count)
        features = features_of(source, first.extractor)
        if not team.main:
            return
        with Progress(len(evaluators), "metrics") as progress:
            found = report(source, evaluators, features, progress.advance)
        if save_stats:
            write(save_stats, source, first.extractor, features)
    show(found, json)


def parse(words: list[str]) -> tuple[Path, Path | None]:
    """The images, and the file of `stats`, or None.

    Raises:
        UsageError: too many words, or too few.
    """
    if words[:1] == [STATS]:
        if len(words) != 3:
            raise UsageError("stats: takes the images and the file to write: gddim fid stats IMAGES OUT.npz")
        return Path(words[1]), Path(words[2])
    if len(words) > 1:
        raise UsageError(f"one set of images at a time, not {len(words)} ({' '.join(words)}); the other one is --ref")
    return Path(words[0] if words else "imgs"), None


def keep_inputs(out: Path, images: Path, ref: str | None) -> None:
    """Refuses to write statistics over what is no statistics, or over the reference.

    Raises:
        UsageError: naming the file.
    """
    from gddim_cli.evaluation.statistics import is_statistics

    inputs = [images, Path(ref)] if ref else [images]
    same = any(out.resolve() == path.resolve() for path in inputs)
    if same or (out.exists() and not is_statistics(out)):
        raise UsageError(f"{out}: exists, and is {'an input' if same else 'no statistics'}; choose another name")


@contextmanager
def feature_folder(cache: bool) -> Iterator[Path]:
    """Where features are kept: the cache, or a folder that goes when the command ends."""
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


def with_progress(source: ImageSource, extractor: Extractor, folder: Path, batch_size: int) -> NDArray[np.float32]:
    """Features of the images, with a bar."""
    from gddim_cli.evaluation.features import features_of

    array = getattr(source, "key", None)
    if array:
        say(f"{source.name}: its array {array}")
    if source.ignored:
        say(f"{source.name}: {source.ignored} other file{'s' * (source.ignored != 1)} there, not images, left aside")

    def wait() -> None:
        say(f"another process measures {source.name}; waiting for it")

    with Progress(source.count, "images") as progress:
        return features_of(source, extractor, folder, batch_size, progress.advance, wait)


def write(path: Path, source: ImageSource, extractor: Extractor, features: NDArray[np.float32]) -> None:
    """Writes the statistics of features, and says so."""
    from gddim_cli.evaluation.moments import Moments
    from gddim_cli.evaluation.statistics import write_statistics
    from gddim_cli.evaluation.subset import some

    gaussian = Moments.of(features).gaussian()
    # As many as KID and precision take a side; all where the covariance alone would not do.
    kept = features if len(features) <= extractor.dimension else some(features, KEPT)
    write_statistics(path, gaussian, extractor, kept, f"{gaussian.n} images of {source.name}", source.shape)
    say(f"{path}: statistics of {gaussian.n} images, {extractor.name}, mode {extractor.mode}")


def show(found: Measurement, json: bool) -> None:
    """The number on stdout, what to mind of it on stderr."""
    from gddim_cli.evaluation.report import lines

    for warning in found.warnings:
        say(f"note: {warning}")
    with stdout() as out:
        out.write((found.json() if json else "\n".join(lines(found))) + "\n")


app = options.command(fid, EPILOG)
