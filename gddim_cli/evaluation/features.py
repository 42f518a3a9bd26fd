"""A cache of features on disk, keyed by the images' content. An interrupted computation of features can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gddim_cli.errors import DataError, OutputError
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.images.sources import ImageSource
from gddim_cli.images.subset import unbroken
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.files import eventually, writing
from gddim_cli.runtime.row_file import PartialRows, RowFile, float32_rows, intact_rows

LIMIT = 8 << 30
"""Maximum size of the cache in bytes. Beyond it, the least recently used files are removed."""
UNFINISHED = "features"
"""Distinguishes the names of unfinished files of features from those of other partial files."""
VERSION = 3
"""The version of the files' content; files of another version are not used."""
PATIENCE = 60.0
"""Seconds to wait until a file written by another machine appears in a shared folder."""
LARGEST_BATCH = 256 << 20
"""Maximum number of bytes of pixels in a batch; batches of very large images hold fewer images."""

OnImages = Callable[[int], None]


def features_of(
    source: ImageSource,
    extractor: Extractor,
    folder: Path,
    batch_size: int,
    on_images: OnImages,
    on_wait: Callable[[], object] = lambda: None,
) -> NDArray[np.float32]:
    """The features, [N, d], of images, as a memory map of a file in `folder`.

    The file's name is a hash of the images, the weights and the mode, so changed images get a new file. Each row
    carries a checksum, and rows whose checksum is wrong are measured again. Several processes share out the batches
    that a single process would use, so that the features are the same.

    Args:
        on_images: called with the number of images that are already measured, then with the number in each batch.
        on_wait: called before waiting for another process that measures the same images.

    Raises:
        DataError: an image cannot be read, or the network does not take such images.
        OutputError: the folder cannot be written, or the processes do not share it.
    """
    group, num = world(), source.count
    content = source.fingerprint()
    identity = f"{VERSION} {content} {num} {extractor.sha256} {extractor.mode}"
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    batch_size = min(batch_size, max(1, LARGEST_BATCH // int(np.prod(source.shape))))
    lock = FileLock(path.with_suffix(".lock"))
    try:
        rows = None
        if group.main:
            with writing(path):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire(timeout=1)
                except Timeout:
                    on_wait()
                    lock.acquire()
            rows = unfinished(path, num, extractor.dimension)
        # Finished rows are read once, before any process adds to them, so that all processes divide the same batches.
        rows, done = group.broadcast((rows, rows.done(num) if rows else set()))
        if rows is None:
            on_images(num)
        else:
            measure(source, content, extractor, rows, done, batch_size, on_images)
        found: NDArray[np.float32] = read_array(path, memory_map=True)
        group.barrier()
    finally:
        lock.release()  # The lock file stays: if it were removed, two processes could hold the lock at once.
    return found


def unfinished(path: Path, num: int, dimension: int) -> RowFile | None:
    """The file in which rows are still missing: left by an interrupted call, finished but with damaged rows, or new.

    Returns:
        None if all features are present and undamaged.

    Raises:
        OutputError: the folder cannot be written.
    """
    unfinished_rows = PartialRows(path, UNFINISHED)
    with writing(path):
        if path.exists():
            found = float32_rows(path, num, dimension)
            if found is not None and len(intact_rows(path, found)) == num:
                path.touch()  # Marks the file as the most recently used.
                return None
            path.replace(unfinished_rows.file)
    return unfinished_rows.resumed(num, dimension)


def measure(
    source: ImageSource,
    content: str,
    extractor: Extractor,
    rows: RowFile,
    done: set[int],
    batch_size: int,
    on_images: OnImages,
) -> None:
    """Computes the rows that are not in `done`, a batch at a time; the file gets its final name when it is complete.

    Raises:
        DataError: the images no longer have the fingerprint `content`; the features are removed.
        OutputError: the file is not visible to this process, or cannot be written.
    """
    group, num = world(), source.count
    if not eventually(rows.partial.exists, PATIENCE):
        raise OutputError(
            f"{rows.partial}: not visible to {group.name}; all processes must share one folder for features: set "
            "GDDIM_HOME to a folder on a shared file system"
        )
    on_images(len(done))
    missing = sorted({row // batch_size for row in range(num) if row not in done})
    own = missing[group.rank * len(missing) // group.size : (group.rank + 1) * len(missing) // group.size]
    for first, end in unbroken(own):
        at = first * batch_size
        for images in source.batches(batch_size, at, min(end * batch_size, num)):
            here = range(at, at + len(images))
            rows.store(here, extractor(images))
            at = here.stop
            on_images(group.count(len(set(here) - done)))
    group.barrier(lambda: on_images(group.count()))
    on_images(group.count(at_once=True))
    if group.main:
        if source.fingerprint() != content:
            with writing(rows.partial):
                rows.partial.unlink()
            raise DataError(
                f"{source.name}: has changed while it was measured; is another program still writing there?"
            )
        rows.finish(keep_checksums=True)
        prune(rows.path.parent, keep=rows.path)
    group.barrier()


def prune(folder: Path, keep: Path, limit: int = LIMIT) -> None:
    """Removes the least recently used files until the rest is within `limit` bytes."""
    files = sorted((file for file in folder.glob("*.npy*") if file != keep), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in [*files, keep])
    with writing(folder):
        for file in files:
            if total <= limit:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
