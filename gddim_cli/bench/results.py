"""What a benchmark keeps: results, the plan that they belong to, and the folder where they lie."""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from gddim_cli.bench.cell import Cell
from gddim_cli.errors import DataError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.files import replacing, writing
from gddim_cli.runtime.row_file import RowFile, partial_path, partial_rows, resumed_rows
from gddim_cli.samplers.registry import SAMPLERS

T = TypeVar("T")
PLAN, SESSIONS, RESULTS = "plan.json", "sessions.json", "results.json"
NUM = 500


class SolverError(msgspec.Struct):
    """The root mean square difference of the first images, in [-1, 1], from the converged solution `reference`, or why none.

    That solution is `converged_to` from the one at half its NFE.
    """

    images: int
    rms: float | None = None
    reference: dict[str, Any] = {}
    converged_to: float | None = None
    failed: str | None = None


class Result(msgspec.Struct):
    """A cell's value and everything that it depends on; the same however often the run was interrupted.

    Attributes:
        key: a hash of `request` (resolved), `num` and `evaluator` (its identity); equal keys are equal values.
        features: names the images and their features, which cells of several metrics share.
        planned: network evaluations per image by the sampler's construction; None where it is adaptive.
        nfe: network evaluations per image as counted, the mean where batches differ.
        failed: why there is no value; the cell is tried again by the next call.
    """

    key: str
    features: str
    request: SamplingRequest
    num: int
    evaluator: dict[str, Any]
    planned: int | None
    value: float | None = None
    nfe: float | None = None
    tolerance: float | None = None
    solver_error: SolverError | None = None
    device: str = ""
    versions: dict[str, str] = {}
    failed: str | None = None

    def __post_init__(self) -> None:
        if self.key != short_hash(self.request, self.num, self.evaluator):
            raise ValueError("key: is not that of its request, num and evaluator")  # to msgspec a file's mistake

    @property
    def deterministic(self) -> bool:
        """Whether its images solve the probability flow, so that they have an exact solution."""
        return SAMPLERS[self.request.sampler].is_deterministic(self.request.sampler_options)

    @property
    def per_image(self) -> int:
        """Network evaluations per image, as far as they are known beforehand."""
        return self.planned or self.request.nfe

    @property
    def model(self) -> tuple[str | None, str, bool]:
        """The network and its precision."""
        return self.request.checkpoint_sha256, self.request.dtype, self.request.tf32

    @property
    def failure(self) -> str | None:
        """Why the value or the solver error is missing."""
        solver = self.solver_error.failed if self.solver_error else None
        return self.failed or (solver and f"solver error: {solver}")


def short_hash(*parts: Any) -> str:
    """A name of requests and plain data. Settings that are None do not count, so that further ones change no name."""
    plain = [msgspec.to_builtins(part) for part in parts]
    given = [{k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else part for part in plain]
    return hashlib.sha256(msgspec.json.encode(given, order="sorted")).hexdigest()[:16]


def pending(cell: Cell, prepared: PreparedRun, evaluator: Evaluator) -> Result:
    """The result of a cell before it has been measured; raises DataError where `init_noise` has too few states."""
    num = cell.num or (evaluator.protocol.num if evaluator.protocol else NUM)
    if prepared.initial is not None and num > len(prepared.initial):
        raise DataError(f"--init-noise: holds {len(prepared.initial)} states, fewer than the {num} images; lower --num")
    identity, request = evaluator.identity(), prepared.request
    extractor = [identity[name] for name in ("mode", "network", "weights_sha256")]
    key, features = short_hash(request, num, identity), short_hash(request, num, extractor)
    return Result(key, features, request, num, identity, prepared.sampler.nfe)


class BenchPlan(msgspec.Struct, kw_only=True):
    """A checked plan; `plan.json` holds the one that last ran in a folder.

    `cells` are in the plan's order, `results` without values in the order of work; `solver_error` is a number of images.
    """

    source: str
    solver_error: int
    notes: list[str]
    cells: list[Cell]
    results: list[Result]

    def __post_init__(self) -> None:
        if not {cell.key for cell in self.cells} <= {result.key for result in self.results}:
            raise ValueError("cells: their results are missing")

    def cell(self, key: str) -> Cell:
        """The first cell of a result."""
        return next(cell for cell in self.cells if cell.key == key)

    def groups(self) -> list[list[Result]]:
        """The results, those of the same features together."""
        return [list(group) for _, group in groupby(self.results, lambda result: result.features)]


class Folder:
    """`plan.json`, `cells/KEY.json`, `solutions/`, `partial/`, `images/FEATURES/`, `sessions.json` and the reports."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file atomically; raises OutputError where it cannot be written."""
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    def read(self, name: str, kind: type[T]) -> T | None:
        """A JSON file; None where there is none. Raises DataError where it is not of this kind."""
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error

    def plan(self) -> BenchPlan:
        """The plan of the folder; raises DataError where there is none."""
        found = self.read(PLAN, BenchPlan)
        if found is None:
            raise DataError(f"{self.path}: has no {PLAN}, so it is not a folder of gddim bench")
        return found

    def result(self, pending: Result, images: int) -> Result:
        """What is kept of a result, or `pending`; a solver error on another number of images does not count."""
        found = self.read(f"cells/{pending.key}.json", Result) or msgspec.structs.replace(pending)
        if found.solver_error and found.solver_error.images != images:
            found.solver_error = None
        return found

    def pairs(self, plan: BenchPlan) -> list[tuple[Cell, Result]]:
        """Every cell of a plan with what is kept of its result."""
        kept = {pending.key: self.result(pending, plan.solver_error) for pending in plan.results}
        return [(cell, kept[cell.key]) for cell in plan.cells]

    def rows(self, result: Result, width: int) -> RowFile:
        """The features of a result at work, float32 [num, width], filled in by image."""
        return resumed_rows(self._partial, result.num, width, result.features)

    def rows_done(self, features: str) -> int:
        """The number of images at work whose features are kept."""
        rows = partial_rows(self._partial, features)
        return 0 if rows is None else int((~np.isnan(rows[:, -1])).sum())

    def forget_rows(self, features: str) -> None:
        """Removes features whose cells are all done."""
        path = partial_path(self._partial, features)
        with writing(path):
            path.unlink(missing_ok=True)

    @property
    def _partial(self) -> Path:
        return self.path / "partial" / "features.npy"
