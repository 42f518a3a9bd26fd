"""Converged solutions of the probability flow: what a deterministic sampler's images are compared with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.bench.folder import Folder, SolverError
from gddim_cli.bench.jobs import Job
from gddim_cli.bench.tools import Bench
from gddim_cli.errors import UsageError
from gddim_cli.runs.sampler import Sampler
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import replacing
from gddim_cli.samplers import registry as methods

NFE = 400
ORDER = 3
"""Order 3 at NFE 400: on the bundled checkpoint 6e-5 from NFE 200, where order 3 at NFE 100 is at 8e-4."""


class Solution(msgspec.Struct):
    """What `solutions/KEY.json` says of `solutions/KEY.npy`, images [n, C, H, W] in about [-1, 1]."""

    settings: dict[str, Any]
    images: int
    converged_to: float


def solver_error(job: Job, bench: Bench, folder: Folder, images: int, sampler: Sampler) -> SolverError:
    """The root mean square distance of a cell's first images to the exact solution from the same noise.

    `sqrt(mean (x - x*)^2)` over pixels and images, x before quantisation. x* is the same for every sampler, order, K and
    grid, since all of them solve one equation from u_T to t_end with the same denoising step.

    Raises:
        GddimError: the sampler fails.
    """
    solution, about = converged(job, bench, folder, images)
    found = []
    for indices in sampler.batches(range(images), bench.batch_size, images):
        kept = [row for row, index in enumerate(indices) if index < images]
        found.append(sampler.image(sampler.run(indices))[kept])
    rms = distance(np.concatenate(found), solution)
    reference = {name: about.settings[name] for name in ("sampler", "order", "k", "nfe")}
    return SolverError(rms=rms, images=images, reference=reference, converged_to=about.converged_to)


def distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))


SAME = ("checkpoint", "checkpoint_sha256", "diffusion", "t_start", "t_end", "denoise", "seed", "dtype")
"""Settings that cells share when they have one exact solution."""


def name_of(job: Job, images: int) -> str:
    """The files' name, without ending, of the solution for a job."""
    shared = {name: getattr(job.settings, name) for name in SAME}
    whole = msgspec.json.encode({**shared, "images": images, "order": ORDER, "nfe": NFE}, order="sorted")
    return f"solutions/{hashlib.sha256(whole).hexdigest()[:16]}"


def cost(jobs: Sequence[Job], folder: Folder, images: int) -> int:
    """Evaluations for an image that the solutions take which these jobs still need, each once."""
    needed = {name_of(job, images) for job in jobs if not folder.solved(job.key, images)}
    return sum(images * (NFE + NFE // 2) for name in needed if not (folder.path / f"{name}.json").is_file())


def converged(job: Job, bench: Bench, folder: Folder, images: int) -> tuple[NDArray[np.floating], Solution]:
    """The solution for a job's model, diffusion, ends, seed and dtype; computed once in a folder."""
    name = name_of(job, images)
    array = folder.path / f"{name}.npy"
    about = folder.read(f"{name}.json", Solution)
    if about is not None and array.is_file():
        return read_array(array), about
    chosen = dataclasses.replace(job.chosen, grid_power=2.0, k=best_k(job, bench))
    half, full = (solve(job, bench, chosen, nfe, images) for nfe in (NFE // 2, NFE))
    settings = {name: getattr(job.settings, name) for name in SAME}
    settings |= {"sampler": "gddim", "order": ORDER, "k": chosen.k, "nfe": NFE, "grid_power": chosen.grid_power}
    about = Solution(settings, images, distance(half, full))
    with replacing(array) as temporary, temporary.open("wb") as file:
        np.save(file, full)
    folder.write(f"{name}.json", about)
    return full, about


def best_k(job: Job, bench: Bench) -> Any:
    """R, under which eps is nearly constant; L for a model that has only that."""
    try:
        bench.model(job.cell.checkpoint, job.cell.dtype).eps(job.medium, "R")
    except UsageError:
        return "L"
    return "R"


def solve(job: Job, bench: Bench, chosen: Any, nfe: int, images: int) -> NDArray[np.floating]:
    """The first images by gDDIM of order 3, [n, C, H, W]."""
    plan = methods.plan("gddim", job.medium, chosen, nfe, methods.Choices(order=ORDER))
    sampler = dataclasses.replace(job.sampler(bench), plan=plan, k=chosen.k)
    parts = [
        sampler.image(sampler.run(indices)) for indices in sampler.batches(range(images), bench.batch_size, images)
    ]
    return np.concatenate(parts)
