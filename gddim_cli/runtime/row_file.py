"""An .npy file of float32 rows by index, which is filled in as the rows are computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import replacing, sha256, writing


class RowFile:
    """Rows of float32 numbers; rows that end in NaN are still missing.

    Until it is complete, the file is called `FILE.npy.RUN.partial`, where RUN identifies the run's settings, so that runs
    do not mix. It is written with ordinary writes: with a memory map a full disk would kill the program.
    """

    def __init__(
        self, path: Path, num: int, shape: Sequence[int], run: str, finished: str | None, overwrite: bool
    ) -> None:
        """Creates the file for `num` rows of `shape`, or resumes the file of an earlier session of the same run.

        Args:
            run: identifies the run's settings.
            finished: the sha256 of the file that this run completed earlier, or None.
            overwrite: whether a file of another run may be replaced.

        Raises:
            OutputError: the file cannot be written.
            DataError: `path` exists and does not belong to this run.
        """
        self.path = path
        self.partial = path.with_name(f"{path.name}.{run}.partial")
        known = path.exists() and finished is not None and sha256(path) == finished
        if path.exists() and not known and not overwrite:
            raise DataError(f"{path}: this file exists and does not belong to this run; choose another, or remove it")
        source = self.partial if self.partial.exists() and not overwrite else path if known else None
        old = None if source is None else read_array(source, memory_map=True)
        self.complete = source == path and old is not None and len(old) == num
        if not self.complete and (source != self.partial or old is None or len(old) != num):
            self._begin(num, shape, old)

    def _begin(self, num: int, shape: Sequence[int], old: NDArray[np.float32] | None) -> None:
        """Writes a file of NaN with the rows of `old`, atomically."""
        missing = np.full(shape, np.nan, "<f4").tobytes()
        with replacing(self.partial) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)})
            for row in range(num):
                file.write(old[row].tobytes() if old is not None and row < len(old) else missing)

    def done(self, num: int) -> set[int]:
        """The indices of the rows that are not missing."""
        if self.complete:
            return set(range(num))
        states = read_array(self.partial, memory_map=True)
        return {int(i) for i in np.flatnonzero(~np.isnan(states.reshape(len(states), -1)[:, -1]))}

    def store(self, indices: Sequence[int], states: NDArray[np.floating]) -> None:
        """Writes rows.

        Raises:
            OutputError: they cannot be written.
        """
        if self.complete:
            return
        rows = states.astype("<f4")
        with writing(self.partial), self.partial.open("r+b") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            for index, row in zip(indices, rows, strict=True):
                file.seek(start + index * row.nbytes)
                file.write(row.tobytes())

    def finish(self) -> str:
        """Renames the complete file to its final name; returns its sha256."""
        if not self.complete:
            with writing(self.path):
                self.partial.replace(self.path)
        return sha256(self.path)
