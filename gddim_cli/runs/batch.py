"""Data passed between the stages of a run: the state of the folder, and computed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from gddim_cli.runs.record import Run
from gddim_cli.runtime.row_file import RowFile


@dataclass(frozen=True)
class Batch:
    """A computed batch that is not written yet.

    `images()` and `states()` wait for the copy to the CPU. `evaluations` is the number of network evaluations per image.
    """

    indices: Sequence[int]
    images: Callable[[], NDArray]
    states: Callable[[], NDArray] | None
    evaluations: int


@dataclass(frozen=True)
class ResumeState:
    """What rank 0 found in the folder, broadcast to all processes.

    Attributes:
        todo: the indices of the images to make.
        num: the number of images in the complete folder.
        batch_size: images per batch.
        earlier: the run that is continued, or None.
        states: the file of `--save-raw`, or None.
        filming: whether the film of `--trajectory` has to be made.
        tolerance: the calibrated tolerance of an adaptive sampler; None for other samplers.
        token: the name of a file that rank 0 created in the folder, so that the other processes recognize the folder.
            None for a single process.
    """

    todo: list[int]
    num: int
    batch_size: int
    earlier: Run | None
    states: RowFile | None
    filming: bool
    tolerance: float | None
    token: str | None
