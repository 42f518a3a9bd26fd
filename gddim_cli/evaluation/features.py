"""Features of images on disk, by content: measured once, found again, gone on with where it was cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors import Extractor
from gddim_cli.evaluation.image_sources import ImageSource
from gddim_cli.files import read_array, writing
from gddim_cli.states import RawStates

LIMIT = 8 << 30
"""Bytes of features that are kept; the least recently used go first."""

OnImages = Callable[[int], None]


def features_of(
    source: ImageSource, extractor: Extractor, num: int, folder: Path, batch_size: int, on_images: OnImages
) -> NDArray[np.float32]:
    """Features, [num, d], of the first `num` images, as a memory map of a file in `folder`.

    The file's name is a hash of the images, the weights and the mode: a folder that has changed is another one.

    Args:
        on_images: called with the number of images that are there already, then after each batch with its own.

    Raises:
        DataError: images that cannot be read, or that the network does not take.
        OutputError: the folder cannot be written.
    """
    identity = f"1 {source.fingerprint()} {num} {extractor.sha256} {extractor.mode}"
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    try:
        found = finished(path, (num, extractor.dimension))
        if found is None:
            measure(source, extractor, num, path, batch_size, on_images)
            prune(folder, keep=path)
            return read_array(path, memory_map=True)
    finally:
        lock.release()
        path.with_suffix(".lock").unlink(missing_ok=True)
    on_images(num)
    return found


def measure(
    source: ImageSource, extractor: Extractor, num: int, path: Path, batch_size: int, on_images: OnImages
) -> None:
    """Fills the file with the features that are missing, a batch at a time."""
    rows = RawStates(path, num, (extractor.dimension,), "features", None, overwrite=False)
    done = rows.done(num)
    # Batches are whole, so what was cut is a tail.
    first = next((i for i in range(num) if i not in done), num)
    on_images(first)
    for images in source.batches(batch_size, first, num):
        rows.store(range(first, first + len(images)), extractor(images))
        first += len(images)
        on_images(len(images))
    if first != num:
        raise DataError(f"{source.name}: held {num} images and now gives {first}; is something still writing there?")
    rows.finish()


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
