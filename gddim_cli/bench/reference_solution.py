"""Converged solutions of the probability flow, with which deterministic samplers' images are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
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
    """`sqrt(mean (x - x*)^2)` over pixels and the first images, x before quantisation.

    x* is the same for every sampler, order, K and grid: all solve one equation from u_T to t_end, with one denoising step.

    Args:
        request: the result's, as the plan has it.

    Raises:
        GddimError: the sampler fails.
    """
    solution, about = converged(result, request, resources, folder, images)
    rms = distance(first_images(prepared, images, resources.batch_size), solution)
    return SolverError(rms=rms, images=images, reference=about.settings, converged_to=about.converged_to)


def name_of(result: Result, images: int) -> str:
    """The files' name, without ending, of the solution for a result."""
    shared = {name: getattr(result.request, name) for name in SHARED}
    return f"solutions/{short_hash(shared, images, ORDER, NFE)}"


def cost(results: Iterable[Result], folder: Folder, images: int) -> int:
    """Network evaluations for the solutions that these results need and the folder lacks."""
    needed = {name_of(result, images) for result in results}
    return sum(images * (NFE + NFE // 2) for name in needed if not (folder.path / f"{name}.json").is_file())


def converged(
    result: Result, request: SamplingRequest, resources: Resources, folder: Folder, images: int
) -> tuple[NDArray[np.floating], Solution]:
    """The solution for a result, computed once in a folder."""
    name = name_of(result, images)
    array, about = folder.path / f"{name}.npy", folder.read(f"{name}.json", Solution)
    if about is not None and array.is_file():
        return read_array(array), about
    half, full = (solve(request, nfe, resources, images) for nfe in (NFE // 2, NFE))
    settings = {"sampler": "gddim", "order": ORDER, "k": full[1], "nfe": NFE}
    about = Solution(settings, images, distance(half[0], full[0]))
    with replacing(array) as temporary, temporary.open("wb") as file:
        np.save(file, full[0])
    folder.write(f"{name}.json", about)
    return full[0], about


def solve(request: SamplingRequest, nfe: int, resources: Resources, images: int) -> tuple[NDArray[np.floating], str]:
    """The first images by gDDIM of order 3, [n, C, H, W], and its K: R, under which eps is nearly constant, or else L."""
    exact = {"sampler": "gddim", "options": {"order": ORDER}, "nfe": nfe, "time_grid": 2.0}
    try:
        prepared = resources.prepare(msgspec.structs.replace(request, **exact, k="R"))
    except UsageError:
        prepared = resources.prepare(msgspec.structs.replace(request, **exact, k="L"))
    return first_images(prepared, images, resources.batch_size), prepared.config.k


def first_images(prepared: PreparedRun, images: int, batch_size: int) -> NDArray[np.floating]:
    """The first images, [n, C, H, W], before quantisation."""
    batches = prepared.batches(range(images), batch_size, images)
    found = np.concatenate([prepared.images(prepared.run(indices)) for indices in batches])
    return found[:images]


def distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))
