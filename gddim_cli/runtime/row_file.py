"""An .npy file of float32 rows that is filled in by index, in any order, and renamed when it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import replacing, require_space, sha256, writing


class RowFile:
    """A file of float32 rows. Rows that have not been written yet hold NaN.

    Until it is complete, the file is called `FILE.npy.RUN.partial`. RUN identifies the run's settings, so that a run
    with other settings does not continue the file. Rows are written with ordinary writes. With a memory map, a full
    disk would kill the program instead of raising an error.
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
            self._begin(num, shape, old)

    def _begin(self, num: int, shape: Sequence[int], old: NDArray[np.float32] | None) -> None:
        """Writes the partial file atomically: the rows of `old`, followed by rows of NaN up to `num`."""
        missing = np.full(shape, np.nan, "<f4").tobytes()
        with replacing(self.partial) as temporary, temporary.open("wb") as file:
            require_space(self.path, num * len(missing))
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)})
            for row in range(num):
                file.write(old[row].tobytes() if old is not None and row < len(old) else missing)

    def done(self, num: int) -> set[int]:
        """The indices of the rows that have been written."""
        if self.complete:
            return set(range(num))
        states = read_array(self.partial, memory_map=True)
        return {int(i) for i in np.flatnonzero(~np.isnan(states.reshape(len(states), -1)[:, -1]))}

    def store(self, indices: Sequence[int], states: NDArray[np.floating]) -> None:
        """Writes the rows with these indices.

        Raises:
            OutputError: the rows cannot be written.
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
        """Renames the file to its final name; returns its sha256."""
        if not self.complete:
            with writing(self.path):
                self.partial.replace(self.path)
        return sha256(self.path)


def partial_path(path: Path, run: str) -> Path:
    """The path of a run's rows until the file is complete."""
    return path.with_name(f"{path.name}.{run}.partial")


@dataclass(frozen=True)
class PartialRows:
    """The rows of a run, [N, width], in a partial file that is removed after use and never gets a final name."""

    path: Path
    run: str

    def _read(self) -> NDArray[np.float32] | None:
        """The rows as a memory map; None if the file is missing or damaged."""
        try:
            found = read_array(partial_path(self.path, self.run), memory_map=True)
        except DataError:
            return None
        return found if found.ndim == 2 and found.shape[1] and found.dtype == np.dtype("<f4") else None

    def resumed(self, num: int, width: int) -> RowFile:
        """The file of `num` rows of `width` numbers. It is started again if it is damaged or has another shape."""
        found = self._read()
        return RowFile(self.path, num, (width,), self.run, None, overwrite=found is None or found.shape != (num, width))

    def done(self) -> int:
        """The number of rows that have been written."""
        rows = self._read()
        return 0 if rows is None else int((~np.isnan(rows[:, -1])).sum())

    def forget(self) -> None:
        """Removes the file."""
        path = partial_path(self.path, self.run)
        with writing(path):
            path.unlink(missing_ok=True)
