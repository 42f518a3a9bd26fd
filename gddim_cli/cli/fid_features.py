"""Features of images for `gddim fid`: the folder they are kept in, and their computation with a progress bar."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gddim_cli.cli.progress import Progress, say
from gddim_cli.errors import OutputError
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gddim_cli.evaluation.extractors.base import Extractor
    from gddim_cli.evaluation.factory import FeaturesOf
    from gddim_cli.images.sources import ImageSource


@contextmanager
def feature_folder(cache: bool) -> Iterator[Path]:
    """Yields the folder for features: one in the cache, or a temporary one that is removed when the command ends."""
    from gddim_cli.hub.store import cache_folder
    from gddim_cli.runtime.files import probe

    folder = cache_folder() / "features"
    if cache:
        try:
            probe(folder / "probe")
        except OutputError as error:
            say(f"features are not cached: {error}")
            cache = False
    if world().broadcast(cache):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gddim-") as temporary:
        yield world().broadcast(Path(temporary))
        world().barrier()


def measuring(folder: Path, batch_size: int) -> FeaturesOf:
    """Returns a function that computes the features of images, keeps them in `folder`, and shows a progress bar."""
    from gddim_cli.evaluation.features import features_of

    told: set[str] = set()

    def note(text: str) -> None:
        """Prints a note, but only once if several networks measure the same images."""
        if text not in told:
            told.add(text)
            say(text)

    def measure(source: ImageSource, extractor: Extractor) -> NDArray[np.float32]:
        name, array = printable(source.name), getattr(source, "key", None)
        if array:
            note(f"{name}: using its array {printable(array)}")
        if source.ignored:
            files = "1 file" if source.ignored == 1 else f"{source.ignored} files"
            note(f"{name}: ignores {files} {'that the run did not write' if source.is_run else 'other than images'}")
        with Progress(source.count, "images") as progress:
            return features_of(
                source,
                extractor,
                folder,
                batch_size,
                progress.advance,
                lambda: say(f"another process is measuring {name}; waiting for it to finish"),
            )

    return measure
