"""What passes between the stages of a run: what rank 0 found, and a batch on its way to the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from gddim_cli.runs.folder import Run
from gddim_cli.runtime.row_file import RowFile


@dataclass(frozen=True)
class Batch:
    """A batch that has been computed, on its way to the files."""

    indices: Sequence[int]
    images: Callable[[], NDArray]
    states: Callable[[], NDArray] | None
    evaluations: int


@dataclass(frozen=True)
class ResumeState:
    """What rank 0 found, and all go by. `token` is a file that it made in the folder."""

    todo: list[int]
    num: int
    batch_size: int
    earlier: Run | None
    states: RowFile | None
    filming: bool
    tolerance: float | None
    token: str | None
