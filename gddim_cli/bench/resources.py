"""The resources of a benchmark: models, one in memory at a time, and evaluators, each opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from gddim_cli.bench.cell import NO_REFERENCE, Cell
from gddim_cli.errors import GddimError, UsageError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.evaluation.factory import EvaluatorFactory
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.models.model import Model
from gddim_cli.runs.prepare import load_model, prepare
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.clock import Clock
from gddim_cli.runtime.memory import memory_for


class Resources:
    """Models and evaluators. `on_evaluation` is called after each network evaluation, with the number of images."""

    def __init__(self, device: torch.device, batch_size: int = 64) -> None:
        self.device, self.batch_size, self.clock = device, batch_size, Clock(device)
        self.on_evaluation: Callable[[int], object] = lambda _: None
        self._model: tuple[Any, Model] | None = None
        self.notes: list[str] = []  # Why cells have no reference.
        self._factories: dict[Any, EvaluatorFactory] = {}

    def model(self, request: SamplingRequest) -> Model:
        """The request's checkpoint, in the request's precision; raises GddimError, see `load_model`."""
        key = (request.checkpoint, request.dtype, request.tf32)
        if self._model is None or self._model[0] != key:
            self._model = None  # Frees the last model before the next one is loaded.
            self._model = key, load_model(request, self.device)
        return self._model[1]

    def prepare(self, request: SamplingRequest) -> PreparedRun:
        """The prepared run of the request, with its network timed by `clock`; raises GddimError, see `runs.prepare`."""
        prepared = prepare(request, self.device, model=self.model(request), batch_size=self.batch_size)
        prepared.around = self._evaluation
        return prepared

    @contextmanager
    def _evaluation(self, images: int) -> Iterator[None]:
        with self.clock.running():
            yield
        self.on_evaluation(images)

    def evaluator(self, cell: Cell, shape: tuple[int, int, int]) -> Evaluator | None:
        """The evaluator of a cell's images, of shape (C, H, W); raises GddimError, see `EvaluatorFactory`.

        If the metric needs a reference, returns None in two cases: with `--ref none`, and if the user names no reference
        and gddim has none for such images.
        """
        metric, none = find_metric(cell.metric), cell.ref == NO_REFERENCE
        chosen = (cell.protocol, cell.mode, cell.inception, cell.features)
        if none and metric.spec.needs_reference:
            if any(chosen):
                raise UsageError("--ref none: measures no metric; leave out protocol, mode, inception and features")
            return None
        key, (channels, height, width) = (*chosen, shape), shape
        if key not in self._factories:
            inception = Path(cell.inception) if cell.inception else None
            options = (cell.protocol, cell.mode, inception, cell.features)
            self._factories[key] = EvaluatorFactory(self.device, (height, width, channels), *options)
        try:
            return self._factories[key].open(metric, None if none else cell.ref)
        except GddimError as error:
            if cell.ref or any(chosen) or metric.spec.mode:
                raise
            self.notes.append(f"Without a reference, only solver errors and pictures are made: {error}.")
            return None

    def memory(self) -> AbstractContextManager[None]:
        """A context that raises CapacityError if memory runs out while a batch is processed in it."""
        return memory_for(self.batch_size, self.device, "give a smaller --batch-size")
