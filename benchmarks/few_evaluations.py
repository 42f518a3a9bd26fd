"""Compares solvers at few evaluations with the paper's scheme: docs/few-evaluations.md.

    python benchmarks/few_evaluations.py [--images 256] [--seed 1000] [--nfe 5,10,20] [--only cld|vp|orders|tune]

For the bundled checkpoint, it prints the root mean square distance, per pixel in [-1, 1], between a solver's images and
the converged images of the same noises. No shipped solver was fitted to these noises. It also prints the orders of the
solvers known from other programs, measured on a mixture with its exact score. Last, it prints the time and the peak
memory of `gddim tune --nfe 10`.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch

from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError
from gddim_cli.hub.load import load
from gddim_cli.models.model import Model
from gddim_cli.runs.converged import first_images, rms_distance
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import PRESETS, SamplingRequest
from gddim_cli.samplers.base import SamplerSpec
from gddim_cli.samplers.registry import SAMPLERS
from gddim_cli.verification.exact import exact_flow, example_mixture, slopes

CPU = torch.device("cpu")
CONVERGED = {"nfe": 200, "order": 3, "time_grid": 2.0}
KNOWN = ("edm", "dpm++2m", "dpm++3m", "unipc", "deis", "ipndm")
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("the paper's (--preset paper)", PRESETS["paper"]),
    ("default", {}),
    *((name, {"sampler": name}) for name in KNOWN),
    ("tuned (--solver auto)", {"solver": "auto"}),
]


def images(model: Model, count: int, **settings: Any) -> np.ndarray | None:
    """The first images with these settings; None if the sampler does not support them or no fitted solver exists."""
    try:
        prepared = prepare(SamplingRequest.of(settings), CPU, model=model)
    except UsageError:
        return None
    return first_images(prepared, count, 64)


def distances(model: Model, diffusion: str, budgets: list[int], count: int, seed: int) -> None:
    shared = {"diffusion": diffusion, "seed": seed}
    converged = images(model, count, **shared, **CONVERGED)
    assert converged is not None
    paper: dict[int, float] = {}
    print(f"\n**{diffusion}, {count} images of seed {seed}: RMSE (ratio to the paper's scheme)**\n")
    print("| solver | " + " | ".join(f"NFE {nfe}" for nfe in budgets) + " |\n" + "| --- " * (len(budgets) + 1) + "|")
    for label, settings in ROWS:
        cells = []
        for nfe in budgets:
            made = images(model, count, nfe=nfe, **shared, **settings)
            error = np.nan if made is None else rms_distance(made, converged)
            paper.setdefault(nfe, error)
            cells.append("" if made is None else f"{error:.4f} ({error / paper[nfe]:.2f})")
        if any(cells):
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def order_of(spec: SamplerSpec, steps: list[int]) -> float:
    """The order with which the error falls with the number of steps, measured on the example mixture through VP."""
    exact, errors = exact_flow(VP()), []
    for nfe in steps:
        given = {"sampler": spec.name, "nfe": nfe, "denoise": False, "t_end": exact.t_end, "dtype": "float64"}
        made = prepare(SamplingRequest.of(given), CPU, model=example_mixture(), diffusion=exact.diffusion)
        made.initial = exact.start.numpy()
        end = made.run(range(len(exact.start)))
        errors.append(float((end - exact.at(exact.t_end)).abs().max()))
    return float(slopes(steps, errors)[-1])


def orders() -> None:
    print("\n**Orders of the known solvers on the mixture, VP, their own time grids**\n")
    print("| solver | stated | measured, 160 to 320 evaluations |\n| --- | --- | --- |")
    for name in KNOWN:
        spec = SAMPLERS[name]
        print(f"| {name} | {spec.order} | {order_of(spec, [80, 160, 320]):.2f} |", flush=True)


def tuning() -> None:
    """Prints the time and peak memory of `gddim tune --nfe 10` with an empty cache."""
    with tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        call = [sys.executable, "-m", "gddim_cli", "tune", "--checkpoint", "mnist", "--nfe", "10"]
        subprocess.run(call, env={**os.environ, "GDDIM_HOME": home}, check=True)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\ngddim tune --nfe 10: {time.monotonic() - began:.0f} s, peak memory {memory:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--nfe", default="5,8,10,15,20")
    parser.add_argument("--only", choices=("cld", "vp", "orders", "tune"))
    chosen = parser.parse_args()
    budgets = [int(nfe) for nfe in chosen.nfe.split(",")]
    for diffusion in ("cld", "vp"):
        if chosen.only in (None, diffusion):
            distances(load("mnist", CPU), diffusion, budgets, chosen.images, chosen.seed)
    if chosen.only in (None, "orders"):
        orders()
    if chosen.only in (None, "tune"):
        tuning()


if __name__ == "__main__":
    main()
