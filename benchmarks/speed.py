"""Measures the time that gddim adds to the network's own time, and how fast gddim starts: docs/numerics.md.

python benchmarks/speed.py [--device cuda]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from gddim_cli.checkpoints import load as loading
from gddim_cli.cli.main import main as command
from gddim_cli.diffusions.cld import CLD
from gddim_cli.models.network import Counted
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.time_grids import power_grid


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def coefficient_seconds() -> float:
    """Seconds of computing coefficients for NFE 50, order 2, K = R, including the integration of R_t."""
    return median_seconds(lambda: gddim_coefficients(CLD(), power_grid(1.0, 1e-3, 49), 2, "R", denoise=True), 9)


class Timed(Counted):
    """A network that times its evaluations, each until the GPU has finished it."""

    spans: ClassVar[list[tuple[float, float]]] = []

    def __call__(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        y = super().__call__(x, level)
        if y.is_cuda:
            torch.cuda.synchronize()
        self.spans.append((started, time.perf_counter()))
        return y


def overhead(device: str) -> float:
    """Runs `gddim sample` for 64 images at NFE 50.

    Returns the time from the start of the first evaluation to the last file, divided by the time of all evaluations.
    """
    setattr(loading, "Counted", Timed)  # noqa: B010 (the loader wraps the network of the run in `Counted`)
    Timed.spans.clear()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        sys.argv = [
            "gddim",
            "sample",
            "--num",
            "64",
            "--nfe",
            "50",
            "--out",
            folder,
            "--device",
            device,
            "--checkpoint",
            "mnist",
        ]
        command()
        raise AssertionError("the command did not exit")
    ended = time.perf_counter()
    return (ended - Timed.spans[0][0]) / sum(end - start for start, end in Timed.spans)


def help_seconds() -> tuple[float, float]:
    """Seconds of `gddim --help` and of an empty Python program, each a new process; the two are run alternately."""
    ours, bare = [], []
    for _ in range(9):
        ours.append(median_seconds(lambda: quietly("-m", "gddim_cli", "--help"), 1))
        bare.append(median_seconds(lambda: quietly("-c", "pass"), 1))
    return statistics.median(ours), statistics.median(bare)


def quietly(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    name = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    ratios = [overhead(device) for _ in range(5)]
    ours, bare = help_seconds()
    print(f"coefficients, NFE 50, order 2, K = R: {1e3 * coefficient_seconds():.0f} ms")
    print(
        f"gddim sample, 64 images, NFE 50, {name}: {statistics.median(ratios):.3f} times its network evaluations "
        f"(five runs: {min(ratios):.3f} to {max(ratios):.3f})"
    )
    print(f"gddim --help: {ours:.2f} s ({ours / bare:.1f} times an empty Python program)")


if __name__ == "__main__":
    main()
