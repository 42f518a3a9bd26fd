"""An .npy file of float32 rows that is filled in by index, in any order, and renamed when it is complete."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.runtime.arrays import read_array, read_header
from gddim_cli.runtime.files import replacing, require_space, sha256, writing


class RowFile:
    """A file of float32 rows. Rows that have not been written yet hold NaN.

    Until it is complete, the file is called `FILE.npy.RUN.partial`. RUN identifies the run's settings, so that a run
    with other settings does not continue the file. The partial file ends with a checksum of each row, so that a damaged
    row counts as not written. Rows are written with ordinary writes. With a memory map, a full disk would kill the
    program instead of raising an error.
    """

    def __init__(
        self, path: Path, num: int, shape: Sequence[int], run: str, finished: str | None, overwrite: bool
    ) -> None:
        """Starts the file for `num` rows of `shape`, or continues this run's file.

        Args:
            run: identifies the run's settings, in the name of the partial file.
            finished: sha256 of the file that this run finished earlier, or None.
            overwrite: whether to start again even if this run has a partial file.

        Raises:
            OutputError: the file cannot be written, or the disk has too little space for it.
            DataError: the partial file is damaged.
        """
        self.path = path
        self.partial = partial_path(path, run)
        known = path.exists() and finished is not None and sha256(path) == finished
        source = self.partial if self.partial.exists() and not overwrite else path if known else None
        old = None if source is None else read_array(source, memory_map=True)
        if old is not None and (old.dtype != np.float32 or old.shape[1:] != tuple(shape) or not old.ndim):
            raise DataError(
                f"{source}: {old.dtype}{list(old.shape)}, not rows of float32{list(shape)}; remove it and rerun the same "
                "command"
            )
        self.complete = source == path and old is not None and len(old) == num
        if not self.complete and (source != self.partial or old is None or len(old) != num):
            self._begin(num, shape, old, source)

    def _begin(self, num: int, shape: Sequence[int], old: NDArray[np.float32] | None, source: Path | None) -> None:
        """Writes the partial file atomically: the undamaged rows of `old`, which `source` holds, and NaN elsewhere."""
        intact = set[int]()
        if old is not None:  # A finished file has no checksums; it has been compared with its sha256.
            intact = intact_rows(self.partial, old) if source == self.partial else set(range(len(old)))
        missing = np.full(shape, np.nan, "<f4").tobytes()
        with replacing(self.partial) as temporary, temporary.open("wb") as file:
            require_space(self.path, num * (len(missing) + 4))
            sums = np.zeros(num, "<u4")
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)})
            for index in range(num):
                row = old[index].tobytes() if old is not None and index in intact else missing
                sums[index] = checksum(row) if index in intact else 0
                file.write(row)
            file.write(sums.tobytes())

    def done(self, num: int) -> set[int]:
        """The indices of the rows that have been written and are undamaged."""
        if self.complete:
            return set(range(num))
        return intact_rows(self.partial, read_array(self.partial, memory_map=True))

    def store(self, indices: Sequence[int], states: NDArray[np.floating]) -> None:
        """Writes the rows with these indices, and their checksums.

        Raises:
            OutputError: the rows cannot be written.
        """
        if self.complete:
            return
        rows = [row.tobytes() for row in states.astype("<f4")]
        with writing(self.partial), self.partial.open("r+b") as file:
            (num, *_), _, _ = read_header(file)
            start = file.tell()
            for index, row in zip(indices, rows, strict=True):
                file.seek(start + index * len(row))
                file.write(row)
                file.seek(start + num * len(row) + index * 4)
                file.write(np.array(checksum(row), "<u4").tobytes())

    def finish(self, keep_checksums: bool = False) -> None:
        """Renames the file to its final name; without `keep_checksums`, removes the checksums first."""
        if not self.complete:
            with writing(self.path):
                if not keep_checksums:
                    os.truncate(self.partial, checksums_start(self.partial))
                self.partial.replace(self.path)


def checksum(row: bytes) -> int:
    """The CRC-32 of a row. It is never 0, which marks a row that has not been written."""
    return zlib.crc32(row) or 1


def checksums_start(path: Path) -> int:
    """The position in a file of rows at which the checksums begin."""
    with path.open("rb") as file:
        shape, _, dtype = read_header(file)
        return file.tell() + math.prod(shape) * dtype.itemsize


def intact_rows(path: Path, rows: NDArray[np.float32]) -> set[int]:
    """The indices of the rows of a file that match their checksums; none if the file has no checksums."""
    stored = np.fromfile(path, "<u4", count=len(rows), offset=checksums_start(path))
    return {index for index, known in enumerate(stored) if known and known == checksum(rows[index].tobytes())}


def partial_path(path: Path, run: str) -> Path:
    """The path of a run's rows until the file is complete."""
    return path.with_name(f"{path.name}.{run}.partial")


@dataclass(frozen=True)
class PartialRows:
    """Rows [N, width] in a partial file that may be damaged. In a benchmark, the file is removed after use."""

    path: Path
    run: str

    @property
    def file(self) -> Path:
        """The path of the partial file."""
        return partial_path(self.path, self.run)

    def resumed(self, num: int, width: int) -> RowFile:
        """The file of `num` rows of `width` numbers. It is started again if it is damaged or has another shape."""
        damaged = float32_rows(self.file, num, width) is None
        return RowFile(self.path, num, (width,), self.run, None, overwrite=damaged)

    def done(self, num: int) -> int:
        """The number of rows, of `num`, that have been written and are undamaged."""
        rows = float32_rows(self.file, num)
        return 0 if rows is None else len(intact_rows(self.file, rows))

    def forget(self) -> None:
        """Removes the file."""
        with writing(self.file):
            self.file.unlink(missing_ok=True)


def float32_rows(path: Path, num: int, width: int | None = None) -> NDArray[np.float32] | None:
    """The rows in a file, [num, width], as a memory map; None if it is missing, damaged, or of another shape or dtype."""
    try:
        found = read_array(path, memory_map=True)
    except DataError:
        return None
    right = found.ndim == 2 and len(found) == num and found.shape[1] == (width or found.shape[1])
    return found if right and found.dtype == np.dtype("<f4") else None
