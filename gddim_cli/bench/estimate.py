"""What a plan will take, from a short measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from gddim_cli.bench.reference_solution import cost, name_of
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.errors import CapacityError
from gddim_cli.images.quantize import quantize


@dataclass(frozen=True)
class Cost:
    """What a group of results has still to do: network evaluations, counted per image, and seconds with the features."""

    evaluations: int
    seconds: float
    done: bool


def costs(plan: BenchPlan, resources: Resources, folder: Folder, strict: bool = True) -> dict[str, Cost]:
    """The cost of each group by the name of its features, from one warm batch of each model and extractor.

    Args:
        strict: raise CapacityError where a batch does not fit in the memory; else such groups cost nothing.
    """
    speeds: dict[object, tuple[float, float]] = {}
    solved: set[str] = set()
    found = {}
    for group in plan.groups():
        first, kept = group[0], [folder.result(result, plan.solver_error) for result in group]
        left = 0 if all(result.value is not None for result in kept) else first.num - folder.rows_done(first.features)
        needs = first.deterministic and any(not r.solver_error or r.solver_error.failed for r in kept)
        images = plan.solver_error if needs else 0
        evaluations = first.per_image * (left + images)
        if images and name_of(first, images) not in solved:
            solved.add(name_of(first, images))
            evaluations += cost([first], folder, images)
        request, identity = first.request, first.evaluator
        kind = (request.checkpoint_sha256, request.diffusion, request.dtype, identity["weights_sha256"])
        if (left or images) and kind not in speeds:
            try:
                with resources.memory():
                    speeds[kind] = measured(plan, first, resources)
            except CapacityError:
                if strict:
                    raise
        network, features = speeds.get(kind, (0.0, 0.0))
        found[first.features] = Cost(evaluations, evaluations * network + left * features, not (left or images))
    return found


@torch.inference_mode()
def measured(plan: BenchPlan, result: Result, resources: Resources) -> tuple[float, float]:
    """Seconds of one network evaluation and of the features, per image: those of the second of two batches."""
    cell = plan.cell(result.key)
    prepared = resources.prepare(cell.request)
    extract = resources.evaluator(cell, prepared.model.image_shape).extractor
    indices, spent = range(min(resources.batch_size, result.num)), [0.0, 0.0]
    for _ in range(2):
        begun = time.perf_counter()
        u = prepared.start(indices)
        images = prepared.images(prepared.eps(u, prepared.config.t_start))
        evaluated = time.perf_counter()
        extract(quantize(np.zeros_like(images), "floor"))
        spent = [evaluated - begun, time.perf_counter() - evaluated]
    return spent[0] / len(indices), spent[1] / len(indices)
