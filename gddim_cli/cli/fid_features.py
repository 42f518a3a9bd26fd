"""Features of images for `gddim fid`: where they are kept, and how they are measured with a progress bar."""

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
    """A function that measures images into a folder, with a progress bar."""
    from gddim_cli.evaluation.features import features_of

    told: set[str] = set()

    def note(text: str) -> None:
        """Prints a note, once even if several networks measure the images."""
        if text not in told:
            told.add(text)
            say(text)

    def measure(source: ImageSource, extractor: Extractor) -> NDArray[np.float32]:
        name, array = printable(source.name), getattr(source, "key", None)
        if array:
            note(f"{name}: using its array {printable(array)}")
        if source.ignored:
            files = "1 file" if source.ignored == 1 else f"{source.ignored} files"
            note(f"{name}: ignores {files} that {'the run did not write' if source.is_run else 'are not images'}")
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
