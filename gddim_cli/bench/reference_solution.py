"""Converged solutions of the probability flow, with which the images of deterministic samplers are compared."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import Folder, Result, SolverError, short_hash
from gddim_cli.errors import UsageError
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import replacing

NFE, ORDER = 400, 3
"""On the bundled checkpoint order 3 at NFE 400 is 6e-5 from NFE 200; order 3 at NFE 100 is at 8e-4."""
SHARED = (
    "checkpoint_sha256", "diffusion", "parameters", "diffusion_sha256", "t_start", "t_end", "denoise", "seed", "dtype",
    "tf32", "init_noise_sha256",
)  # fmt: skip
"""Resolved settings that cells with the same exact solution share."""


class Solution(msgspec.Struct):
    """What `solutions/KEY.json` says of `solutions/KEY.npy`, images [n, C, H, W] in about [-1, 1]."""

    settings: dict[str, Any]
    images: int
    converged_to: float


def solver_error(
    result: Result, request: SamplingRequest, prepared: PreparedRun, resources: Resources, folder: Folder, images: int
) -> SolverError:
    """`sqrt(mean (x - x*)^2)` over pixels and the first images, x before quantisation; raises GddimError as samplers do.

    x* is computed once in a folder. It is the same for every sampler, order, K and grid: all solve one equation from u_T to
    t_end, with one denoising step. `request` is the result's, as the plan has it.
    """
    name = solution_name(result, images)
    array, about = folder.path / f"{name}.npy", folder.read(f"{name}.json", Solution)
    if about is None or not array.is_file():
        half, k = solve(request, NFE // 2, resources, images)
        full, k = solve(request, NFE, resources, images)
        about = Solution({"sampler": "gddim", "order": ORDER, "k": k, "nfe": NFE}, images, distance(half, full))
        with replacing(array) as temporary, temporary.open("wb") as file:
            np.save(file, full)
        folder.write(f"{name}.json", about)
    rms = distance(first_images(prepared, images, resources.batch_size), read_array(array))
    return SolverError(images, rms, about.settings, about.converged_to)


def solution_name(result: Result, images: int) -> str:
    """The files' name, without ending, of the solution for a result."""
    shared = {name: getattr(result.request, name) for name in SHARED}
    return f"solutions/{short_hash(shared, images, ORDER, NFE)}"


def solve(request: SamplingRequest, nfe: int, resources: Resources, images: int) -> tuple[NDArray[np.floating], str]:
    """The first images by gDDIM of order 3, [n, C, H, W], and its K: R, under which eps is nearly constant, or else L."""
    exact = replace(request, sampler="gddim", options={"order": ORDER}, nfe=nfe, time_grid=2.0)
    try:
        prepared = resources.prepare(replace(exact, k="R"))
    except UsageError:
        prepared = resources.prepare(replace(exact, k="L"))
    return first_images(prepared, images, resources.batch_size), prepared.config.k


def first_images(prepared: PreparedRun, images: int, batch_size: int) -> NDArray[np.floating]:
    """The first images, [n, C, H, W], before quantisation."""
    batches = prepared.batches(range(images), batch_size, images)
    return np.concatenate([prepared.images(prepared.run(indices)) for indices in batches])[:images]


def distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))
