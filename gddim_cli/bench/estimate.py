"""What a plan will take, from a short measurement."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from gddim_cli.bench.reference_solution import solution_name
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.errors import CapacityError
from gddim_cli.runs.batch_size import BatchSizeProbe
from gddim_cli.runs.converged import COST


class Cost(NamedTuple):
    """What a group of results has still to do: network evaluations, counted per image, and seconds with the features."""

    evaluations: int
    seconds: float


def costs(plan: BenchPlan, resources: Resources, folder: Folder, strict: bool = True) -> dict[str, Cost]:
    """The cost of each group by the name of its features, from one warm batch of each model and extractor.

    Args:
        strict: raise CapacityError where a batch does not fit in the memory; else such groups cost nothing.
    """
    speeds: dict[object, tuple[float, float]] = {}
    solutions: set[str] = set()
    found = {}
    for group in plan.groups():
        first, kept = group[0], [folder.result(result, plan.solver_error) for result in group]
        left = 0 if all(result.value is not None for result in kept) else first.num - folder.rows_done(first.features)
        solved = not first.deterministic or all(one.solver_error and not one.solver_error.failed for one in kept)
        images = 0 if solved else plan.solver_error
        evaluations, name = first.per_image * (left + images), solution_name(first, images)
        if images and name not in solutions and not (folder.path / f"{name}.json").is_file():
            solutions.add(name)
            evaluations += images * COST
        kind = (first.model, first.request.diffusion, first.evaluator["weights_sha256"])
        if (left or images) and kind not in speeds:
            try:
                with resources.memory():
                    speeds[kind] = measured(plan, first, resources)
            except CapacityError:
                if strict:
                    raise
        network, features = speeds.get(kind, (0.0, 0.0))
        found[first.features] = Cost(evaluations, evaluations * network + left * features)
    return found


def measured(plan: BenchPlan, result: Result, resources: Resources) -> tuple[float, float]:
    """Seconds of one network evaluation and of the features, per image, of a warm batch."""
    cell, size = plan.cell(result.key), min(resources.batch_size, result.num)
    prepared = resources.prepare(cell.request)
    network = BatchSizeProbe(prepared).seconds(size)
    channels, height, width = shape = prepared.model.image_shape
    pixels, spent = np.zeros((size, height, width, channels), np.uint8), 0.0
    for _ in range(2):
        started = time.perf_counter()
        resources.evaluator(cell, shape).extractor(pixels)
        spent = time.perf_counter() - started
    return network / size, spent / size
