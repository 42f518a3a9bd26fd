"""The folder of a benchmark: every finished cell whole, the one at work by rows, and what each call of the command did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.runs.request import Settings
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import locked, replacing, writing
from gddim_cli.runtime.row_file import RowFile

T = TypeVar("T")
SETTINGS = ("checkpoint", "sampler", "nfe", "k", "seed", "order", "lambda", "eta", "corrector", "rtol", "atol")
"""Settings that tables are made of, beside those which `Settings` itself demands."""
PLAN, SESSIONS, RESULTS = "plan.json", "sessions.json", "results.json"


class Result(msgspec.Struct, kw_only=True):
    """What a cell came to; the same however often it was cut (another batch size changes it by rounding, RK45's by more).

    Attributes:
        settings: all that its images depend on.
        judge: all that its number depends on beside them.
        distance: to the reference, in the judge's metric.
        nfe: evaluations of the network that an image took, as counted; the mean where batches differ.
        tolerance: of an adaptive sampler, as tuned.
        failed: why it has no distance; such a cell is tried again by the next call.
    """

    key: str
    settings: dict[str, Any]
    num: int
    judge: dict[str, Any]
    distance: float | None = None
    nfe: float | None = None
    tolerance: float | None = None
    device: str = ""
    versions: dict[str, str] = {}
    failed: str | None = None

    def __post_init__(self) -> None:
        """Refuses, when a file is read, settings and a judge that none of ours wrote."""
        kept = {"settings": (self.settings, SETTINGS), "judge": (self.judge, ("metric", "reference", "protocol"))}
        for name, (found, needed) in kept.items():
            missing = [word for word in needed if word not in found]
            if missing:
                raise ValueError(f"{name}: no '{missing[0]}'")
        msgspec.convert({**self.settings, "format": ""}, Settings)


class SolverError(msgspec.Struct, kw_only=True):
    """How far a deterministic cell's images are from the converged solution from the same noise.

    Attributes:
        rms: root mean square over pixels and images of the difference, before quantisation, images in [-1, 1].
        images: the first so many.
        reference: sampler, order, K and NFE of the converged solution.
        converged_to: the same distance between it and the solution at half its NFE: what its own error stays below.
        failed: why there is no `rms`; it is tried again by the next call.
    """

    images: int
    rms: float | None = None
    reference: dict[str, Any] = {}
    converged_to: float | None = None
    failed: str | None = None


class CellTime(msgspec.Struct):
    """Seconds of a cell within one call: in all, in the network, in the features."""

    key: str
    images: int
    seconds: float
    network: float
    features: float


class Session(msgspec.Struct):
    """One call of the command: what may change from call to call, and so is in no result."""

    started: str
    device: str
    device_name: str
    batch_size: int
    seconds: float = 0.0
    network: float = 0.0
    features: float = 0.0
    cells: list[CellTime] = []


class PlacedCell(msgspec.Struct):
    """A cell of the plan in its table; `cell` are the plan's words for it."""

    key: str
    table: str
    cell: dict[str, Any]
    published: str | None = None


class Asked(msgspec.Struct, kw_only=True):
    """The plan that was last run in a folder.

    Attributes:
        cells: the results that are wanted, as `Result`s without their numbers.
        placed: which stand in which table.
    """

    source: str
    solver_error: int
    notes: list[str]
    cells: list[Result]
    placed: list[PlacedCell]

    def __post_init__(self) -> None:
        strangers = {one.key for one in self.placed} - {cell.key for cell in self.cells}
        if strangers:
            raise ValueError(f"placed: no cell {min(strangers)}")


def features(path: Path) -> NDArray[np.float32] | None:
    """The rows of a file of features, mapped; None where there is none or it is damaged."""
    try:
        found = read_array(path, memory_map=True)
    except DataError:
        return None
    return found if found.ndim == 2 and found.shape[1] and found.dtype == np.dtype("<f4") else None


class Folder:
    """`plan.json`, `cells/KEY.json`, `errors/`, `solutions/`, `partial/`, `images/KEY/`, `sessions.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder for one program at a time; the system lets go of it whatever ends the program.

        Raises:
            OutputError: another is at work there, or it cannot be written.
        """
        with locked(self.path, "gddim bench"):
            yield

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    def read(self, name: str, kind: type[T]) -> T | None:
        """A JSON file, or None where there is none.

        Raises:
            DataError: it is not what was written.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error

    def result(self, key: str) -> Result | None:
        """What is kept of a cell, a failure too."""
        return self.read(f"cells/{key}.json", Result)

    def error(self, key: str, images: int) -> SolverError | None:
        """The solver error of a cell, if it was measured on so many images, or why it has none."""
        found = self.read(f"errors/{key}.json", SolverError)
        return found if found and found.images == images else None

    def solved(self, key: str, images: int) -> bool:
        """Whether the solver error of a cell is there."""
        found = self.error(key, images)
        return found is not None and found.failed is None

    def rows(self, key: str, num: int, width: int) -> RowFile:
        """The features of the cell at work, float32 [num, width], filled in by image; begun anew where they are damaged."""
        path = self.path / "partial" / "features.npy"
        there = features(path.with_name(f"{path.name}.{key}.partial"))
        begun = there is not None and there.shape == (num, width)
        return RowFile(path, num, (width,), key, None, overwrite=not begun)

    def forget_rows(self, key: str) -> None:
        """Removes the features of a cell that is done."""
        for path in (self.path / "partial").glob(f"*.{key}.partial"):
            with writing(path):
                path.unlink(missing_ok=True)

    def rows_done(self, key: str) -> int:
        """Images of the cell at work whose features are there."""
        for path in (self.path / "partial").glob(f"*.{key}.partial"):
            there = features(path)
            return 0 if there is None else int((~np.isnan(there[:, -1])).sum())
        return 0

    def asked(self) -> Asked:
        """The plan of the folder.

        Raises:
            DataError: there is none.
        """
        found = self.read(PLAN, Asked)
        if found is None:
            raise DataError(f"{self.path}: no {PLAN} there; it is no folder of gddim bench")
        return found
