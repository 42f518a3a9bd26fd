"""The part of benchmarks/gpu.py that makes memory run out during a run. The run has to survive this."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from gpu_models import Model

from gddim_cli.models.acceleration import Accelerated, Speed
from gddim_cli.runs.folder import RunFolder
from gddim_cli.runs.generate import Generation
from gddim_cli.runs.prepared_run import PreparedRun


def survived(model: Model, speed: Speed, batch: int, share: float, device: torch.device) -> list[str]:
    """Compares a batch of images made with too little memory with the same images made with enough memory.

    Args:
        share: the available memory, as a multiple of what the batch needs. Below 1 the batch does not fit; slightly
            above 1 the batch fits, but a CUDA graph of it does not.
    """
    notes: list[str] = []
    prepared = model.prepared(device, speed, say=notes.append)
    expected, _ = images(prepared, batch)
    prepared.release()
    with scarce(prepared, batch, share):
        made, size = images(prepared, batch)
    close = float((np.abs(made.astype(int) - expected) <= 1).mean())
    where = "provoked" if device.type == "cuda" else "simulated"
    told = f"; message: {notes[0]}" if notes else ""
    return [
        f"- out of memory, {where} with {share:.2f} of what a batch of {batch} takes{', with a CUDA graph' * speed.cuda_graph}: "
        f"survived in batches of {size}, {100 * close:.2f} % of pixels within one gray level{told}"
    ]


def images(prepared: PreparedRun, batch: int) -> tuple[np.ndarray, int]:
    """Runs the loop of `gddim sample --batch-size auto`, as if the measured batch size were `batch`.

    Returns:
        The first `batch` images, and the largest batch size that fit into memory.
    """
    sizes: list[int] = []
    run = prepared.run

    def counted(indices: range, *rest: object) -> torch.Tensor:
        made = run(indices, *rest)  # type: ignore[arg-type]
        sizes.append(len(indices))
        return made

    prepared.run = counted  # type: ignore[method-assign, assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = RunFolder(Path(folder) / "run", "npz")
            generation = Generation(out, prepared, batch, batch, automatic=True)
            todo = generation.prepare()
            generation.batch_size = batch
            generation.run(todo, lambda _: None)
            return out.images.read(range(batch)), max(sizes)
    finally:
        prepared.run = run  # type: ignore[method-assign]


@contextmanager
def scarce(prepared: PreparedRun, batch: int, share: float) -> Iterator[None]:
    """A context in which only `share` times the memory that a batch needs is available. Simulated on the CPU."""
    if prepared.device.type != "cuda":
        with told_so(prepared, int(batch * share)):
            yield
        return
    device = prepared.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network = prepared.model.network.network
    assert isinstance(network, Accelerated)
    with network.plainly():
        prepared.run(range(batch))
    taken = torch.cuda.max_memory_allocated(device) - before
    prepared.release()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + share * taken) / whole, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def told_so(prepared: PreparedRun, most: int) -> Iterator[None]:
    """A context in which a batch of more than `most` images raises torch's out-of-memory error."""
    counted = prepared.model.network
    network = counted.network

    def short(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return network(x, level)

    counted.network = short
    try:
        yield
    finally:
        counted.network = network
