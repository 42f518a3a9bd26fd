"""Finds torch devices by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gddim_cli.errors import UsageError
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    import torch


def find_device(name: str | None = None) -> torch.device:
    """The device with this name; `auto` and None choose a GPU if there is one.

    If several processes run on a machine, each uses its own GPU, unless the name includes a number, as in `cuda:0`. A
    numbered GPU becomes torch's current device.

    Raises:
        UsageError: this machine has no such device.
    """
    import torch

    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device: '{name}' is not one of auto, cpu, cuda, mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA GPU on this machine; use --device cpu")
    if kind == "cuda" and not index and world().size > 1:
        index = str(world().local_rank)
        name = f"cuda:{index}"
        if world().local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"--device: there are more processes than the {torch.cuda.device_count()} CUDA GPUs of this machine; "
                "give torchrun a smaller --nproc-per-node, or let all processes share one GPU with --device cuda:0"
            )
    if kind == "cuda" and index and not (index.isdigit() and int(index) < torch.cuda.device_count()):
        raise UsageError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA GPUs on this machine, counted from 0"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch finds no Apple GPU on this machine; use --device cpu")
    if kind in ("cpu", "mps") and index:
        raise UsageError(f"--device {name}: only cuda takes a number")
    if kind == "cuda" and index:
        # Without this, events, pinned memory and libraries would also use the first GPU.
        torch.cuda.set_device(int(index))
    return torch.device(name)
