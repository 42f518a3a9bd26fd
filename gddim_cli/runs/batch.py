"""Data passed between the stages of a run: what rank 0 found in the folder, and computed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from gddim_cli.runs.folder import Run
from gddim_cli.runtime.row_file import RowFile


@dataclass(frozen=True)
class Batch:
    """A computed batch that is not written yet. Calling `images` or `states` waits for the copy to the CPU."""

    indices: Sequence[int]
    images: Callable[[], NDArray]
    states: Callable[[], NDArray] | None
    evaluations: int


@dataclass(frozen=True)
class ResumeState:
    """What rank 0 found in the folder, broadcast to all processes. `token` names a file that rank 0 created there."""

    todo: list[int]
    num: int
    batch_size: int
    earlier: Run | None
    states: RowFile | None
    filming: bool
    tolerance: float | None
    token: str | None
