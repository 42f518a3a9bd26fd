"""Solver errors: how far the images of deterministic cells are from the converged solution, which a folder keeps."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import Folder, Result, SolverError, short_hash
from gddim_cli.runs.converged import NFE, ORDER, first_images, rms_distance, shared_settings, solve
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import replacing
from gddim_cli.runtime.json_files import read_json, write_json


def solution_name(result: Result, images: int) -> str:
    """The files' name, without ending, of the solution for a result."""
    return f"solutions/{short_hash(shared_settings(result.request), images, ORDER, NFE)}"


def solver_error(
    result: Result, request: SamplingRequest, prepared: PreparedRun, resources: Resources, folder: Folder, images: int
) -> SolverError:
    """`sqrt(mean (x - x*)^2)` over pixels and the first images, x before quantisation; raises GddimError as samplers do.

    `request` is the result's, as the plan has it. The folder keeps x*, images [n, C, H, W], and how it was made.
    """
    name, size = solution_name(result, images), resources.batch_size
    array, about = folder.path / f"{name}.npy", read_json(folder.path / f"{name}.json", SolverError)
    if about is None or not array.is_file():
        half, k = solve(request, NFE // 2, resources.prepare, images, size)
        full, k = solve(request, NFE, resources.prepare, images, size)
        reference = {"sampler": "gddim", "order": ORDER, "k": k, "nfe": NFE}
        about = SolverError(images, reference=reference, converged_to=rms_distance(half, full))
        with replacing(array) as temporary, temporary.open("wb") as file:
            np.save(file, full)
        write_json(folder.path / f"{name}.json", about)
    return replace(about, rms=rms_distance(first_images(prepared, images, size), read_array(array)))
