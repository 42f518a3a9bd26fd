"""Images from .npz archives, compressed or not, without holding more than is asked for."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from gddim_cli.errors import DataError
from gddim_cli.images.picture_files import naming
from gddim_cli.images.quantize import Pixels
from gddim_cli.runtime.arrays import read_header


@dataclass
class ArchiveReader:
    """Reads images forwards from one or more .npz, one after another, as streams.

    Attributes:
        parts: of each archive, its path and number of images.
        key: the array in each, uint8.
        shape: of one image, (H, W, C).
        stack: closes the archive that is open.
        number: which of the parts that is.
        member: its array, from image `row` on.
    """

    parts: Sequence[tuple[Path, int]]
    key: str
    shape: tuple[int, int, int]
    stack: ExitStack
    number: int = -1
    row: int = 0
    member: IO[bytes] = field(default_factory=io.BytesIO)

    def read(self, begin: int, end: int) -> Pixels:
        """Images `begin` to `end`; `begin` is not before the last call's `end`.

        Raises:
            DataError: an archive is damaged.
        """
        images = np.empty((end - begin, *self.shape), np.uint8)
        first = 0
        for number, (path, count) in enumerate(self.parts):
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                with naming(f"{path}: array '{self.key}'"):
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
            raise DataError(f"{path}: in Fortran's order; save np.ascontiguousarray(x) instead")

    def _fill(self, images: Pixels, row: int) -> None:
        size = images[0].nbytes
        self.member.seek((row - self.row) * size, io.SEEK_CUR)
        raw = self.member.read(len(images) * size)  # with the last byte zipfile compares the checksum
        if len(raw) < len(images) * size:
            raise EOFError("truncated")
        images[:] = np.frombuffer(raw, np.uint8).reshape(images.shape)
        self.row = row + len(images)
