"""`gddim fid`: metrics of images against references, with everything that each value depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.fid_features import feature_folder, measuring
from gddim_cli.cli.fid_settings import FidSettings
from gddim_cli.cli.fid_statistics import check_network, check_output, write
from gddim_cli.cli.progress import Progress, say, stdout
from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation.metrics.registry import find_metrics
from gddim_cli.evaluation.protocols import find_mode, find_protocol
from gddim_cli.runtime.distributed import world
from gddim_cli.settings import split

if TYPE_CHECKING:
    from gddim_cli.evaluation.evaluator import Evaluator
    from gddim_cli.evaluation.factory import EvaluatorFactory, FeaturesOf
    from gddim_cli.evaluation.metrics.base import Metric
    from gddim_cli.evaluation.report import Measurement
    from gddim_cli.images.sources import ImageSource

STATS = "stats"
IMAGES = "imgs"

EPILOG = """[bold]Examples[/bold]

gddim fid imgs/ --ref mnist

gddim fid imgs/ --protocol gddim-paper --json

gddim fid imgs.zip --ref cifar10:test --mode clean --metrics fid,is

gddim fid imgs/ --metrics dino,kid --ref train/ --ref test/

gddim fid stats photos/ photos.npz        (a reference of your own)

gddim fid imgs/ --ref photos.npz"""


def fid(
    asked: FidSettings,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES | stats IMAGES OUT.npz",
            help="IMAGES: a folder, .zip, .tar, .npz or .npy of images, or an output folder of gddim sample. Default: imgs/. "
            "With stats, the command writes the statistics of IMAGES to OUT.npz, for use as --ref.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure FID and other metrics of images against a reference.

    FID needs a downloaded Inception network. For digits, a bundled classifier replaces this network, and the distance is
    called FD(lenet-mnist).
    """
    images, stats = parse(words or [])
    check_settings(asked, stats)
    metrics, refs = find_metrics(asked.metrics), references(asked.ref or [])

    from gddim_cli.evaluation.factory import EvaluatorFactory
    from gddim_cli.evaluation.published import published_advice

    where = asked.use()
    source = open_source(images, asked.key, asked.num)
    for option, path in (("stats", stats), ("--save-stats", asked.save_stats)):
        if path:
            check_output(option, path, [images, *map(Path, refs)], source, asked.force)
    processes = world().join()
    with feature_folder(asked.cache) as folder:
        features_of = measuring(folder, asked.batch_size)
        inception = Path(asked.inception) if asked.inception else None
        network = (asked.protocol, asked.mode, inception, asked.features)
        factory = EvaluatorFactory(where, source.shape, *network, features_of)
        if stats:
            extractor = factory.extractor()
            check_network("stats", stats, extractor, asked.force)
            features = features_of(source, extractor)
            if processes.main:
                write(stats, source, extractor, features)
            return
        evaluators = open_evaluators(factory, metrics, refs)
        if asked.save_stats:
            check_network("--save-stats", asked.save_stats, evaluators[0].extractor, asked.force)
        measurement = measure(source, evaluators, features_of, asked.save_stats)
    if measurement is None:
        return
    show(measurement, json)
    if source.is_run and (advice := published_advice(Path(source.name), measurement.n)):
        say(f"note: {advice}")


def check_settings(asked: FidSettings, stats: Path | None) -> None:
    """Raises UsageError for settings that are wrong whatever the images; `stats` is the file to write statistics to."""
    for option, path in (("stats", stats), ("--save-stats", asked.save_stats)):
        options.suffix(option, path, ".npz")
    if asked.num is not None and asked.num < 2:
        raise UsageError(f"--num: {asked.num} is too few; a covariance needs at least two images")
    if stats and (asked.ref or asked.protocol or asked.metrics != "fid" or asked.save_stats):
        raise UsageError(
            "stats: takes no reference and computes no metric; leave out --ref, --metrics, --protocol, --save-stats"
        )
    if asked.mode is not None:
        find_mode(asked.mode)
    if asked.protocol is not None:
        find_protocol(asked.protocol)


def measure(
    source: ImageSource, evaluators: list[Evaluator], features_of: FeaturesOf, save_stats: Path | None
) -> Measurement | None:
    """Computes the features of each network once, and from them all metrics; returns None on ranks other than 0.

    Raises:
        UsageError: there are too few images, or `save_stats` is given and the metrics use several networks.
    """
    from gddim_cli.evaluation.evaluator import under_protocol
    from gddim_cli.evaluation.report import report

    source = under_protocol(source, evaluators[0])
    for evaluator in evaluators:
        evaluator.check_count(source.count)
    extractors = {evaluator.extractor.mode: evaluator.extractor for evaluator in evaluators}
    if save_stats and len(extractors) > 1:
        raise UsageError(
            f"--save-stats: the file holds features of one network, but the metrics use {', '.join(extractors)}"
        )
    found = {mode: features_of(source, extractor) for mode, extractor in extractors.items()}
    if not world().main:
        return None
    with Progress(len(evaluators), "metrics") as progress:
        measurement = report(source, evaluators, lambda extractor: found[extractor.mode], progress.advance)
    if save_stats:
        write(save_stats, source, evaluators[0].extractor, found[evaluators[0].extractor.mode])
    return measurement


def references(given: list[str]) -> list[str]:
    """The references of `--ref`. A value with a comma is a list, unless a file of that name exists.

    Raises:
        UsageError: a reference that is listed twice.
    """
    found: list[str] = []
    for text in given:
        found += split(text) if "," in text and not Path(text).exists() else [text]
    for name in found:
        if found.count(name) > 1:
            raise UsageError(f"--ref {name}: is listed twice")
    return found


def open_evaluators(factory: EvaluatorFactory, metrics: list[Metric], refs: list[str]) -> list[Evaluator]:
    """An evaluator for each metric and reference.

    With several references, each metric skips those that were made with another network, and prints a note.

    Raises:
        UsageError, DataError: as `EvaluatorFactory.open`.
    """
    for metric in metrics:
        factory.mode_of(metric)  # Called for its errors: contradictory options are reported before missing files.
    found: list[Evaluator] = []
    for metric in metrics:
        if not metric.spec.needs_reference:
            found.append(factory.open(metric, refs[0] if refs else None))
            continue
        fitting = [ref for ref in refs if factory.fits(metric, ref)]
        for ref in refs if fitting else ():
            if ref not in fitting:
                say(f"note: {metric.text} is not compared with {ref}, which was not made in mode {metric.spec.mode}")
        found += [factory.open(metric, ref) for ref in fitting] or [factory.open(metric, refs[0] if refs else None)]
    return found


def parse(words: list[str]) -> tuple[Path, Path | None]:
    """The path of the images, and the file that `stats` writes; None without `stats`.

    Raises:
        UsageError: too many or too few arguments.
    """
    if words[:1] == [STATS]:
        if len(words) != 3:
            raise UsageError("stats: takes the images and the file to write: gddim fid stats IMAGES OUT.npz")
        return Path(words[1]), Path(words[2])
    if "" in words:
        raise UsageError("IMAGES: is empty; give a folder or a file of images")
    if len(words) > 1:
        raise UsageError(
            f"IMAGES: expected one set of images, not {len(words)} ({' '.join(words)}); give the other set as --ref"
        )
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


def show(found: Measurement, json: bool) -> None:
    """Prints the values on stdout and the notes on stderr."""
    from gddim_cli.evaluation.report import lines

    for warning in found.warnings:
        say(f"note: {warning}")
    with stdout() as out:
        out.write((found.json() if json else "\n".join(lines(found))) + "\n")


app = options.command(options.with_settings(fid), EPILOG)
