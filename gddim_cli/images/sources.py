"""What `gddim fid` measures: any number of images, read batch by batch and never all in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gddim_cli.errors import DataError
from gddim_cli.images.archive_reader import ArchiveReader
from gddim_cli.images.arrays import are_images, images_key, way_out
from gddim_cli.images.decode import decode, refuse_mixed
from gddim_cli.images.picture_files import Pictures, naming
from gddim_cli.images.quantize import Pixels
from gddim_cli.runtime.arrays import read_archive, read_array
from gddim_cli.runtime.files import sha256

AHEAD = 2  # batches read while the caller works on one
Span = Callable[[int, int], Pixels]


@dataclass(frozen=True)
class ImageSource(ABC):
    """Images of one size, all grey or all colour, in a fixed order.

    Attributes:
        name: the path, as the person gave it.
        count: how many.
        shape: of each, (H, W, C); C is 1 or 3.
        quantize: how they were brought to 8 bits, "floor" or "round", where a `run.json` says so.
        ignored: how many other files lie there.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    quantize: str | None = field(default=None, kw_only=True)
    ignored: int = field(default=0, kw_only=True)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Pixels]:
        """The images `start` to `stop` (as in a slice), uint8 [B, H, W, C] with B = `size`, or less in the last.

        The next ones are read meanwhile.

        Raises:
            DataError: an image that cannot be read, named, when its turn comes.
        """
        first, last, _ = slice(start, stop).indices(self.count)
        waiting: deque[Future[Pixels]] = deque()
        with self._opened() as read, ThreadPoolExecutor(self._threads) as pool:
            try:
                for begin in range(first, last, size):
                    waiting.append(pool.submit(read, begin, min(begin + size, last)))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # also where the caller has had enough: what is being read is waited for, the rest is not begun
                pool.shutdown(cancel_futures=True)

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of the images' names and content: another one for any change."""

    @property
    def _threads(self) -> int:
        """Threads that read; with one, the batches are read in their order."""
        return 1

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Span]:
        """A function that reads the images from one index to another."""


@dataclass(frozen=True)
class PictureSource(ImageSource):
    """Picture files."""

    pictures: Pictures

    @classmethod
    def of(cls, name: str, pictures: Pictures) -> PictureSource:
        """Raises a DataError where the first picture cannot be read: it says what the others have to be like."""
        with pictures.opened() as content:
            shape = decode(content(0), pictures.path / pictures.names[0]).shape
        count = len(pictures.names)
        return cls(name, count, shape, pictures, ignored=pictures.ignored)

    @property
    def _threads(self) -> int:
        height, width, _ = self.shape
        return 2 if height * width >= 64 * 64 else 1  # Pillow holds Python's lock for most of a small picture

    @contextmanager
    def _opened(self) -> Iterator[Span]:
        pictures = self.pictures
        with pictures.opened() as content:

            def read(begin: int, end: int) -> Pixels:
                images = np.empty((end - begin, *self.shape), np.uint8)
                for i in range(begin, end):
                    name = f"{pictures.path}/{pictures.names[i]}"
                    image = decode(content(i), name)
                    refuse_mixed(image.shape, name, self.shape, pictures.names[0])
                    images[i - begin] = image
                return images

            yield read

    def fingerprint(self) -> str:
        total = hashlib.sha256()
        with self.pictures.opened() as content:
            for i, name in enumerate(self.pictures.names[: self.count]):
                raw, label = content(i), name.encode("utf-8", "surrogateescape")
                total.update(b"%d %d %b" % (len(label), len(raw), label))
                total.update(raw)
        return total.hexdigest()


@dataclass(frozen=True)
class ArraySource(ImageSource):
    """One .npy, mapped: [N, H, W] or [N, H, W, C]."""

    path: Path

    @classmethod
    def of(cls, name: str, path: Path) -> ArraySource:
        """Raises a DataError where the array is not uint8 images."""
        array = read_array(path, memory_map=True)
        if not are_images(array.dtype, array.shape):
            raise DataError(
                f"{path}: uint8 images [N, H, W] or [N, H, W, C] (1 or 3 channels) are needed, found "
                f"{array.dtype}{list(array.shape)}; {way_out([(array.dtype, array.shape)])}"
            )
        return cls(name, len(array), one(array.shape), path)

    @contextmanager
    def _opened(self) -> Iterator[Span]:
        array = read_array(self.path, memory_map=True)
        yield lambda begin, end: np.array(array[begin:end]).reshape(-1, *self.shape)

    def fingerprint(self) -> str:
        return combined([self.path], self.count)


@dataclass(frozen=True)
class ArchiveSource(ImageSource):
    """The arrays of one or more .npz, one after another; read as streams, thus by one thread.

    Attributes:
        parts: of each, its path and images.
        key: the array in each.
    """

    parts: Sequence[tuple[Path, int]]
    key: str

    @classmethod
    def of(cls, name: str, paths: Sequence[Path], key: str) -> ArchiveSource:
        """Raises a DataError where an array is not uint8 images, or not of the first one's size."""
        shapes = [read_archive(path)[images_key(path, key)][1] for path in paths]
        for path, shape in zip(paths, shapes, strict=True):
            refuse_mixed(one(shape), path, one(shapes[0]), paths[0].name)
        parts = [(path, shape[0]) for path, shape in zip(paths, shapes, strict=True)]
        return cls(name, sum(count for _, count in parts), one(shapes[0]), parts, key)

    @contextmanager
    def _opened(self) -> Iterator[Span]:
        with ExitStack() as stack:
            yield ArchiveReader(self.parts, self.key, self.shape, stack).read

    def fingerprint(self) -> str:
        return combined([path for path, _ in self.parts], self.count, self.key)


def one(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of an array [N, H, W] or [N, H, W, C]."""
    return shape[1], shape[2], shape[3] if len(shape) == 4 else 1


def combined(paths: Sequence[Path], *more: object) -> str:
    """SHA-256 of files and of what else tells two sources apart."""
    total = hashlib.sha256(repr(more).encode())
    for path in paths:
        with naming(path):
            total.update(sha256(path).encode())
    return total.hexdigest()
