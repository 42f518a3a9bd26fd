"""The part of benchmarks/gpu.py that measures the complete tool: the loop of `gddim sample`, from noise to files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from gpu_models import Model

from gddim_cli.cli.progress import say
from gddim_cli.errors import GddimError
from gddim_cli.models.acceleration import Speed
from gddim_cli.runs.folder import RunFolder
from gddim_cli.runs.generate import Generation

LAMBDA = 0.3


def tool(model: Model, speed: Speed, name: str, batch: int, batches: int, device: torch.device) -> list[str]:
    """Lines with the images/s of a deterministic and of a stochastic run of several batches, files included."""
    lines = []
    for what, lam, formats in (
        ("the complete tool", None, ("png", "npz")),
        (f"the complete tool with --lambda {LAMBDA}", LAMBDA, ("npz",)),
    ):
        try:
            rates = [
                f"{rate(model, speed, lam, form, batch, batches, device):.3g} images/s as {form}" for form in formats
            ]
        except GddimError as error:
            say(f"{what}: {error}")
        else:
            lines.append(f"- {what}, files included, {batches} batches of {batch}, {name}: {', '.join(rates)}")
    return lines


def rate(
    model: Model, speed: Speed, lam: float | None, form: str, batch: int, batches: int, device: torch.device
) -> float:
    """Images/s of a whole run, including its manifest.

    Compilation, capture and warm-up are not included, since a run of one batch precedes the measured run.

    Raises:
        GddimError: as in `Generation`.
    """
    prepared = model.prepared(device, speed, lam)
    with tempfile.TemporaryDirectory() as folder:
        for count in (batch, batch * batches):
            generation = Generation(RunFolder(Path(folder) / str(count), form), prepared, count, batch)
            session = generation.run(generation.prepare(), lambda _: None).sessions[-1]
    return session.images / session.seconds
