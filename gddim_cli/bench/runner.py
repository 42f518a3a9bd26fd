"""The work of a benchmark: cell by cell, images streamed into features, everything kept as it comes.

Several processes share each cell's batches; rank 0 decides what is missing, keeps the results and tells of them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from gddim_cli import __version__
from gddim_cli.bench import solutions
from gddim_cli.bench.clock import Clock
from gddim_cli.bench.folder import PLAN, SESSIONS, CellTime, Folder, Result, Session, SolverError
from gddim_cli.bench.jobs import Job, Program, describe, skeleton
from gddim_cli.bench.listener import Listener
from gddim_cli.bench.tools import Bench
from gddim_cli.errors import DataError, GddimError, OutputError, PeerError, UsageError
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.images.render import grid, write_png
from gddim_cli.runs.folder import GRID, Run, RunFolder
from gddim_cli.runs.request import Settings
from gddim_cli.runs.sampler import Sampler
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.distributed import World, world
from gddim_cli.runtime.row_file import RowFile
from gddim_cli.runtime.versions import versions

IN_GRID = 100


@dataclass
class Runner:
    """One call of `gddim bench` that works.

    Attributes:
        program: the cells.
        keep_images: keep every cell's images too, as a folder of `gddim sample --format npz`.
        team: the processes.
    """

    program: Program
    bench: Bench
    folder: Folder
    listener: Listener = field(default_factory=Listener)
    keep_images: bool = False
    team: World = field(default_factory=world)

    def __post_init__(self) -> None:
        self._features = Clock(torch.device("cpu"))  # features come back to the CPU, so the call itself waits

    def run(self) -> list[Result]:
        """Measures what is missing; returns the result of every job, in the order of the jobs.

        A cell that fails keeps its reason as its result, and the rest go on.

        Raises:
            OutputError: the folder cannot be written.
        """
        asked = describe(self.program)
        session = self._session()
        before = self.folder.read(SESSIONS, list[Session]) or []
        self._write(PLAN, asked)
        began = time.perf_counter()
        results = []
        try:
            for job in self.program.jobs:
                started = time.perf_counter(), self.bench.clock.read(), self._features.read()
                result, made = self._cell(job)
                results.append(result)
                if made:
                    spent = [time.perf_counter(), self.bench.clock.read(), self._features.read()]
                    taken = [now - then for now, then in zip(spent, started, strict=True)]
                    session.cells.append(CellTime(job.key, made, *taken))
                    self._tally(session, began)
                    self._write(SESSIONS, [*before, session])
        finally:
            if session.cells:
                self._tally(session, began)
                with suppress(OutputError):  # a full disk refuses this too; the first error is the one to tell of
                    self._write(SESSIONS, [*before, session])
        return results

    def _write(self, name: str, value: Any) -> None:
        if self.team.main:
            self.folder.write(name, value)

    def _tally(self, session: Session, began: float) -> None:
        session.seconds = time.perf_counter() - began
        session.network, session.features = self.bench.clock.read(), self._features.read()

    def _cell(self, job: Job) -> tuple[Result, int]:
        """The cell's result, and how many images were made for it."""
        kept, errors, complete = self.team.broadcast(self._known(job) if self.team.main else (None, False, False))
        made, sampler = 0, None
        if kept is None or kept.failed or not complete:
            self.listener.begin(job)
            kept, made, sampler = self._measured(job)
            if self.team.main and not kept.failed:
                self.folder.forget_rows(job.key)
        else:
            self.listener.skip(job.nfe * job.num)
        images = self.program.solver_error if job.deterministic and not kept.failed else 0
        if images and not errors:
            made += images
            if self.team.main:
                kept = self._with_error(job, sampler, kept, images)
            kept = self.team.broadcast(kept)
        else:
            self.listener.skip(job.nfe * images)
        self.listener.end(job, kept)
        return kept, made

    def _known(self, job: Job) -> tuple[Result | None, bool, bool]:
        """What is kept of a cell: its result, whether its solver error, and whether all else that is wanted of it."""
        kept, images = self.folder.result(job.key), self.program.solver_error
        if kept and not kept.failed:
            self.folder.forget_rows(job.key)
        errors = bool(images) and self.folder.solved(job.key, images)
        return kept, errors, not self.keep_images or self._images_there(job)

    def _measured(self, job: Job) -> tuple[Result, int, Sampler | None]:
        """The cell's result, kept; how many images were made for it; and what made them."""
        result, made = skeleton(job), 0
        result.device, result.versions = str(self.bench.device), versions()
        sampler, begun, reason = self._ready(job)
        if sampler and begun:
            with self._failing() as failure:
                made = self._stream(job, sampler, *begun)
            reason = failure[0] if failure else None
        self.team.barrier(lambda: self.listener.advance(self.team.count()))
        self.listener.advance(self.team.count(at_once=True))
        everyone = self.team.gather((made, reason))
        if self.team.main:
            made, reason = sum(part for part, _ in everyone), next((why for _, why in everyone if why), None)
            result.tolerance = sampler.plan.tolerance if sampler else None
            if not reason:
                with self._failing() as failure:
                    self._finish(job, result)
                reason = failure[0] if failure else None
            result.failed = reason
            self.folder.write(f"cells/{job.key}.json", result)
        return self.team.broadcast(result), made, sampler

    def _ready(self, job: Job) -> tuple[Sampler | None, tuple[RowFile, set[int]] | None, str | None]:
        """The sampler, tuned, and what is there of the cell; or why it cannot be, the same for all processes."""
        sampler = None
        with self._failing() as reasons:
            sampler = job.sampler(self.bench)
        everyone = self.team.gather(reasons[0] if reasons else None)
        reason = self.team.broadcast(next((why for why in everyone if why), None)) or self._tuned(sampler)
        if reason:
            return sampler, None, reason
        begun, reasons = None, []
        if self.team.main:
            with self._failing() as reasons:
                begun = self._begun(job)
        begun, reasons = self.team.broadcast((begun, reasons))  # together: nobody waits for one that has failed
        return sampler, begun, reasons[0] if reasons else None

    @contextmanager
    def _failing(self) -> Iterator[list[str]]:
        """Keeps the reason of what fails the cell and not the benchmark, in the list that it gives."""
        reasons: list[str] = []
        try:
            with self.bench.room():
                yield reasons
        except (OutputError, PeerError):
            raise
        except GddimError as error:
            reasons.append(str(error))

    def _tuned(self, sampler: Sampler | None) -> str | None:
        """Tunes the sampler, once for all processes; returns why it cannot be."""
        assert sampler is not None
        reasons: list[str] = []
        if self.team.main:
            with self._failing() as reasons:
                sampler.tune()
        reasons, tolerance = self.team.broadcast((reasons, sampler.plan.tolerance))
        if tolerance and sampler.plan.fixed:
            sampler.plan = sampler.plan.fixed(tolerance)
        return reasons[0] if reasons else None

    def _with_error(self, job: Job, sampler: Sampler | None, result: Result, images: int) -> Result:
        """The cell's result; its solver error is kept, or why it has none."""
        error = None
        with self._failing() as failure:
            extra = solutions.cost([job], self.folder, images)
            error = solutions.solver_error(job, self.bench, self.folder, images, sampler or job.sampler(self.bench))
            self.listener.advance(extra + job.nfe * images)
        self.folder.write(f"errors/{job.key}.json", error or SolverError(images=images, failed=failure[0]))
        return result if error else msgspec.structs.replace(result, failed=f"solver error: {failure[0]}")

    def _stream(self, job: Job, sampler: Sampler, rows: RowFile, there: set[int]) -> int:
        """Images into rows of features and, last, the evaluations that the image took; returns how many were made.

        Batches are the same whatever was there before, so that a cut cell ends with the numbers of an uncut one.
        """
        pictures = self._images(job)[0] if self.keep_images else None
        extract = self._features.timed(job.judge.extractor)
        batches = sampler.batches(range(job.num), self.bench.batch_size, job.num)
        todo = [batch for batch in batches if not there.issuperset(range(batch.start, min(batch.stop, job.num)))]
        self.listener.skip(job.nfe * (job.num - sum(min(batch.stop, job.num) - batch.start for batch in todo)))
        made = 0
        for indices in self.team.share(todo):
            wanted = [index for index in indices if index < job.num]
            pixels = self._batch(job, sampler, indices)[: len(wanted)]
            features = extract(pixels)
            spent = np.full((len(wanted), 1), sampler.evaluations, np.float32)
            if pictures:
                pictures.images.store(wanted, pixels)
            rows.store(wanted, np.concatenate([features, spent], axis=1))
            made += len(wanted)
        return made

    def _begun(self, job: Job) -> tuple[RowFile, set[int]]:
        """The rows of a cell's features, and the images that need not be made again."""
        rows = self.folder.rows(job.key, job.num, job.judge.extractor.dimension + 1)
        there = rows.done(job.num)
        pictures = self._pictures(job)
        return rows, there & pictures.images.done(job.num) if pictures else there

    def _batch(self, job: Job, sampler: Sampler, indices: Sequence[int]) -> Pixels:
        """The images of a batch; the listener hears of every step."""
        network, share = sampler.checkpoint.network, len([i for i in indices if i < job.num])
        seen = network.nfe

        def step(_: int, _u: Tensor) -> None:
            nonlocal seen
            self.listener.advance(self.team.count(share * (network.nfe - seen)))
            seen = network.nfe

        u = sampler.run(indices, step)
        return quantize(sampler.image(u), job.chosen.quantize)

    def _finish(self, job: Job, result: Result) -> None:
        """The distance, from all rows; and the images' folder, where they are kept."""
        judge = job.judge
        rows = read_array(self.folder.rows(job.key, job.num, judge.extractor.dimension + 1).partial, memory_map=True)
        result.nfe = float(np.asarray(rows[:, -1], dtype=np.float64).mean())
        result.distance = judge.evaluate(np.asarray(rows[:, :-1]))["value"]
        pictures = self._pictures(job)
        if pictures:
            self._close(pictures, job, result)

    def _pictures(self, job: Job) -> RunFolder | None:
        """The folder of the cell's images, where they are kept."""
        if not self.keep_images:
            return None
        folder, settings = self._images(job)
        if folder.open(settings, overwrite=False) is None:
            folder.save(Run(__version__, settings, job.num, [0, job.num - 1], False, None, None, []))
        return folder

    def _images(self, job: Job) -> tuple[RunFolder, Settings]:
        """Where a cell's images go, and the settings with which `gddim sample` goes on there."""
        cell = job.cell
        said = msgspec.structs.replace(job.settings, lam=cell.lam, eta=cell.eta, rtol=cell.rtol, atol=cell.atol)
        return RunFolder(self.folder.path / "images" / job.key, "npz"), said

    def _images_there(self, job: Job) -> bool:
        folder, settings = self._images(job)
        try:
            run = folder.open(settings, overwrite=False)
        except (DataError, UsageError):
            return False  # what is wrong with it fails the cell, when it opens the folder again
        return run is not None and run.complete

    def _close(self, folder: RunFolder, job: Job, result: Result) -> None:
        """Shards, grid and record, as `gddim sample --format npz` leaves them."""
        folder.images.join(job.num)
        write_png(folder.path / GRID, grid(folder.images.read(range(min(job.num, IN_GRID)))))
        settings = self._images(job)[1]
        run = Run(__version__, settings, job.num, [0, job.num - 1], True, result.nfe, result.tolerance, [])
        folder.save(run)

    def _session(self) -> Session:
        device = self.bench.device
        name = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{platform.machine()}, {os.cpu_count()} cores"
        )
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return Session(started, str(device), name, self.bench.batch_size)
