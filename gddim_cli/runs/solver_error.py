"""Solver errors: distances of images from the converged solution. A folder keeps the converged solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.runs.converged import NFE, ORDER, Images, rms_distance, shared_settings, solve
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.arrays import read_array, write_array
from gddim_cli.runtime.json_files import read_json, short_hash, write_json


class SolverError(msgspec.Struct):
    """The distance of a run's first images from the converged solution.

    Attributes:
        images: the number of images.
        rms: the root mean square difference, or None.
        reference: the sampler settings of the converged solution.
        converged_to: the distance between the converged solution and the solution at half its NFE.
        failed: why there is no distance, or None.
    """

    images: int
    rms: float | None = None
    reference: dict[str, Any] = {}
    converged_to: float | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Solutions:
    """A folder of converged solutions.

    Attributes:
        prepare: returns the prepared run of a request.
        batch_size: the size of the batches in which solutions are computed.
    """

    folder: Path
    prepare: Callable[[SamplingRequest], PreparedRun]
    batch_size: int

    def path(self, resolved: SamplingRequest, images: int) -> Path:
        """The path of the record of a request's solution; an .npy of the same name holds the images, [n, C, H, W]."""
        return self.folder / f"{short_hash(shared_settings(resolved), images, ORDER, NFE)}.json"

    def error(self, x: Images, request: SamplingRequest, resolved: SamplingRequest) -> SolverError:
        """`sqrt(mean (x - x*)^2)` over pixels and images, with x* the converged solution from the same noise.

        Args:
            x: the first images of a run, [n, C, H, W], before quantization.
            request: the run's request as the user gave it.
            resolved: the same request after `prepare` has resolved it.

        Raises:
            GddimError: the converged solution cannot be computed.
        """
        path, images = self.path(resolved, len(x)), len(x)
        array, known = path.with_suffix(".npy"), read_json(path, SolverError)
        if known is None or not array.is_file():
            half, k = solve(request, NFE // 2, self.prepare, images, self.batch_size)
            full, k = solve(request, NFE, self.prepare, images, self.batch_size)
            reference = {"sampler": "gddim", "order": ORDER, "k": k, "nfe": NFE}
            known = SolverError(images, reference=reference, converged_to=rms_distance(half, full))
            write_array(array, full)
            write_json(path, known)
        return msgspec.structs.replace(known, rms=rms_distance(x, read_array(array)))
