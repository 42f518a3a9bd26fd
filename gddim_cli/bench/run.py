"""Runs a benchmark, and estimates its cost.

Results that share images form a group. For each group, images are made and turned into features in batches. Processes
share the batches, and store each when it is done. Rank 0 decides what is missing, and stores and reports results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec.structs import replace

from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import PLAN, SESSIONS, BenchPlan, Folder, Result
from gddim_cli.errors import CapacityError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.images.quantize import quantize
from gddim_cli.runs.batch_size import BatchSizeProbe
from gddim_cli.runs.converged import COST, first_images
from gddim_cli.runs.kept_images import KeptImages
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.record import new_session
from gddim_cli.runs.solver_error import Solutions, SolverError
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.clock import Clock
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.json_files import read_json, write_json
from gddim_cli.runtime.row_file import RowFile
from gddim_cli.runtime.shared_work import SharedWork, WorkError
from gddim_cli.runtime.versions import versions

Cost = tuple[int, float]
"""The work left for a group: network evaluations, summed over images, and seconds, including feature extraction."""


class Runner:
    """One call of `gddim bench`: measures a plan and, if `keep_images` is set, keeps the images.

    `on_begin` is called with results whose images are about to be made, and `on_end` with results that are measured or
    have failed. `on_evaluations` is called with the network evaluations since its last call, summed over images.
    """

    def __init__(self, plan: BenchPlan, resources: Resources, folder: Folder, keep_images: bool) -> None:
        self.plan, self.resources, self.folder, self.keep_images = plan, resources, folder, keep_images
        self.on_begin: Callable[[Sequence[Result]], object] = lambda _: None
        self.on_evaluations: Callable[[int], object] = lambda _: None
        self.on_end: Callable[[Sequence[Result]], object] = lambda _: None
        self.world, self.solutions = world(), solutions(resources, folder)
        self.features = Clock(torch.device("cpu"))  # There is no GPU to wait for: features arrive on the CPU.
        resources.on_evaluation = lambda images: self.on_evaluations(self.world.count(images))
        self.work = SharedWork(self.world, resources.memory, lambda: self.on_evaluations(self.world.count()))

    def run(self) -> list[Result]:
        """Measures what is missing and returns all results, failed or not; raises OutputError if writing fails."""
        session = msgspec.to_builtins(new_session(self.resources.device, self.resources.batch_size, self.world.size))
        del session["nfe"]
        path, write = self.folder.path, write_json if self.world.main else lambda *_: None
        before = read_json(path / SESSIONS, list[dict[str, Any]]) or []
        start, results, session["cells"] = self._times(), list[Result](), []
        write(path / PLAN, self.plan)
        for group in self.plan.groups():
            begun = self._times()
            found, made = self._group(group)
            results += found
            if made:
                session["images"] += made
                session["cells"].append({"key": group[0].key, "images": made, **self._times(begun)})
                write(path / SESSIONS, [*before, {**session, **self._times(start)}])
        return results

    def _times(self, since: Mapping[str, float] = {}) -> dict[str, float]:
        """Seconds in total, in the network, and in feature extraction, since the times `since`."""
        clocks = {"network": self.resources.clock.seconds, "features": self.features.seconds}
        now = {"seconds": time.perf_counter(), **clocks}
        return {name: value - since.get(name, 0.0) for name, value in now.items()}

    def _group(self, group: list[Result]) -> tuple[list[Result], int]:
        """The results of a group, and how many images were made for them."""
        kept, whole = self.work.on_main(lambda: self._known(group))
        made, prepared = 0, None
        if not whole:
            self.on_begin(group)
            kept = [replace(result, device=str(self.resources.device), versions=versions()) for result in group]
            made, prepared = self._measure(kept)
            kept = self.world.broadcast(kept)
        images = self.work.on_main(lambda: self.folder.first_images(self.plan, kept))
        if images and (whole or not kept[0].failed):
            self.on_begin(group)
            made += images
            if self.world.main:
                self._first_images(kept, prepared, images)
            kept = self.world.broadcast(kept)
        self.on_end(kept)
        return kept, made

    def _known(self, group: list[Result]) -> tuple[list[Result], bool]:
        """A group's stored results, and whether all values and images to keep exist (always true without a metric)."""
        kept = [self.folder.result(result, self.plan.solver_error) for result in group]
        if not group[0].has_metric:
            return kept, True
        if any(result.missing for result in kept):
            return kept, False
        self.folder.rows(group[0].features).forget()
        return kept, not self.keep_images or self._images(group[0]).check()

    def _measure(self, group: list[Result]) -> tuple[int, PreparedRun | None]:
        """Fills in a group's values, or the reasons for failures; returns the number of images made and the prepared run."""
        made, prepared, first = 0, None, group[0]
        try:
            prepared = self.work.together(lambda: self.resources.prepare(self.plan.cell(first.key).request))
            prepared.use_tolerance(self.work.on_main(lambda: (prepared.calibrate(), prepared.sampler.tolerance)[1]))
            cells, shape = [self.plan.cell(result.key) for result in group], prepared.model.image_shape
            found = self.work.together(lambda: [self.resources.evaluator(cell, shape) for cell in cells])
            evaluators = [evaluator for evaluator in found if evaluator]
            rows, done = self.work.on_main(lambda: self._begin(first, evaluators[0].extractor.dimension + 1))
            stream = partial(self._stream, first, prepared, evaluators[0], rows, done)
            made = sum(self.world.gather(self.work.together(stream)))
            self.work.on_main(lambda: self._finish(group, prepared, evaluators, rows))
        except WorkError as error:
            for result in group:
                result.failed = str(error)
        for result in group if self.world.main else ():
            self.folder.keep(result)
        if self.world.main and not any(result.failed for result in group):
            self.folder.rows(first.features).forget()
        return made, prepared

    def _images(self, result: Result) -> KeptImages:
        return KeptImages(self.folder.path / "images" / result.features, result.request, result.num)

    def _begin(self, result: Result, width: int) -> tuple[RowFile, set[int]]:
        """The rows of a group's features, and the images that need not be made again."""
        rows = self.folder.rows(result.features).resumed(result.num, width)
        done = rows.done(result.num) - self.folder.samples(self.plan, result).missing()
        return rows, done & self._images(result).start() if self.keep_images else done

    def _stream(
        self, result: Result, prepared: PreparedRun, evaluator: Evaluator, rows: RowFile, done: set[int]
    ) -> int:
        """Makes the missing images and writes a row for each: its features, then its network evaluations.

        Returns the number of images made. Batches do not depend on which images exist, so interruptions change no value.
        """
        made = 0
        batches = prepared.batches(range(result.num), self.resources.batch_size, result.num)
        kept = [range(batch.start, min(batch.stop, result.num)) for batch in batches]
        todo = [pair for pair in zip(batches, kept, strict=True) if not done.issuperset(pair[1])]
        for indices, wanted in self.world.share(todo):
            pixels = quantize(prepared.images(prepared.run(indices)), prepared.config.quantize)[: len(wanted)]
            with self.features.running():
                features = evaluator.extractor(pixels)
            self.folder.samples(self.plan, result).keep(wanted, pixels)
            if self.keep_images:
                self._images(result).images.store(wanted, pixels)
            spent = np.full((len(wanted), 1), prepared.evaluations, np.float32)
            rows.store(wanted, np.concatenate([features, spent], axis=1))
            made += len(wanted)
        return made

    def _finish(self, group: list[Result], prepared: PreparedRun, evaluators: list[Evaluator], file: RowFile) -> None:
        """Computes every metric from all rows, notes those that fail, and completes the folder of kept images."""
        rows = read_array(file.partial, memory_map=True)
        for result, evaluator in zip(group, evaluators, strict=True):
            found, result.failed = self.work.attempt(partial(evaluator.evaluate, np.asarray(rows[:, :-1])))
            result.value, result.standard_error = (found or {}).get("value"), (found or {}).get("standard_error")
            result.nfe = float(np.asarray(rows[:, -1], dtype=np.float64).mean())
            result.tolerance = prepared.sampler.tolerance
        if self.keep_images:
            self._images(group[0]).finish(group[0].nfe, group[0].tolerance)

    def _first_images(self, group: list[Result], prepared: PreparedRun | None, images: int) -> None:
        """Stores a group's first images as pictures and measures their solver error, or stores why this failed."""
        first, request = group[0], self.plan.cell(group[0].key).request
        solved = self.plan.solver_error if first.deterministic else 0

        def measure() -> SolverError | None:
            ready = prepared or self.resources.prepare(request)
            ready.use_tolerance(first.tolerance)
            ready.calibrate()  # Done here, so that the count below excludes the calibration.
            network, before = ready.model.network, ready.model.network.nfe
            batches = len(ready.batches(range(images), self.resources.batch_size, images))
            found = first_images(ready, images, self.resources.batch_size)
            if not first.has_metric:
                first.nfe, first.tolerance = (network.nfe - before) / batches, ready.sampler.tolerance
                first.device, first.versions = str(self.resources.device), versions()
            self.folder.samples(self.plan, first).keep(range(images), quantize(found, ready.config.quantize))
            return self.solutions.error(found[:solved], request, first.request) if solved else None

        error, reason = self.work.attempt(measure)
        for result in group:
            if solved:
                result.solver_error = error or SolverError(solved, failed=reason)
            else:
                result.failed = reason and f"pictures: {reason}"
            self.folder.keep(result)


