"""Solver errors: how far the images of deterministic cells are from the converged solution, which a folder keeps."""

from __future__ import annotations

from msgspec.structs import replace

from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import Folder, Result, SolverError, short_hash
from gddim_cli.runs.converged import NFE, ORDER, Images, rms_distance, shared_settings, solve
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.arrays import read_array, write_array
from gddim_cli.runtime.json_files import read_json, write_json


def solution_name(result: Result, images: int) -> str:
    """The files' name, without ending, of the solution for a result."""
    return f"solutions/{short_hash(shared_settings(result.request), images, ORDER, NFE)}"


def solver_error(
    result: Result, request: SamplingRequest, x: Images, resources: Resources, folder: Folder
) -> SolverError:
    """`sqrt(mean (x - x*)^2)` over pixels and images; raises GddimError as samplers do.

    `x` [n, C, H, W] are the result's first images before quantisation, `request` is the result's as the plan has it. The folder
    keeps x* and how it was made.
    """
    images, size = len(x), resources.batch_size
    name = solution_name(result, images)
    array, about = folder.path / f"{name}.npy", read_json(folder.path / f"{name}.json", SolverError)
    if about is None or not array.is_file():
        half, k = solve(request, NFE // 2, resources.prepare, images, size)
        full, k = solve(request, NFE, resources.prepare, images, size)
        reference = {"sampler": "gddim", "order": ORDER, "k": k, "nfe": NFE}
        about = SolverError(images, reference=reference, converged_to=rms_distance(half, full))
        write_array(array, full)
        write_json(folder.path / f"{name}.json", about)
    return replace(about, rms=rms_distance(x, read_array(array)))
