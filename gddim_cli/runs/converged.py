"""The converged solution of a request: the images to which deterministic samplers converge as the NFE grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gddim_cli.errors import UsageError
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest

Images = NDArray[np.floating[Any]]
NFE, ORDER = 400, 3
"""gDDIM of this order at this NFE counts as converged.

On the bundled checkpoint, its images differ by 6e-5 from those at NFE 200. Images at NFE 100 have an error of 8e-4.
"""
COST = NFE + NFE // 2
"""Network evaluations per image for a converged solution and a second solution at half its NFE.

The distance between the two shows how well the first has converged.
"""
SHARED = (
    "checkpoint_sha256", "diffusion", "parameters", "diffusion_sha256", "class", "guidance", "t_start", "t_end", "denoise",
    "seed", "dtype", "tf32", "init_noise_sha256",
)  # fmt: skip


def shared_settings(request: SamplingRequest) -> dict[str, Any]:
    """The settings of a resolved request that determine its exact solution.

    The sampler, its order, K and the time grid are left out: they determine how the equation from u_T to t_end is
    solved, but do not change its exact solution.
    """
    flat = request.flat()
    return {name: flat[name] for name in SHARED}


def solve(
    request: SamplingRequest, nfe: int, prepare: Callable[[SamplingRequest], PreparedRun], num: int, batch_size: int
) -> tuple[Images, str]:
    """The first `num` images by gDDIM of order 3, [num, C, H, W], and the K that was used.

    K is R, with which eps is nearly constant along a solution. If the model does not support R, K is L.

    Args:
        request: an unresolved request. Its sampler, options, NFE, time grid and K are replaced.
        prepare: returns the prepared run of a request.
    """
    exact = replace(request, sampler="gddim", options={"order": ORDER}, nfe=nfe, time_grid=2.0)
    try:
        prepared = prepare(replace(exact, k="R"))
    except UsageError:
        prepared = prepare(replace(exact, k="L"))
    return first_images(prepared, num, batch_size), prepared.config.k


def first_images(prepared: PreparedRun, num: int, batch_size: int) -> Images:
    """The first images of a run, [num, C, H, W], in about [-1, 1], before quantization."""
    batches = prepared.batches(range(num), batch_size, num)
    return np.concatenate([prepared.images(prepared.run(indices)) for indices in batches])[:num]


def rms_distance(x: Images, y: Images) -> float:
    """The root mean square difference over pixels and images."""
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))
