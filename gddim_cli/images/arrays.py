"""Images in NumPy arrays: .npy files, and .npz archives, compressed or not."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from gddim_cli.errors import DataError, nearest
from gddim_cli.images.archives import named
from gddim_cli.images.decode import refuse_mixed
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.sources import ImageSource, Read
from gddim_cli.images.subset import unbroken
from gddim_cli.runtime.arrays import read_archive, read_array, read_header
from gddim_cli.runtime.files import sha256

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ArraySource(ImageSource):
    """The images of one .npy, memory-mapped: [N, H, W] or [N, H, W, C]."""

    path: Path

    @classmethod
    def of(cls, name: str, path: Path) -> ArraySource:
        """The images of an .npy.

        Raises:
            DataError: the file cannot be read, or is not an array of uint8 images.
        """
        array = read_array(path, memory_map=True)
        if not are_images(array.dtype, array.shape):
            raise DataError(
                f"{path}: uint8 images [N, H, W] or [N, H, W, C] (1 or 3 channels) are needed, found "
                f"{array.dtype}{list(array.shape)}; {way_out([(array.dtype, array.shape)])}"
            )
        return cls(name, len(array), image_shape(array.shape), path)

    @contextmanager
    def _opened(self) -> Iterator[Read]:
        array = read_array(self.path, memory_map=True)
        whole = isinstance(self.rows, range)

        def read(begin: int, end: int) -> Pixels:
            images = array[begin:end] if whole else array[list(self.rows[begin:end])]
            return np.array(images).reshape(-1, *self.shape)

        yield read

    def fingerprint(self) -> str:
        return combined([self.path], self.count, self.chosen_from)


@dataclass(frozen=True)
class ArchiveSource(ImageSource):
    """The images of one or more .npz, one archive after another. One thread reads the archives as streams.

    Attributes:
        parts: for each archive, its path and number of images.
        key: the name of the array with the images, the same in each archive.
    """

    parts: Sequence[tuple[Path, int]]
    key: str

    @classmethod
    def of(cls, name: str, paths: Sequence[Path], key: str) -> ArchiveSource:
        """The images of these archives.

        Raises:
            DataError: an array does not hold uint8 images, or its images differ in size or channels from those of the
                first archive.
        """
        shapes = [read_archive(path)[images_key(path, key)][1] for path in paths]
        for path, shape in zip(paths, shapes, strict=True):
            refuse_mixed(image_shape(shape), path, image_shape(shapes[0]), paths[0].name)
        parts = [(path, shape[0]) for path, shape in zip(paths, shapes, strict=True)]
        return cls(name, sum(count for _, count in parts), image_shape(shapes[0]), parts, key)

    @contextmanager
    def _opened(self) -> Iterator[Read]:
        with ExitStack() as stack:
            reader = ArchiveReader(self.parts, self.key, self.shape, stack)
            yield lambda begin, end: np.concatenate([reader.read(*run) for run in unbroken(self.rows[begin:end])])

    def fingerprint(self) -> str:
        return combined([path for path, _ in self.parts], self.count, self.chosen_from, self.key)


@dataclass
class ArchiveReader:
    """Reads images from one or more .npz as streams, in rising order of their indices.

    Attributes:
        parts: for each archive, its path and number of images.
        key: the name of the array, uint8, in each archive.
        shape: the shape of one image, (H, W, C).
        stack: closes the open archive.
        number: the index in `parts` of the open archive; -1 if none has been opened.
        row: the index, within the open archive, of the next image in `member`.
        member: the array in the open archive, as a stream.
    """

    parts: Sequence[tuple[Path, int]]
    key: str
    shape: tuple[int, int, int]
    stack: ExitStack
    number: int = -1
    row: int = 0
    member: IO[bytes] = field(default_factory=io.BytesIO)

    def read(self, begin: int, end: int) -> Pixels:
        """Images `begin` to `end` (exclusive). `begin` must not be smaller than `end` of the previous call.

        Raises:
            DataError: an archive is damaged.
        """
        images = np.empty((end - begin, *self.shape), np.uint8)
        first = 0
        for number, (path, count) in enumerate(self.parts):
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                with named(f"{path}: array '{self.key}'"):
                    if number != self.number:
                        self._open(number)
                    self._fill(images[low - begin : high - begin], low - first)
            first += count
        return images

    def _open(self, number: int) -> None:
        path, _ = self.parts[number]
        self.stack.close()
        archive = self.stack.enter_context(zipfile.ZipFile(path))
        self.member = self.stack.enter_context(archive.open(f"{self.key}.npy"))
        self.number, self.row = number, 0
        shape, fortran, _ = read_header(self.member)
        if fortran and len(shape) > 1:
            raise DataError(f"{path}: the array is in Fortran order; save np.ascontiguousarray(x) instead")

    def _fill(self, images: Pixels, row: int) -> None:
        size = images[0].nbytes
        self.member.seek((row - self.row) * size, io.SEEK_CUR)
        raw = self.member.read(len(images) * size)  # zipfile compares the checksum when the last byte is read
        if len(raw) < len(images) * size:
            raise EOFError("truncated")
        images[:] = np.frombuffer(raw, np.uint8).reshape(images.shape)
        self.row = row + len(images)


def images_key(path: Path, key: str | None) -> str:
    """The name of the array with images in an .npz: `key` if given, else `train_images`, else the only array of images.

    Raises:
        DataError: there is no such array, or several.
    """
    arrays = read_archive(path)
    if key is not None and key not in arrays:
        raise DataError(f"{path}: there is no array '{key}'; {nearest(key, arrays)}")
    found = [name for name in ([key] if key else arrays) if are_images(*arrays[name])]
    if "train_images" in found:
        return "train_images"
    if len(found) != 1:
        hint = "name the array with --key" if found else way_out([arrays[key]] if key else list(arrays.values()))
        shapes = ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in arrays.items()) or "no arrays"
        raise DataError(
            f"{path}: needs one array of uint8 images [N, H, W] or [N, H, W, C] (1 or 3 channels), found {shapes}; {hint}"
        )
    return found[0]


def are_images(dtype: np.dtype[Any], shape: Shape) -> bool:
    """Whether an array is [N, H, W] or [N, H, W, C] of uint8. [H, W, 3] is taken as one image, not as H gray images."""
    if dtype != np.uint8 or len(shape) not in (3, 4) or min(shape) == 0:
        return False
    return (shape[3] in (1, 3)) if len(shape) == 4 else shape[2] not in (1, 3)


def way_out(arrays: Sequence[tuple[np.dtype[Any], Shape]]) -> str:
    """Advice on how to save images, given the types and shapes of arrays that were refused."""
    for dtype, shape in arrays:
        if len(shape) not in (3, 4) or min(shape) == 0:
            continue
        if dtype.kind == "f":
            return (
                "convert floats to uint8 first: np.round(255 * x) if they are in [0, 1], or np.round(127.5 * (x + 1)) "
                "if they are in [-1, 1], clipped to 0..255, .astype(np.uint8)"
            )
        if dtype != np.uint8:
            return f"scale {dtype} values to 0..255 and convert them to uint8 first, .astype(np.uint8)"
        if len(shape) == 3:
            return "this looks like one image; give at least two, as [N, H, W, C]"
        if shape[1] in (1, 3):
            return "the channels come first: save x.transpose(0, 2, 3, 1) instead"
    return "save the images as one array, np.savez(path, images=x)"


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """(H, W, C) of an array [N, H, W] or [N, H, W, C]."""
    return shape[1], shape[2], shape[3] if len(shape) == 4 else 1


def combined(paths: Sequence[Path], *more: object) -> str:
    """SHA-256 of the files' contents together with `more`, the other values that distinguish two sources."""
    total = hashlib.sha256(repr(more).encode())
    for path in paths:
        with named(path):
            total.update(sha256(path).encode())
    return total.hexdigest()


def checked_images(images: Any) -> Pixels:
    """Images as uint8 [N, H, W, C]; raises DataError for anything else."""
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise DataError(
            f"images are {array.dtype}{list(array.shape)}; uint8 [N, H, W] or [N, H, W, C] with 1 or 3 channels is needed"
        )
    if len(array) < 2:
        raise DataError(f"{len(array)} images: a covariance needs at least two")
    return array if array.ndim == 4 else array[..., None]
