"""Fits a solver to a network: computes reference solutions, then searches for the solver's times and matrices.

The work is stored as it proceeds, so that an interrupted fit is resumed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from gddim_cli.errors import NumericsError
from gddim_cli.hub.store import cache_folder
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.numerics.quadrature import Array
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.solvers import solver_name
from gddim_cli.runtime.arrays import read_array, read_sealed_array, write_sealed_array
from gddim_cli.runtime.files import locked
from gddim_cli.runtime.json_files import read_sealed_json, write_sealed_json
from gddim_cli.runtime.memory import memory_for
from gddim_cli.runtime.rounding import rounding
from gddim_cli.samplers.base import Eps
from gddim_cli.samplers.coefficients import Coefficients, gddim_coefficients
from gddim_cli.samplers.fitted import closed_form, descent
from gddim_cli.samplers.fitted.family import Family, Method
from gddim_cli.samplers.fitted.grid_search import GridState, Solved, first_state, first_time, nearest, passes
from gddim_cli.samplers.fitted.solver_file import Fit, SolverFile, matrices_of
from gddim_cli.samplers.fitted.trace import Batch, rmse
from gddim_cli.samplers.multistep import multistep
from gddim_cli.samplers.time_grids import power_grid

NUM = 128
ORDER = 3
"""The number of past predictions that each step of the fitted solver uses besides the current one."""
POWER = 1.6
"""The power of the time grid from which the search for times starts."""
REFERENCE_POWER = 1.25
"""The power of the time grid of the reference solutions."""
REFERENCE_STEPS = {"R": 100, "L": 200}
"""The number of steps of the reference solutions, by K. With K = R, 100 steps have an error of 8e-4 on the bundled checkpoint."""
REFERENCE_ORDER = 3
IN_GRID_SEARCH = 128
"""The maximum number of images on which the grid search measures errors. With only 48, the search finds grids
that suit only these images."""
FIRST_MOVE = 6
"""The first step size of the grid search: by how many positions in `Tuning.fine` a time of the solver moves."""
GRID_SEARCH = 2500
"""The maximum product of the NFE and the number of grids that the grid search tries. Usually the search ends earlier,
because moving a time no longer lowers the error."""
SEARCH = 50
"""The product of the NFE and the number of rounds of gradient descent. A larger NFE needs fewer rounds, because less is
left to improve."""
VERSION = 6
"""The version of the fit; interrupted work of another version is not resumed."""


@dataclass(frozen=True)
class Tuning:
    """The fit of a solver to one network, diffusion and NFE.

    Attributes:
        prepared: a run with the solver to beat, which is gDDIM at the same NFE with default options.
        num: the number of images to which the solver is fitted. The same number of other images is held out.
        batch_size: images per batch.
        on_evaluation: called after each network evaluation with the number of images.
    """

    prepared: PreparedRun
    num: int = NUM
    batch_size: int = 8
    on_evaluation: Callable[[int], object] = lambda _: None

    @cached_property
    def method(self) -> Method:
        """The diffusion, K, order and start time, which all solvers of the search share."""
        config = self.prepared.config
        return Method(self.prepared.diffusion, config.k, min(ORDER, self.nfe - 1), config.t_start)

    @property
    def held_out(self) -> int:
        """The number of images that are held out."""
        return self.num

    @property
    def nfe(self) -> int:
        """Network evaluations per image; each of them begins a step of the fitted solver."""
        return self.prepared.request.nfe

    @cached_property
    def grid(self) -> Array:
        """The time grid from which the search starts, [N + 1]. With a denoiser and K = R, it begins at `first_time`."""
        config = self.prepared.config
        start = config.t_start
        if config.k == "R" and isinstance(self.prepared.eps, DenoiserEps):
            start = first_time(self.prepared.diffusion, config.t_start, config.t_end)
        return power_grid(start, config.t_end, self.nfe, POWER)

    @cached_property
    def fine(self) -> Array:
        """The times of the reference solutions. The search chooses the solver's times from these."""
        config = self.prepared.config
        return power_grid(
            config.t_start, config.t_end, max(REFERENCE_STEPS[self.method.k], 2 * self.nfe), REFERENCE_POWER
        )

    @property
    def grids(self) -> int:
        """The approximate maximum number of grids that the search tries."""
        return GRID_SEARCH // self.nfe

    @property
    def start(self) -> Coefficients:
        """The coefficients of the solver to beat."""
        found = self.prepared.sampler.coefficients
        assert found is not None  # With default options, gDDIM is a linear method.
        return found

    @property
    def name(self) -> str:
        """The name of the solver's file."""
        request = self.prepared.request
        return solver_name(self.prepared.model, self.prepared.diffusion, request.diffusion_sha256, request.nfe)

    @property
    def folder(self) -> Path:
        """The folder for the work of an unfinished fit."""
        identity = [VERSION, self.prepared.request, self.num, self.batch_size]
        return cache_folder() / "tune" / hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:16]

    @property
    def rounds(self) -> int:
        """The number of rounds of gradient descent. A round takes one step per batch, and its result is stored."""
        return max(SEARCH // self.nfe, 2)

    @property
    def evaluations(self) -> int:
        """An estimate of the number of network evaluations, summed over images."""
        n = self.nfe
        references = (self.num + self.held_out) * len(self.fine)
        return (
            references
            + self.num * n
            + self.grids * min(IN_GRID_SEARCH, self.num) * (n + 1) // 2  # Evaluations before the moved time are reused.
            + self.rounds * self.num * (3 * n - 1)
            + (self.rounds + 4) * self.held_out * n // 2
        )

    @rounding(tf32=False)
    def solver(self, say: Callable[[str], object] = lambda _: None) -> SolverFile:
        """The fitted solver. Results that an earlier, interrupted call stored in `folder` are reused.

        Raises:
            OutputError: the cache cannot be written, or another process is fitting the same solver.
            CapacityError: a batch does not fit in memory.
        """
        with locked(self.folder, "gddim tune"), torch.no_grad(), memory_for(self.batch_size, self.prepared.device):
            fitted, held_out = range(self.num), range(self.num, self.num + self.held_out)
            solved = list(self.solved(fitted, with_states=True))
            others = [each.batch for each in self.solved(held_out, with_states=False)]
            half = max(len(others) // 2, 1)
            choosing, measuring = others[:half], others[half:] or others
            times = self.times(solved[: max(1, IN_GRID_SEARCH // self.batch_size)], choosing)
            first = closed_form.fit(self.method, self.fine[[*times, -1]], [each.on(times) for each in solved])
            family = first.family
            bare = [each.batch for each in solved]
            state = self.search(family, first.theta, bare, choosing, say)
            best = self.start if state.best is None else family.coefficients(np.array(state.best))
            before, after = rmse(measuring, self.start), rmse(measuring, best)
            if after >= before:
                best, after = self.start, before
            return self.file(best, before, after)

    def forget(self) -> None:
        """Removes the stored work. Call this once the solver file has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def search(
        self,
        family: Family,
        theta: Array,
        batches: Sequence[Batch],
        choosing: Sequence[Batch],
        say: Callable[[str], object],
    ) -> descent.Progress:
        """The state of the descent after all rounds. The state after each round is stored."""
        path = self.folder / "search.json"
        state = read_sealed_json(path, descent.Progress)
        if state is None:
            first, fallback = rmse(choosing, family.coefficients(theta)), rmse(choosing, self.start)
            best = theta.tolist() if first < fallback else None
            zeros = [0.0] * family.size
            state = descent.Progress(0, theta.tolist(), zeros, zeros, best, min(first, fallback))
            write_sealed_json(path, state)
        if not descent.differentiable(batches[0], float(family.grid[0])):
            say("note: the network has no gradient, so only the matrices are fitted, not the times")
            return state
        for done in range(state.rounds, self.rounds):
            point = descent.Point(
                np.array(state.theta), np.array(state.mean), np.array(state.square), done * len(batches)
            )
            point = descent.improved(family, point, batches, self.rounds * len(batches))
            error = rmse(choosing, family.coefficients(point.theta))
            found = point.theta.tolist()
            best, lowest = (found, error) if error < state.error else (state.best, state.error)
            state = descent.Progress(done + 1, found, point.mean.tolist(), point.square.tolist(), best, lowest)
            write_sealed_json(path, state)
        return state

    def times(self, solved: Sequence[Solved], others: Sequence[Batch]) -> list[int]:
        """The solver's times except the last, as positions in `fine`. The search stores its state after each pass."""
        path = self.folder / "grid.json"
        state = read_sealed_json(path, GridState)
        if state is None:
            state = first_state(self.method, self.fine, solved, others, nearest(self.fine, self.grid), FIRST_MOVE)
        for state in passes(self.method, self.fine, solved, others, state, self.grids):  # noqa: B020
            write_sealed_json(path, state)
        return state.chosen

    def solved(self, indices: range, with_states: bool) -> Iterator[Solved]:
        """Batches of these images with their reference solutions, which are computed once and stored."""
        for begin in range(indices.start, indices.stop, self.batch_size):
            own = range(begin, min(begin + self.batch_size, indices.stop))
            eps, start = self.counted(self.prepared.eps_of(own)), self.prepared.start(own)
            path = self.folder / f"reference-{begin:06d}.npy"
            read = read_sealed_array(path)
            if read is None or read.shape[1:] != tuple(start.shape):
                write_sealed_array(path, torch.stack(self.reference(eps, start, with_states)).cpu().numpy())
                read = read_array(path, memory_map=True)
            yield Solved(Batch(eps, start, torch.from_numpy(np.array(read[-1][:, 0])).to(start)), read)

    def reference(self, eps: Eps, start: Tensor, with_states: bool) -> list[Tensor]:
        """The converged states at all times of the fine grid after the first; without `with_states`, only at the last time."""
        config, order = self.prepared.config, min(REFERENCE_ORDER, len(self.fine) - 2)
        c = gddim_coefficients(self.prepared.diffusion, self.fine, order, config.k, config.denoise)
        kept = []
        for i, (_, u) in enumerate(multistep(eps, start, c), start=1):
            if with_states and i < len(self.fine) - 1:
                kept.append(u)
        if not u.isfinite().all():
            raise NumericsError("the converged solution is not finite; nothing can be fitted to it")
        return [*kept, u]

    def counted(self, eps: Eps) -> Eps:
        """The noise prediction, wrapped to report its evaluations to `on_evaluation`."""

        def reported(u: Tensor, t: float) -> Tensor:
            found = eps(u, t)
            self.on_evaluation(len(u))
            return found

        return reported

    def file(self, best: Coefficients, before: float, after: float) -> SolverFile:
        """The content of the solver file: the solver, the model and settings that it belongs to, and how it was fitted."""
        request, config = self.prepared.request, self.prepared.config
        options = request.options
        start = f"gDDIM, predict {options['predict']}, order {options['order']}, time grid {request.time_grid}"
        return SolverFile(
            format="gddim solver 1",
            checkpoint=self.prepared.model.name,
            checkpoint_sha256=self.prepared.model.sha256,
            diffusion=self.prepared.diffusion.name,
            parameters=request.parameters or {},
            diffusion_sha256=request.diffusion_sha256,
            nfe=request.nfe,
            k=config.k,
            denoise=config.denoise,
            fit=Fit(
                num=self.num,
                held_out=self.held_out,
                seed=request.seed,
                classes=request.classes,
                start=start,
                improved=best is not self.start,
                rmse_before=before,
                rmse_after=after,
            ),
            t_start=config.t_start,
            **matrices_of(best),
        )
