"""The settings that several commands share, each declared once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import msgspec

from gddim_cli.cli.progress import say
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world
from gddim_cli.settings import about

if TYPE_CHECKING:
    import torch

FILE_SET = (
    "Setting, such as image_size=64, that a checkpoint file of another program does not record. Use the name that the "
    "setting has in that program. May be given several times."
)
SET = (
    "Setting, such as image_size=64, that a checkpoint file of another program does not record. Use the name that the "
    "setting has in that program. With FILE.py:FUNCTION: an argument of the function, passed as text. May be given several times."
)
KEY = "Name of the .npz array with the images. Default: train_images, or the only array of images."
FORCE = "Replace output files even if they hold something else."
FORCE_FILE = "Replace the output file if it exists."
DEVICE = "Device on which the network runs; auto uses a GPU if there is one."
THREADS = "CPU threads. Default: one per core."

FileSettings = Annotated[list[str], about(FILE_SET, panel="Model", metavar="NAME=VALUE")]
ModelSettings = Annotated[list[str], about(SET, panel="Model", metavar="NAME=VALUE")]
ImagesKey = Annotated[str, about(KEY, panel="Data", metavar="KEY")]
Force = Annotated[bool, about(FORCE, panel="Output", flag="--force")]
ForceFile = Annotated[bool, about(FORCE_FILE, panel="Output", flag="--force")]
Threads = Annotated[int, about(THREADS, panel="Speed", ge=1, le=1024)]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The device and the CPU threads that a command computes with."""

    device: Annotated[str, about(DEVICE, panel="Speed", metavar="auto|cpu|cuda|mps")] = "auto"
    threads: Threads | None = None

    def use(self) -> torch.device:
        """Sets torch's CPU threads and returns the device.

        Raises:
            UsageError: an unknown device, or one that this machine does not have.
        """
        device = find_device(self.device)
        use_threads(self.threads, device)
        return device


def use_threads(count: int | None, device: torch.device) -> None:
    """Sets torch's CPU threads; prints a note if the cores are fewer than the threads, or busy with other programs."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or world().size > 1:
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > cores:
        where = " (OMP_NUM_THREADS)" if count is None and "OMP_NUM_THREADS" in os.environ else ""
        say(f"note: {threads} threads{where} on {cores} cores slow each other down; try --threads {cores}")
    elif load > cores - 0.5:
        say(
            f"note: the load of this machine is {load:.1f} on {cores} cores; {threads} threads will wait for "
            "each other; --threads 1 is often faster under such a load"
        )
