"""The data that a benchmark stores: its plan, its results, and their folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.bench.cell import Cell
from gddim_cli.errors import DataError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.images.samples import FirstImages
from gddim_cli.images.sheet import SHOWN
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.solver_error import SolverError
from gddim_cli.runtime.json_files import read_json, sealed, short_hash, write_json
from gddim_cli.runtime.row_file import PartialRows
from gddim_cli.samplers.registry import SAMPLERS

PLAN, SESSIONS, RESULTS = "plan.json", "sessions.json", "results.json"
NUM = 500
WITHOUT_METRIC = {"metric": "solver error", "metric_name": "error", "reference": None, "protocol": None}
"""Stands for the evaluator in results that have only a solver error and pictures."""


class Result(msgspec.Struct):
    """A cell's value and everything that the value depends on. Interruptions do not change a result.

    `key` is a hash of the resolved request, the number of images and the evaluator's identity. `features` is a hash of
    what determines images and features. `planned` is the planned NFE per image (None if the sampler is adaptive), `nfe`
    the counted NFE. `standard_error` is the metric's. `failed` says why there is no value; the next run tries again.
    """

    key: str
    features: str
    request: SamplingRequest
    num: int
    evaluator: dict[str, Any]
    planned: int | None
    value: float | None = None
    standard_error: float | None = None
    nfe: float | None = None
    tolerance: float | None = None
    solver_error: SolverError | None = None
    device: str = ""
    versions: dict[str, str] = {}
    failed: str | None = None
    checksum: str = ""

    def __post_init__(self) -> None:
        if self.key != short_hash(self.request, self.num, self.evaluator):
            raise ValueError("key: does not match its request, num and evaluator")  # read_json names the file

    @property
    def deterministic(self) -> bool:
        """Whether the sampler solves the probability flow, which has an exact solution."""
        return SAMPLERS[self.request.sampler].is_deterministic(self.request.sampler_options)

    @property
    def has_metric(self) -> bool:
        """Whether the result has a metric; otherwise it has a solver error and pictures only."""
        return self.evaluator != WITHOUT_METRIC

    @property
    def number(self) -> float | None:
        """The value of the metric or, if the result has no metric, the solver error."""
        solver_error = self.solver_error.rms if self.solver_error else None
        return self.value if self.has_metric else solver_error

    @property
    def missing(self) -> bool:
        """Whether the result has not been measured."""
        return (self.value if self.has_metric else self.nfe) is None

    @property
    def failure(self) -> str | None:
        """Why the value or the solver error is missing."""
        solver = self.solver_error.failed if self.solver_error else None
        return self.failed or (solver and f"solver error: {solver}")


def pending(cell: Cell, prepared: PreparedRun, evaluator: Evaluator | None, images: int) -> Result:
    """The result of a cell before it has been measured; raises GddimError for too many or too few images.

    Without an evaluator, the result is a solver error on `images` images.
    """
    num = images
    if evaluator:
        num = cell.num or (evaluator.protocol.num if evaluator.protocol else NUM)
        evaluator.check_count(num)
    if prepared.initial is not None and num > len(prepared.initial):
        raise DataError(f"--init-noise: holds {len(prepared.initial)} states, fewer than the {num} images; lower --num")
    identity, request = evaluator.identity() if evaluator else dict(WITHOUT_METRIC), prepared.request
    extractor = [identity.get(name) for name in ("mode", "network", "weights_sha256")]
    key, features = short_hash(request, num, identity), short_hash(request, num, extractor)
    return Result(key, features, request, num, identity, prepared.sampler.nfe)


class BenchPlan(msgspec.Struct):
    """A checked plan: its cells, and their results without values, in the order in which they will be measured."""

    source: str
    solver_error: int  # The number of images on which each solver error is measured; 0 if none is measured.
    notes: list[str]
    cells: list[Cell]
    results: list[Result]

    def __post_init__(self) -> None:
        if not {cell.key for cell in self.cells} <= {result.key for result in self.results}:
            raise ValueError("cells: their results are missing")

    def cell(self, key: str) -> Cell:
        """The first cell whose result has this key."""
        return next(cell for cell in self.cells if cell.key == key)

    def pictured(self, result: Result) -> int:
        """How many images of a result the sheets show: 0 unless it has the first cell's seed, so that all share noises."""
        return min(SHOWN, result.num) if result.request.seed == self.cells[0].request.seed else 0

    def groups(self) -> list[list[Result]]:
        """The results in groups that share their images and features."""
        return [list(group) for _, group in groupby(self.results, lambda result: result.features)]


class Folder:
    """A folder with `plan.json`, `cells/KEY.json`, converged solutions, pictures, partial results, and the reports."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def plan(self) -> BenchPlan:
        """The plan of the folder; raises DataError if there is none."""
        found = read_json(self.path / PLAN, BenchPlan)
        if found is None:
            raise DataError(f"{self.path}: has no {PLAN}, so it is not a folder of gddim bench")
        return found

    def keep(self, result: Result) -> None:
        """Writes a result; raises OutputError if it cannot be written."""
        write_json(self.path / "cells" / f"{result.key}.json", sealed(result))

    def result(self, pending: Result, images: int) -> Result:
        """The stored result, or else a copy of `pending`. Without a solver error if it is of another number of images."""
        path = self.path / "cells" / f"{pending.key}.json"
        found = read_json(path, Result) or sealed(pending)
        if found.key != pending.key or found.features != pending.features or found != sealed(found):
            raise DataError(f"{path}: damaged, edited, or of another cell; remove it and run the same command again")
        if found.solver_error and found.solver_error.images != images:
            found.solver_error = None
        return found

    def pairs(self, plan: BenchPlan) -> list[tuple[Cell, Result]]:
        """Every cell of a plan with its result as stored, or still pending."""
        kept = {pending.key: self.result(pending, plan.solver_error) for pending in plan.results}
        return [(cell, kept[cell.key]) for cell in plan.cells]

    def samples(self, plan: BenchPlan, result: Result) -> FirstImages:
        """The images of a result that the sheets show."""
        return FirstImages(self.path / "samples" / result.features, plan.pictured(result))

    def first_images(self, plan: BenchPlan, kept: Sequence[Result], streams: bool = False) -> int:
        """How many of a group's first images have to be made for pictures and solver errors; 0 if these exist.

        `streams` says that all images of the group are about to be made anyway, so that the pictures will be stored.
        """
        first, pictures = kept[0], self.samples(plan, kept[0])
        solved = plan.solver_error if first.deterministic else 0
        unsolved = solved and any(not one.solver_error or one.solver_error.failed for one in kept)
        unseen = not streams and bool(pictures.missing())
        bare = first.missing and not first.has_metric
        wanted = max(solved, pictures.count * unseen, first.num * bare)
        return wanted if unsolved or unseen or bare else 0

    def rows(self, features: str) -> PartialRows:
        """The file of features of a group that is being measured: a float32 row for each image, filled in by index."""
        return PartialRows(self.path / "partial" / "features.npy", features)
