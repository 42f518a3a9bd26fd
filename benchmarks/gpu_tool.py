"""What benchmarks/gpu.py says of the whole tool: runs of `gddim sample`'s own loop, from the noise to the files."""

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
    """Images/s of so many batches into a folder, as PNG and as npz; and of a sampler that draws noise at every step."""
    lines = []
    for what, lam, formats in (("this tool", None, ("png", "npz")), (f"with --lambda {LAMBDA}", LAMBDA, ("npz",))):
        try:
            rates = [
                f"{rate(model, speed, lam, form, batch, batches, device):.3g} images/s as {form}" for form in formats
            ]
        except GddimError as error:
            say(f"{what}: {error}")
        else:
            lines.append(f"- {what}, to the files, {batches} batches of {batch}, {name}: {', '.join(rates)}")
    return lines


def rate(
    model: Model, speed: Speed, lam: float | None, form: str, batch: int, batches: int, device: torch.device
) -> float:
    """Images/s of a run, to its manifest, after a run of one batch that compiles, captures and warms up.

    Raises:
        GddimError: as `Generation`.
    """
    prepared = model.prepared(device, speed, lam)
    with tempfile.TemporaryDirectory() as folder:
        for count in (batch, batch * batches):
            generation = Generation(RunFolder(Path(folder) / str(count), form), prepared, count, batch)
            session = generation.run(generation.prepare(), lambda _: None).sessions[-1]
    return session.images / session.seconds
