"""What cells are measured with: models and judges, opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gddim_cli.bench.clock import Clock
from gddim_cli.bench.plan import Cell
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.errors import CapacityError, GddimError, UsageError
from gddim_cli.hub.load import load
from gddim_cli.models.acceleration import Speed
from gddim_cli.runtime.memory import memory_for

if TYPE_CHECKING:
    from gddim_cli.evaluation.evaluator import Evaluator

Shape = tuple[int, int, int]
Opener = Callable[[str | None, str | None, str | None, Path | None, Shape], "Evaluator"]
"""`(ref, protocol, mode, inception, shape)` to a judge."""


@dataclass
class Bench:
    """What cells are measured with: models, one in memory at a time, and judges.

    Attributes:
        open_evaluator: raises GddimError where a reference or its network is missing.
        device: where networks run.
        batch_size: images at once.
        clock: runs while the network does.
    """

    open_evaluator: Opener
    device: torch.device
    batch_size: int
    clock: Clock = field(init=False)
    _model: tuple[tuple[str, str], Checkpoint] | None = None
    _judges: dict[tuple, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = Clock(self.device)

    def model(self, reference: str, dtype: str) -> Checkpoint:
        """The checkpoint, its network on the clock.

        Raises:
            CheckpointError, UsageError: as `load`.
        """
        if self._model is None or self._model[0] != (reference, dtype):
            if dtype == "float64" and self.device.type == "mps":
                raise UsageError("--dtype float64: Apple GPUs have none; --device cpu has")
            self._model = None  # the old one goes before the new one comes
            model = load(reference, self.device, Speed(getattr(torch, dtype)))
            model.network.network = self.clock.timed(model.network.network)
            self._model = (reference, dtype), model
        return self._model[1]

    @contextmanager
    def room(self) -> Iterator[None]:
        """Work that may not fit in the memory.

        Raises:
            CapacityError: it does not.
        """
        try:
            with memory_for(self.batch_size, self.device):
                yield
        except CapacityError as error:
            size, place = self.batch_size, self.device
            raise CapacityError(
                f"{size} images at once do not fit in the memory of {place}; give a smaller --batch-size"
            ) from error

    def judge(self, cell: Cell, shape: Shape) -> Evaluator:
        """What measures a cell.

        Raises:
            UsageError, DataError: as `open_evaluator`, the same each time.
        """
        inception = Path(cell.inception) if cell.inception else None
        key = (cell.ref, cell.protocol, cell.mode, inception, shape)
        if key not in self._judges:
            try:
                self._judges[key] = self.open_evaluator(*key)
            except GddimError as error:
                self._judges[key] = error
        found = self._judges[key]
        if isinstance(found, GddimError):
            raise found
        return found
