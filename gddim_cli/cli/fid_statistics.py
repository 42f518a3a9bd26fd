"""The statistics files that `gddim fid` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gddim_cli.cli.progress import say
from gddim_cli.errors import UsageError
from gddim_cli.runtime.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gddim_cli.evaluation.extractors.base import Extractor
    from gddim_cli.images.sources import ImageSource

KEPT = 10_000
"""Maximum number of feature vectors in a statistics file. Precision and recall use no more than this many."""


def check_output(option: str, out: Path, inputs: list[Path], source: ImageSource, force: bool) -> None:
    """Checks that the statistics can be written, before any work is done.

    Raises:
        UsageError: the file is an input, or holds something other than statistics of these images.
        OutputError: the file cannot be written.
    """
    from gddim_cli.evaluation.statistics import origin_of
    from gddim_cli.runtime.files import probe

    if any(path.exists() and out.exists() and out.samefile(path) for path in inputs):
        raise UsageError(f"{option}: {out} is an input; choose another name")
    taken = out.is_symlink() or (out.exists() and not out.is_dir())
    if taken and not force:
        origin = origin_of(out)
        if origin is None or (origin.title, origin.images_sha256) != (title(source), source.fingerprint()):
            raise UsageError(f"{option}: {out} exists and holds something else; choose another name, or --force")
    probe(out)


def check_network(option: str, out: Path, extractor: Extractor, force: bool) -> None:
    """Raises UsageError if a statistics file that exists was made with another network or mode, unless `force` is set."""
    from gddim_cli.evaluation.statistics import origin_of

    origin = origin_of(out)
    if origin and not force and (origin.weights_sha256, origin.mode) != (extractor.sha256, extractor.mode):
        raise UsageError(
            f"{option}: {out} exists and was made with {printable(origin.network)} in mode {printable(origin.mode)}; "
            "choose another name, or --force"
        )


def title(source: ImageSource) -> str:
    """A description of the images, for the statistics file."""
    part = f"a fixed random subset of {source.count} of {source.chosen_from}" if source.chosen_from else source.count
    return f"{part} images of {printable(source.name)}"


def write(path: Path, source: ImageSource, extractor: Extractor, features: NDArray[np.float32]) -> None:
    """Writes the statistics of the features to a file and prints its path."""
    from gddim_cli.evaluation.moments import Moments
    from gddim_cli.evaluation.statistics import write_statistics
    from gddim_cli.images.subset import some

    gaussian = Moments.of(features).gaussian()
    # KID, precision and recall use at most KEPT vectors. If there are no more images than dimensions, all vectors are
    # kept, because a distance computed from the covariance alone would be inexact.
    kept = features if len(features) <= extractor.dimension else some(features, KEPT)
    write_statistics(path, gaussian, extractor, kept, title(source), source.shape, source.fingerprint())
    say(f"{path}: statistics of {gaussian.n} images, {extractor.name}, mode {extractor.mode}")