def solutions(resources: Resources, folder: Folder) -> Solutions:
    """The converged solutions in a benchmark's folder."""
    return Solutions(folder.path / "solutions", resources.prepare, resources.batch_size)


def costs(plan: BenchPlan, resources: Resources, folder: Folder, strict: bool = True) -> dict[str, Cost]:
    """The estimated cost of each group, by its `features`. One batch of each model and extractor is timed.

    When a batch does not fit in memory, raises CapacityError if `strict`, and otherwise counts 0 seconds for the group.
    """
    speeds: dict[object, tuple[float, float]] = {}
    solved: set[Path] = set()
    found: dict[str, Cost] = {}
    for group in plan.groups():
        first, kept = group[0], [folder.result(result, plan.solver_error) for result in group]
        whole = not first.has_metric or not any(result.missing for result in kept)
        left = 0 if whole else first.num - folder.rows(first.features).done(first.num)
        images = folder.first_images(plan, kept, streams=bool(left))
        # If the images of a batch depend on each other, the request has a `batch_size`, and all batches are full.
        block = first.request.batch_size or 1
        each, calibration = first.planned or first.request.nfe, 0
        if first.planned is None and (left or images):
            each, calibration = resources.prepare(plan.cell(first.key).request).expected(kept[0].tolerance)
        evaluations = calibration + each * sum(-(-count // block) * block for count in (left, images))
        solution = solutions(resources, folder).path(first.request, plan.solver_error)
        if images and plan.solver_error and first.deterministic and solution not in solved:
            evaluations += 0 if solution.is_file() else plan.solver_error * COST
            solved.add(solution)
        request, extractor = first.request, first.evaluator.get("weights_sha256")
        kind = (request.checkpoint_sha256, request.dtype, request.tf32, request.diffusion, extractor)
        if (left or images) and kind not in speeds:
            try:
                with resources.memory():
                    speeds[kind] = measured(plan, first, resources)
            except CapacityError:
                if strict:
                    raise
        network, features = speeds.get(kind, (0.0, 0.0))
        found[first.features] = evaluations, evaluations * network + left * features
    return found


def measured(plan: BenchPlan, result: Result, resources: Resources) -> tuple[float, float]:
    """Seconds per image for one network evaluation and for feature extraction, measured after a warm-up."""
    cell, size = plan.cell(result.key), min(resources.batch_size, result.num)
    prepared = resources.prepare(cell.request)
    network = BatchSizeProbe(prepared).mean_seconds(size)
    channels, height, width = shape = prepared.model.image_shape
    pixels, evaluator = np.zeros((size, height, width, channels), np.uint8), resources.evaluator(cell, shape)
    spent = 0.0
    for _ in range(2):
        started = time.perf_counter()
        if evaluator:
            evaluator.extractor(pixels)
        spent = time.perf_counter() - started
    return network / size, spent / size
