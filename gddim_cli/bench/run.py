"""The work of a benchmark: images streamed into features, group by group, everything kept as it comes.

Several processes share each group's batches; rank 0 decides what is missing, keeps the results and reports them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch

from gddim_cli import __version__
from gddim_cli.bench.clock import Clock
from gddim_cli.bench.reference_solution import solver_error
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import PLAN, SESSIONS, BenchPlan, Folder, Result, Session, SolverError
from gddim_cli.errors import DataError, GddimError, OutputError, PeerError, UsageError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.images.render import grid, write_png
from gddim_cli.runs.folder import GRID, Run, RunFolder
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.distributed import World, world
from gddim_cli.runtime.row_file import RowFile
from gddim_cli.runtime.versions import versions

T = TypeVar("T")
IN_GRID = 100


class BenchCallback:
    """Is called as the work goes on; this one does nothing. Evaluations count once for each image of a batch."""

    def begin(self, group: Sequence[Result]) -> None:
        """The images of these results are about to be made."""

    def advance(self, evaluations: int) -> None:
        """More network evaluations have been made."""

    def end(self, group: Sequence[Result]) -> None:
        """These results have their values or have failed, or had been kept."""


class GroupError(GddimError):
    """What failed on one of the processes, raised on all of them."""


@dataclass
class Runner:
    """One call of `gddim bench` that measures.

    Attributes:
        keep_images: also keep the images, each group's in a folder that `gddim sample --format npz` can continue.
        world: the processes.
    """

    plan: BenchPlan
    resources: Resources
    folder: Folder
    callback: BenchCallback = field(default_factory=BenchCallback)
    keep_images: bool = False
    world: World = field(default_factory=world)

    def __post_init__(self) -> None:
        self._clocks = self.resources.clock, Clock(torch.device("cpu"))  # features come back to the CPU
        self.resources.on_evaluation = lambda images: self.callback.advance(self.world.count(images))

    def run(self) -> list[Result]:
        """Measures what is missing and returns all results. A failure is kept as a result, and the rest go on.

        Raises:
            OutputError: the folder cannot be written.
        """
        device = self.resources.device
        cuda = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()}, {os.cpu_count()} cores"
        started = datetime.now(UTC).isoformat(timespec="seconds")
        session = Session(started, str(device), name, self.resources.batch_size)
        before = self.folder.read(SESSIONS, list[Session]) or []
        self._write(PLAN, self.plan)
        start, results = self._times(), []
        try:
            for group in self.plan.groups():
                begun = self._times()
                found, made = self._group(group)
                results += found
                if made:
                    session.cells.append({"key": group[0].key, "images": made, **self._times(begun)})
                    session = msgspec.structs.replace(session, **self._times(start))
                    self._write(SESSIONS, [*before, session])
        finally:
            if session.cells:
                session = msgspec.structs.replace(session, **self._times(start))
                with suppress(OutputError):  # the first error is the one to report
                    self._write(SESSIONS, [*before, session])
        return results

    def _times(self, since: dict[str, float] | None = None) -> dict[str, float]:
        """Seconds in all, in the network and in the features."""
        network, features = (clock.read() for clock in self._clocks)
        now = {"seconds": time.perf_counter(), "network": network, "features": features}
        return {name: value - (since or {}).get(name, 0.0) for name, value in now.items()}

    def _write(self, name: str, value: Any) -> None:
        if self.world.main:
            self.folder.write(name, value)

    def _group(self, group: list[Result]) -> tuple[list[Result], int]:
        """The results of a group, and how many images were made for them."""
        images = self.plan.solver_error if group[0].deterministic else 0
        kept, whole = self.world.broadcast(self._known(group) if self.world.main else ([], False))
        made, prepared = 0, None
        if not whole or any(result.value is None for result in kept):
            self.callback.begin(group)
            kept = [msgspec.structs.replace(r, device=str(self.resources.device), versions=versions()) for r in group]
            made, prepared = self._measure(kept)
            kept = self.world.broadcast(kept)
        if images and not kept[0].failed and any(not r.solver_error or r.solver_error.failed for r in kept):
            made += images
            if self.world.main:
                self._solver_error(kept, prepared, images)
            kept = self.world.broadcast(kept)
        self.callback.end(kept)
        return kept, made

    def _known(self, group: list[Result]) -> tuple[list[Result], bool]:
        """What is kept of a group, and whether all that is wanted of its images is."""
        kept = [self.folder.result(result, self.plan.solver_error) for result in group]
        if all(result.value is not None for result in kept):
            self.folder.forget_rows(group[0].features)
        return kept, not self.keep_images or self._images_kept(group[0])

    def _measure(self, group: list[Result]) -> tuple[int, PreparedRun | None]:
        """Fills in the values of a group, or why there are none; how many images were made, and what made them."""
        made, prepared = 0, None
        try:
            prepared = self._together(lambda: self.resources.prepare(self.plan.cell(group[0].key).request))
            prepared.use_tolerance(self._on_main(lambda: calibrated(prepared)))
            evaluators = self._together(lambda: [self._evaluator(result, prepared) for result in group])
            dimension = evaluators[0].extractor.dimension
            rows, done = self._on_main(lambda: self._begin(group[0], dimension + 1))
            extract = self._clocks[1].timed(evaluators[0].extractor)
            made = sum(self.world.gather(self._together(lambda: self._stream(group[0], prepared, extract, rows, done))))
            self._on_main(lambda: self._finish(group, prepared, evaluators, rows))
        except GroupError as error:
            for result in group:
                result.failed = result.failed or str(error)
        for result in group if self.world.main else []:
            self.folder.write(f"cells/{result.key}.json", result)
        if self.world.main and not any(result.failed for result in group):
            self.folder.forget_rows(group[0].features)
        return made, prepared

    def _attempt(self, work: Callable[[], T]) -> tuple[T | None, str | None]:
        """What the work returns, or why it has failed where that fails the group and not the benchmark."""
        try:
            with self.resources.memory():
                return work(), None
        except (OutputError, PeerError):
            raise
        except GddimError as error:
            return None, str(error)

    def _together(self, work: Callable[[], T]) -> T:
        """Work of every process; raises GroupError on all where it fails on one."""
        value, reason = self._attempt(work)
        self.world.barrier(lambda: self.callback.advance(self.world.count()))
        self.callback.advance(self.world.count(at_once=True))
        reasons = self.world.gather(reason)
        reason = self.world.broadcast(next((why for why in reasons if why), None))
        if reason:
            raise GroupError(reason)
        return value  # type: ignore[return-value]

    def _on_main(self, work: Callable[[], T]) -> T:
        """What the first process's work returns, on all; raises GroupError on all where it fails."""
        value, reason = self.world.broadcast(self._attempt(work) if self.world.main else (None, None))
        if reason:
            raise GroupError(reason)
        return value  # type: ignore[return-value]

    def _evaluator(self, result: Result, prepared: PreparedRun) -> Evaluator:
        return self.resources.evaluator(self.plan.cell(result.key), prepared.model.image_shape)

    def _begin(self, result: Result, width: int) -> tuple[RowFile, set[int]]:
        """The rows of a group's features, and the images that need not be made again."""
        rows = self.folder.rows(result.features, result.num, width)
        done = rows.done(result.num)
        if not self.keep_images:
            return rows, done
        images = self._images(result)
        if images.open(result.request, overwrite=False) is None:
            images.save(record(result, complete=False))
        return rows, done & images.images.done(result.num)

    def _stream(
        self, result: Result, prepared: PreparedRun, extract: Callable[[Pixels], Any], rows: RowFile, done: set[int]
    ) -> int:
        """Images into rows of features and, last, network evaluations; returns how many were made.

        Batches are the same whatever was done before, so that an interrupted cell ends with the numbers of any other.
        """
        images, made = self._images(result).images, 0
        batches = prepared.batches(range(result.num), self.resources.batch_size, result.num)
        todo = [batch for batch in batches if not done.issuperset(range(batch.start, min(batch.stop, result.num)))]
        for indices in self.world.share(todo):
            kept = range(indices.start, min(indices.stop, result.num))
            pixels = quantize(prepared.images(prepared.run(indices)), prepared.config.quantize)[: len(kept)]
            features = extract(pixels)
            if self.keep_images:
                images.store(kept, pixels)
            spent = np.full((len(kept), 1), prepared.evaluations, np.float32)
            rows.store(kept, np.concatenate([features, spent], axis=1))
            made += len(kept)
        return made

    def _finish(self, group: list[Result], prepared: PreparedRun, evaluators: list[Evaluator], file: RowFile) -> None:
        """The metrics of all rows, a failure to each result of its own; and the images' folder, where they are kept."""
        rows = read_array(file.partial, memory_map=True)
        for result, evaluator in zip(group, evaluators, strict=True):
            found, result.failed = self._attempt(partial(evaluator.evaluate, np.asarray(rows[:, :-1])))
            result.value = found["value"] if found else None
            result.nfe = float(np.asarray(rows[:, -1], dtype=np.float64).mean())
            result.tolerance = prepared.sampler.tolerance
        if self.keep_images:  # as `gddim sample --format npz` leaves them
            first, folder = group[0], self._images(group[0])
            folder.images.join(first.num)
            write_png(folder.path / GRID, grid(folder.images.read(range(min(first.num, IN_GRID)))))
            folder.save(record(first, complete=True))

    def _images(self, result: Result) -> RunFolder:
        return RunFolder(self.folder.path / "images" / result.features, "npz")

    def _images_kept(self, result: Result) -> bool:
        try:
            run = self._images(result).open(result.request, overwrite=False)
        except (DataError, UsageError):
            return False  # it fails the cell, which opens the folder again
        return run is not None and run.complete

    def _solver_error(self, group: list[Result], prepared: PreparedRun | None, images: int) -> None:
        """Measures the solver error of a group, or keeps why it has none."""
        request = self.plan.cell(group[0].key).request

        def measure() -> SolverError:
            ready = prepared or self.resources.prepare(request)
            ready.use_tolerance(group[0].tolerance)
            return solver_error(group[0], request, ready, self.resources, self.folder, images)

        error, reason = self._attempt(measure)
        for result in group:
            result.solver_error = error or SolverError(images=images, failed=reason)
            self.folder.write(f"cells/{result.key}.json", result)


def calibrated(prepared: PreparedRun) -> float | None:
    """The tolerance of an adaptive sampler, calibrated."""
    prepared.calibrate()
    return prepared.sampler.tolerance


def record(result: Result, complete: bool) -> Run:
    """What `run.json` says of kept images."""
    nfe, tolerance = (result.nfe, result.tolerance) if complete else (None, None)
    return Run(__version__, "npz", result.request, result.num, [0, result.num - 1], complete, nfe, tolerance, [])
