"""Features of images on disk, by content: measured once, found again, gone on with where it was cut."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gddim_cli.errors import DataError, OutputError
from gddim_cli.evaluation.extractors import Extractor
from gddim_cli.images.sources import ImageSource
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.files import eventually, writing
from gddim_cli.runtime.row_file import RowFile

LIMIT = 8 << 30
"""Bytes of features that are kept; the least recently used go first."""

VERSION = 1
"""Of what features are: another one makes the kept ones useless."""
PATIENCE = 60.0
"""Seconds that a file of another machine may take to show in a shared folder."""

OnImages = Callable[[int], None]


def features_of(
    source: ImageSource,
    extractor: Extractor,
    folder: Path,
    batch_size: int,
    on_images: OnImages,
    on_wait: Callable[[], object] = lambda: None,
) -> NDArray[np.float32]:
    """Features, [N, d], of images, as a memory map of a file in `folder`.

    The file's name is a hash of the images, the weights and the mode: a folder that has changed is another one. Several
    processes share the images out by whole batches, so that they find what one would have.

    Args:
        on_images: called with the number of images that are there already, then with those of each batch.
        on_wait: called where another process measures the same images, which is then waited for.

    Raises:
        DataError: images that cannot be read, or that the network does not take.
        OutputError: the folder cannot be written, or not by all processes.
    """
    team, num = world(), source.count
    content = source.fingerprint()
    identity = f"{VERSION} {content} {num} {extractor.sha256} {extractor.mode}"
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    lock = FileLock(path.with_suffix(".lock"))
    try:
        rows = None
        if team.main:
            with writing(path):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire(timeout=1)
                except Timeout:
                    on_wait()
                    lock.acquire()
            if finished(path, (num, extractor.dimension)) is None:
                rows = begun(path, num, extractor.dimension)
        rows = team.broadcast(rows)
        if rows is None:
            on_images(num)
        else:
            measure(source, content, extractor, rows, batch_size, on_images)
        found = read_array(path, memory_map=True)
        team.barrier()
    finally:
        lock.release()  # the file stays: who removes it lets two in
    return found


def begun(path: Path, num: int, dimension: int) -> RowFile:
    """The rows of a call that was cut, or new ones; also where what it left is damaged."""
    try:
        return RowFile(path, num, (dimension,), "features", None, overwrite=False)
    except DataError:
        return RowFile(path, num, (dimension,), "features", None, overwrite=True)


def measure(
    source: ImageSource, content: str, extractor: Extractor, rows: RowFile, batch_size: int, on_images: OnImages
) -> None:
    """Fills the file with the features that are missing, a batch at a time; its name is final when all are there.

    Raises:
        DataError: the images are no longer those of the fingerprint `content`; what was measured is removed.
    """
    team, num = world(), source.count
    if not eventually(rows.partial.exists, PATIENCE):
        raise OutputError(
            f"{rows.partial}: is not there for {team.name}; all processes need one folder for features: set GDDIM_HOME to "
            "one on a shared file system"
        )
    done = rows.done(num)
    on_images(len(done))
    missing = sorted({row // batch_size for row in range(num) if row not in done})
    for first, last in runs(
        missing[team.rank * len(missing) // team.size : (team.rank + 1) * len(missing) // team.size]
    ):
        at = first * batch_size
        for images in source.batches(batch_size, at, min((last + 1) * batch_size, num)):
            here = range(at, at + len(images))
            rows.store(here, extractor(images))
            at = here.stop
            on_images(team.count(len(set(here) - done)))
    team.barrier(lambda: on_images(team.count()))
    on_images(team.count(at_once=True))
    if team.main:
        if source.fingerprint() != content:
            with writing(rows.partial):
                rows.partial.unlink()
            raise DataError(f"{source.name}: has changed while it was measured; is something still writing there?")
        rows.finish()
        prune(rows.path.parent, keep=rows.path)
    team.barrier()


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rising numbers as the first and the last of each unbroken run."""
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield run[0], run[-1]


def finished(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The features that are there; None where there are none, or not those."""
    if not path.exists():
        return None
    try:
        found = read_array(path, memory_map=True)
    except DataError:
        found = None
    if found is None or found.shape != shape or not np.isfinite(found[-1]).all():
        with writing(path):
            path.unlink()
        return None
    with writing(path):
        path.touch()  # used last now
    return found


def prune(folder: Path, keep: Path, limit: int = LIMIT) -> None:
    """Removes the files used longest ago, until the rest is within `limit` bytes."""
    files = sorted((file for file in folder.glob("*.npy*") if file != keep), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in [*files, keep])
    with writing(folder):
        for file in files:
            if total <= limit:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
