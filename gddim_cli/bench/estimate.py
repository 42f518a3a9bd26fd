"""What a plan will cost, from a short measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from gddim_cli.bench import solutions
from gddim_cli.bench.folder import Folder
from gddim_cli.bench.jobs import Job, Program
from gddim_cli.bench.tools import Bench
from gddim_cli.images.quantize import quantize


@dataclass(frozen=True)
class Cost:
    """What a cell has still to do.

    Attributes:
        evaluations: of the network for one image; seconds: for them and the features.
        done: whether nothing is left.
    """

    evaluations: int
    seconds: float
    done: bool


def costs(program: Program, bench: Bench, folder: Folder) -> dict[str, Cost]:
    """The cost of every job, by key, from one warm batch of each model and one of each judge."""
    speeds: dict[tuple, tuple[float, float]] = {}
    solved: set[str] = set()
    found = {}
    for job in program.jobs:
        kept = folder.result(job.key)
        left = 0 if kept and not kept.failed else job.num - folder.rows_done(job.key)
        images = program.solver_error if job.deterministic and not folder.solved(job.key, program.solver_error) else 0
        evaluations = job.nfe * (left + images)
        solution = solutions.name_of(job, images)
        if images and solution not in solved:
            solved.add(solution)
            evaluations += solutions.cost([job], folder, images)
        kind = (job.settings.checkpoint_sha256, repr(job.settings.diffusion), job.settings.dtype, id(job.judge))
        if (left or images) and kind not in speeds:
            speeds[kind] = measured(job, bench)
        network, features = speeds.get(kind, (0.0, 0.0))
        found[job.key] = Cost(evaluations, evaluations * network + left * features, not (left or images))
    return found


@torch.inference_mode()
def measured(job: Job, bench: Bench) -> tuple[float, float]:
    """Seconds of one evaluation for one image, and of one image's features: the second of two batches.

    Raises:
        CapacityError: a batch does not fit in the memory.
    """
    with bench.room():
        return _timed(job, bench)


def _timed(job: Job, bench: Bench) -> tuple[float, float]:
    sampler = job.sampler(bench)
    indices = range(min(bench.batch_size, job.num))
    u, t = sampler.start(indices), job.chosen.t_start
    spent = []
    for _ in range(2):
        began = time.perf_counter()
        out = sampler.eps(u, t).cpu()
        spent.append(time.perf_counter() - began)
    pixels = quantize(np.zeros_like(sampler.image(out.to(bench.device))), "floor")
    for _ in range(2):
        began = time.perf_counter()
        job.judge.extractor(pixels)
        spent.append(time.perf_counter() - began)
    return spent[1] / len(indices), spent[3] / len(indices)
