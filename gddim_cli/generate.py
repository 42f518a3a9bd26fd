"""A run of `gddim sample`: from a sampler to a folder of images, going on where it was cut."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from gddim_cli import __version__
from gddim_cli.errors import OutputError
from gddim_cli.files import probe, sha256
from gddim_cli.images import Pixels, Quantize, grid, quantize, write_gif, write_png
from gddim_cli.runs import GRID, Extra, Run, RunFolder, Session, mean_nfe
from gddim_cli.sampling import Sampler, Settings
from gddim_cli.states import RawStates
from gddim_cli.versions import versions

IN_GRID = 100


@dataclass
class Generation:
    """One call of `gddim sample`.

    Attributes:
        folder: where the images go.
        settings: the run's identity.
        sampler: makes them.
        num: images wanted.
        batch_size: made at once.
        raw: `--save-raw`, or None.
        trajectory: `--trajectory`, or None.
        overwrite: begin anew.
    """

    folder: RunFolder
    settings: Settings
    sampler: Sampler
    num: int
    batch_size: int
    raw: Path | None = None
    trajectory: Path | None = None
    overwrite: bool = False
    frames: list[list[Pixels]] = field(default_factory=list)
    states: RawStates | None = None
    earlier: Run | None = None
    filming: bool = False

    def prepare(self) -> list[int]:
        """Opens the folder and says which images are still to be made.

        Raises:
            UsageError, DataError, OutputError: as `RunFolder.open` and `RawStates`, and where an output cannot be written.
        """
        for path in (self.raw, self.trajectory):
            if path:
                probe(path)
        self.earlier = earlier = self.folder.open(self.settings, self.overwrite)
        there = self.folder.done(earlier.num) if earlier else set()
        self.num = max(self.num, 1 + max(there, default=-1))
        wanted = set(range(self.num))
        if self.raw:
            finished = earlier.raw.sha256 if earlier and earlier.raw else None
            self.states = RawStates(self.raw, self.num, self._shape(), self._name(), finished, self.overwrite)
            there &= self.states.done(self.num)
        self.filming = self.trajectory is not None and not self._film_is_current()
        if self.filming:
            there -= set(range(IN_GRID))
        plan = self.sampler.plan
        if earlier and earlier.tolerance and plan.fixed:
            self.sampler.plan = plan.fixed(earlier.tolerance)
        return sorted(wanted - there)

    def _shape(self) -> tuple[int, ...]:
        images, blocks = self.sampler.checkpoint.card.images, self.sampler.diffusion.D
        one = (images.channels, images.size, images.size)
        return (blocks, *one) if blocks > 1 else one

    def _name(self) -> str:
        """A short name of the run's settings."""
        return hashlib.sha256(msgspec.json.encode(self.settings)).hexdigest()[:12]

    def _film_is_current(self) -> bool:
        """Whether the file of `--trajectory` is the one that this run wrote, of as many images."""
        film = self.earlier.trajectory if self.earlier else None
        if film is None or self.trajectory is None or not self.trajectory.exists():
            return False
        return film.images == min(self.num, IN_GRID) and film.sha256 == sha256(self.trajectory)

    def run(self, todo: Sequence[int], on_step: Callable[[int], None]) -> Run:
        """Makes the images `todo`, then the grid and what else was asked for; keeps `run.json` true throughout.

        Args:
            todo: indices, from `prepare`.
            on_step: called with the number of images after every step of every batch.

        Raises:
            OutputError: something cannot be written; what is there stays.
            NumericsError: images that are not finite.
        """
        session = self._session()
        before = self.earlier.sessions if self.earlier else []
        sessions = [*before, session] if todo else before
        run = Run(__version__, self.settings, self.num, [0, self.num - 1], False, mean_nfe(before), None, sessions)
        if self.earlier:
            run.raw, run.trajectory, run.tolerance = self.earlier.raw, self.earlier.trajectory, self.earlier.tolerance
        self.folder.save(run)
        started = time.perf_counter()
        try:
            for indices in self.sampler.batches(todo, self.batch_size):
                kept = self._batch(indices, set(todo), on_step)
                total = session.images * session.nfe + kept * self.sampler.evaluations
                session.images += kept
                session.nfe = total / session.images
                run.nfe, run.tolerance = mean_nfe(sessions), self.sampler.plan.tolerance
        except BaseException:
            session.seconds = time.perf_counter() - started
            # The first error is the one to tell of; a full disk refuses this file too.
            with suppress(OutputError):
                self.folder.save(run)
            raise
        self._finish(run)
        session.seconds = time.perf_counter() - started
        run.complete = True
        self.folder.save(run)
        return run

    def _batch(self, indices: Sequence[int], wanted: set[int], on_step: Callable[[int], None]) -> int:
        """Makes a batch and stores those of it that are wanted; returns how many."""
        filmed = min(self.num, IN_GRID) if self.filming else 0
        shown = [row for row, index in enumerate(indices) if index < filmed]
        frames: list[Pixels] = []

        def step(_: int, u: Tensor) -> None:
            if shown:
                frames.append(self._pixels(u[shown]))
            on_step(len(indices))

        u = self.sampler.run(indices, step)
        if shown:
            self.frames.append(frames)
        rows = [row for row, index in enumerate(indices) if index in wanted]
        u, indices = u[rows], [indices[row] for row in rows]
        if self.states:
            states = u.cpu().numpy()
            self.states.store(indices, states if states.shape[1] > 1 else states[:, 0])
        self.folder.store(indices, self._pixels(u))
        return len(indices)

    def _pixels(self, u: Tensor) -> Pixels:
        how: Quantize = "round" if self.settings.quantize == "round" else "floor"
        return quantize(self.sampler.image(u), how)

    def _finish(self, run: Run) -> None:
        self.folder.join(self.num)
        shown = min(self.num, IN_GRID)
        write_png(self.folder.path / GRID, grid(self.folder.read(range(shown))))
        if self.states:
            run.raw = Extra(self.states.finish(), self.num)
        if self.trajectory and self.frames:
            longest = max(len(frames) for frames in self.frames)  # adaptive batches end sooner or later: the last holds
            parts = [[*frames, *[frames[-1]] * (longest - len(frames))] for frames in self.frames]
            write_gif(self.trajectory, [grid(np.concatenate(step)) for step in zip(*parts, strict=True)])
            run.trajectory = Extra(sha256(self.trajectory), shown)

    def _session(self) -> Session:
        device = self.sampler.device
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        )
        return Session(
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            device=str(device),
            device_name=name,
            batch_size=self.batch_size,
            images=0,
            nfe=0.0,
            seconds=0.0,
            versions=versions(),
        )
