"""Figures of benchmarks/gpu.py: the rate of matrix products, the automatic batch size, the distance from the CPU."""

from __future__ import annotations

import time

import numpy as np
import torch
from gpu_models import CPU, Model

import gddim_cli
from gddim_cli.models.acceleration import Speed
from gddim_cli.runs.batch_size import BatchSizeProbe, best_size
from gddim_cli.runtime.rounding import rounding


def distance_of_states(device: torch.device, nfe: int) -> float:
    """The relative difference, in the 2-norm, of the bundled model's final float32 states on the device and the CPU."""
    there, here = (
        gddim_cli.sample("mnist", nfe=nfe, num=4, device=str(place), return_states=True)[1] for place in (device, CPU)
    )
    return float(np.linalg.norm(there - here) / np.linalg.norm(here))


def automatic(model: Model, device: torch.device) -> list[str]:
    """The batch size that `--batch-size auto` takes."""
    trials = BatchSizeProbe(model.prepared(device, Speed(torch.bfloat16, channels_last=True)))
    largest = trials.max_batch_size()
    return [f"- `--batch-size auto` takes {best_size(trials.seconds, largest)} in bf16; the maximum is {largest}"]


def product_rates(device: torch.device, side: int) -> dict[str, float]:
    """TFLOP/s of large matrix products in each precision of the device."""
    found = {}
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        if device.type == "cuda" or not tf32:
            with rounding(tf32):
                found[name] = product_rate(device, dtype, side)
    return found


def product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """TFLOP/s of a product of square matrices, which is an upper limit for the rate of a network."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, (time.perf_counter() - started) / 4)
    return 2 * side**3 / fastest / 1e12
