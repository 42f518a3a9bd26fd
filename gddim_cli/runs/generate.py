"""A run of `gddim sample`: from a prepared run to a folder of images, on one or several processes, resumable at any time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli import __version__
from gddim_cli.errors import CapacityError, DataError, OutputError, PeerError
from gddim_cli.images.decode import describe
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.images.render import grid
from gddim_cli.numerics.blocks import to_device
from gddim_cli.runs.batch import Batch, ResumeState
from gddim_cli.runs.batch_size import BatchSizeProbe, OomRetry, best_size
from gddim_cli.runs.folder import PATIENCE, Ledger, RunFolder
from gddim_cli.runs.labels import ALL, rows_by_class
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.record import Extra, Run, mean_nfe, new_session
from gddim_cli.runs.storage.manifest import Manifest, read_manifest, remove_manifest, write_manifest
from gddim_cli.runs.trajectory import is_current, write_trajectory
from gddim_cli.runtime.background_writer import Writer, to_host
from gddim_cli.runtime.distributed import World
from gddim_cli.runtime.distributed import world as this_world
from gddim_cli.runtime.files import eventually, probe, refuse_foreign, sha256
from gddim_cli.runtime.memory import memory_for
from gddim_cli.runtime.row_file import RowFile

IN_GRID = 100


@dataclass
class Generation:
    """One call of `gddim sample`. Each process of the call has its own `Generation`.

    Attributes:
        folder: the folder of the images.
        prepared: makes the images; its resolved request identifies the run.
        num: number of images in the folder.
        batch_size: images per batch. A batch is always a whole block of indices, even if some of its images exist, so that
            an interrupted run ends with the same bytes as an uninterrupted one.
        automatic: choose the batch size. A run that continues on the same kind of device with the same speed options
            keeps its last batch size; otherwise, the fastest is measured. The size is halved when memory runs out.
        raw: the file of `--save-raw`, or None.
        trajectory: the file of `--trajectory`, or None.
        overwrite: remove an earlier run in the folder first.
        force: replace files that this run did not write.
        speed: the enabled speed options, for `run.json`.
        world: the processes.
        notes: sentences for the user about damaged files that `prepare` found.
    """

    folder: RunFolder
    prepared: PreparedRun
    num: int
    batch_size: int
    raw: Path | None = None
    trajectory: Path | None = None
    overwrite: bool = False
    force: bool = False
    automatic: bool = False
    speed: Sequence[str] = ()
    world: World = field(default_factory=this_world)
    frames: list[list[Pixels]] = field(default_factory=list)
    states: RowFile | None = None
    earlier: Run | None = None
    filming: bool = False
    identity: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)

    def prepare(self) -> list[int]:
        """Opens the folder and returns the indices of the images that all processes together have to make.

        Raises:
            UsageError, DataError, OutputError: see `RunFolder.open` and `RowFile`; also if an output cannot be written,
                or the processes see different folders.
            NumericsError, CapacityError: the sampler's tolerance cannot be calibrated.
        """
        sharing = self.world.sharing(self.prepared.device) if self.automatic else 1
        start = self.world.broadcast(self._open(sharing) if self.world.main else None)
        assert start is not None
        self.num, self.batch_size, self.earlier = start.num, start.batch_size, start.earlier
        self.states, self.filming = start.states, start.filming
        self.prepared.use_tolerance(start.tolerance)
        if start.token:
            self.folder.meet(start.token, self.world)
        self.identity = self.folder.identity()
        return start.todo

    def _open(self, sharing: int) -> ResumeState:
        before = self.folder.record()
        for option, path, extra in (
            ("--save-raw", self.raw, before and before.raw),
            ("--trajectory", self.trajectory, before and before.trajectory),
        ):
            if path:
                probe(path)
                refuse_foreign(option, path, extra.sha256 if extra else None, self.force)
        self.earlier = earlier = self.folder.open(self.prepared.request, self.num, self.overwrite, self.force)
        there, note = self.folder.intact(earlier.num) if earlier else (set(), None)
        self.notes += [note] if note else []
        if read_manifest(self.folder.path) is None:
            self._check_shapes(sorted(there))
        num = max(self.num, 1 + max(there, default=-1))
        states = None
        if self.raw:
            finished = earlier.raw.sha256 if earlier and earlier.raw else None
            states = RowFile(self.raw, num, self._shape(), self._name(), finished, self.overwrite)
            there &= states.done(num)
        filming = self.trajectory is not None and not is_current(self.trajectory, earlier, min(num, IN_GRID))
        if filming:
            there -= set(range(IN_GRID))
        todo = [index for index in range(num) if index not in there]
        tolerance = earlier.tolerance if earlier else None
        if todo and not tolerance:  # Rank 0 calibrates once, for all processes.
            with memory_for(1, self.prepared.device):
                self.prepared.calibrate()
            tolerance = self.prepared.sampler.tolerance
        token = self.folder.mark() if self.world.size > 1 else None
        return ResumeState(todo, num, self._size(len(todo), sharing), earlier, states, filming, tolerance, token)

    def _size(self, count: int, sharing: int) -> int:
        """The batch size for `count` images, equal on all processes; up to `sharing` processes share one device."""
        if not (self.automatic and count):
            return self.batch_size
        before = self.earlier.sessions[-1] if self.earlier and self.earlier.sessions else None
        if before and before.alike(new_session(self.prepared.device, 0, 1, self.speed)):
            return before.batch_size
        probe = BatchSizeProbe(self.prepared)
        largest = max(probe.max_batch_size() // sharing, 1)
        return best_size(probe.seconds, min(largest, -(-count // self.world.size)))

    def _shape(self) -> tuple[int, ...]:
        dimension, *image_shape = self.prepared.state_shape
        return (dimension, *image_shape) if dimension > 1 else tuple(image_shape)

    def _name(self) -> str:
        """A short name that identifies the run's settings."""
        return hashlib.sha256(msgspec.json.encode(self.prepared.request)).hexdigest()[:12]

    def run(self, todo: Sequence[int], on_step: Callable[[int], None]) -> Run:
        """Makes the images `todo`, then the grid and the other outputs. Writes `run.json` at the start and at the end.

        Args:
            todo: the indices that `prepare` returned; this process makes its share of them.
            on_step: called with the progress of all processes since its last call, counted in sampler steps times images.

        Returns:
            The finished run, as rank 0 recorded it.

        Raises:
            OutputError: a file cannot be written; existing images are kept.
            NumericsError: images are not finite.
            CapacityError: a batch does not fit in memory.
            PeerError: another process has failed.
        """
        run = self._record()
        session = new_session(self.prepared.device, self.batch_size, self.world.size, self.speed)
        if todo:
            run.sessions.append(session)
        if self.world.main:
            if todo:
                remove_manifest(self.folder.path)
            self._save(run)
        ledger = Ledger(run, session, self.world.shared_counter())
        writer = Writer(self._store, lambda made: ledger.add(len(made.indices), made.evaluations))
        wanted = set(todo)

        def make(indices: Sequence[int]) -> Batch | None:
            return None if wanted.isdisjoint(indices) else self._batch(indices, wanted, on_step, writer.check)

        halving = OomRetry(make, self.prepared.release)
        try:
            for indices in self._mine(todo):
                for made in halving(indices) if self.automatic else [make(indices)]:
                    if made:
                        writer.put(made)
            writer.finish()
            self.world.barrier(lambda: on_step(self.world.count()))
            on_step(self.world.count(at_once=True))
            if self.world.main:
                self._finish(run)
                ledger.add()
                run.complete = True
                self._save(run)
        except BaseException:
            with suppress(PeerError):
                writer.stop()
                ledger.add()
            # If saving fails as well, for example on a full disk, only the first error is reported.
            with suppress(OutputError):
                if self.world.main:
                    self._save(run)
            raise
        return self.world.broadcast(run)

    def _record(self) -> Run:
        before = list(self.earlier.sessions) if self.earlier else []
        request, indices = self.prepared.request, [0, self.num - 1]
        run = Run(__version__, self.folder.format, request, self.num, indices, False, mean_nfe(before), None, before)
        if self.earlier:
            run.raw, run.trajectory = self.earlier.raw, self.earlier.trajectory
        run.tolerance, run.noise_levels = self.prepared.sampler.tolerance, self.prepared.noise_levels
        return run

    def _save(self, run: Run) -> None:
        self.folder.refuse_replaced(self.identity)
        self.folder.save(run)

    def batches(self, todo: Sequence[int]) -> list[range]:
        """The batches that contain the images `todo`, as blocks of indices; see `PreparedRun.batches`."""
        return self.prepared.batches(todo, self.batch_size, self.num)

    def _mine(self, todo: Sequence[int]) -> list[range]:
        """This process's share of the batches. Rank 0 makes all batches that the film of `--trajectory` shows."""
        batches = self.batches(todo)
        filmed = sum(batch[0] < self._filmed for batch in batches)
        return (batches[:filmed] if self.world.main else []) + self.world.share(batches[filmed:])

    @property
    def _filmed(self) -> int:
        return min(self.num, IN_GRID) if self.filming else 0

    def _batch(
        self, indices: Sequence[int], wanted: set[int], on_step: Callable[[int], None], check: Callable[[], None]
    ) -> Batch:
        """Computes a batch and starts copying its wanted images to the CPU."""
        shown = sum(index < self._filmed for index in indices)  # These are the first images of the batch.
        rows = [row for row, index in enumerate(indices) if index in wanted]
        frames: list[Pixels] = []
        steps = self.prepared.sampler.steps  # Adaptive samplers may take more or fewer steps than this estimate.
        counted = 0

        def count(done: int) -> None:
            nonlocal counted
            counted += (more := len(rows) * done - counted)
            on_step(self.world.count(more))

        def step(done: int, u: Tensor) -> None:
            if shown:
                frames.append(self._pixels(self.prepared.images(u[:shown])))
            check()
            count(min(done, steps - 1))

        try:
            with memory_for(len(indices), self.prepared.device):
                if shown:  # The first frame is the noise.
                    frames.append(self._pixels(self.prepared.images(self.prepared.start(indices[:shown]))))
                u = self.prepared.run(indices, step)
                count(steps)
                if len(rows) < len(indices):
                    u = u.index_select(0, to_device(torch.tensor(rows), u.device))  # Indexing with a list would block.
                states = to_host(u) if self.states else None
                images = to_host(self.prepared.decode(u))
        except CapacityError:
            on_step(self.world.count(-counted))  # The progress of the failed batch does not count.
            raise
        if shown:
            self.frames.append(frames)
        return Batch([indices[row] for row in rows], images, states, self.prepared.evaluations)

    def _store(self, made: Batch) -> Batch:
        """Writes a batch, on the writer's thread.

        Raises PeerError or OutputError, before anything is written, if another run may have started in the folder.
        """
        self.world.check()
        self.folder.refuse_replaced(self.identity)
        try:
            with memory_for(len(made.indices), self.prepared.device):
                if self.states and made.states:
                    states = made.states()
                    self.states.store(made.indices, states if states.shape[1] > 1 else states[:, 0])
                self.folder.images.store(made.indices, self._pixels(made.images()))
        except CapacityError as error:  # A CapacityError would make `OomRetry` halve another batch.
            raise OutputError(str(error)) from error
        return made

    def _pixels(self, images: NDArray) -> Pixels:
        return quantize(images, self.prepared.config.quantize)

    def _grid(self, images: Pixels) -> Pixels:
        """The first images as one picture; with `--class all`, one row for each class."""
        classes = self.prepared.model.classes
        if self.prepared.request.classes != ALL:
            return grid(images)
        return grid(images[rows_by_class(len(images), classes)], columns=-(-len(images) // classes))

    def _check_shapes(self, indices: Sequence[int]) -> None:
        """Raises DataError if one of these images in the folder cannot have been drawn by the model."""
        _, channels, height, width = self.prepared.state_shape
        own = describe((height, width, 3 if channels == 3 else 1))
        for start in range(0, len(indices), IN_GRID):
            images = self.folder.images.read(indices[start : start + IN_GRID])
            found = describe((*images.shape[1:3], 3 if images.shape[3] == 3 else 1))
            if found != own:
                raise DataError(
                    f"{self.folder.path}: holds images of {found}, but the model draws {own}; remove the files that this run "
                    "did not write and rerun the same command"
                )

    def _finish(self, run: Run) -> None:
        self.folder.refuse_replaced(self.identity)
        images = self.folder.images
        if not eventually(lambda: len(images.done(self.num)) == self.num, PATIENCE if self.world.size > 1 else 0.0):
            lost = min(set(range(self.num)) - images.done(self.num))
            raise DataError(
                f"{self.folder.path}: image {lost} has disappeared since it was made; rerun the same command"
            )
        shown = images.read(range(min(self.num, IN_GRID)))
        images.join(self.num)
        self.folder.write_grid(self._grid(shown))
        if self.states:
            self.states.finish()
            run.raw = Extra(sha256(self.states.path), self.num)
        if self.trajectory and self.frames:
            run.trajectory = write_trajectory(self.trajectory, self.frames, self._grid)
        known = read_manifest(self.folder.path)
        files = images.describe(self.num)
        if known is None or (known.images, list(known.files)) != (self.num, files):
            write_manifest(self.folder.path, Manifest(__version__, self.folder.format, self.num, files))
