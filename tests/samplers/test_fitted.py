"""The fit of a solver: exact where an exact solver exists, its gradient, its file."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support import damaged

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import DataError
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.samplers.coefficients import Coefficients, gddim_coefficients
from gddim_cli.samplers.fitted import closed_form, descent
from gddim_cli.samplers.fitted.family import Family, Method
from gddim_cli.samplers.fitted.grid_search import Solved, first_state, judged, nearest, passes
from gddim_cli.samplers.fitted.solver_file import Fit, SolverFile, matrices_of, read_solver, write_solver
from gddim_cli.samplers.fitted.trace import Batch, rmse, traced
from gddim_cli.samplers.gaussian_images import GaussianImages
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.time_grids import power_grid
from gddim_cli.verification.exact import exact_flow, example_mixture, prior_states

STD = 0.7


def gaussian_batch(diffusion: Diffusion, grid: np.ndarray) -> Batch:
    """States of images `N(0, STD^2 I)` along the exact flow, whose noise prediction is linear in the state."""
    images = GaussianImages(diffusion, STD)

    def eps(u: torch.Tensor, t: float) -> torch.Tensor:
        matrix = diffusion.K(t, "R").T @ np.linalg.inv(images.Sigma(t))
        return combine([to_tensor_like(matrix, u)], [u])

    start = prior_states(diffusion, 8)
    flow = images.R(grid[1:]) @ np.linalg.inv(images.R(grid[0]))
    states = [combine([to_tensor_like(matrix, start)], [start]) for matrix in flow]
    return Batch(eps, start, states[-1][:, 0], states)


@pytest.mark.parametrize("diffusion", [CLD(), VP(), PSLD()], ids=lambda d: d.name)
def test_a_linear_problem_is_solved_exactly(diffusion: Diffusion) -> None:
    grid = power_grid(1.0, 1e-2, 4, 1.25)
    batch = gaussian_batch(diffusion, grid)
    method = Method(diffusion, "R", 2, 1.0)
    fit = closed_form.fit(method, grid, [batch])
    family, theta = fit.family, fit.theta
    assert rmse([batch], method.on(grid)) > 1e-3
    assert rmse([batch], family.coefficients(theta)) < 1e-7
    np.testing.assert_array_equal(family.times(theta), grid)


def mixture_family(diffusion: Diffusion) -> tuple[Family, np.ndarray, Batch]:
    """A fit to a mixture of Gaussians, whose flow is known."""
    exact = exact_flow(diffusion)
    grid = power_grid(0.9, exact.t_end, 4, 1.25)
    states = [exact.at(float(t)) for t in grid[1:]]
    batch = Batch(exact.eps, exact.start, states[-1][:, 0], states)
    fit = closed_form.fit(Method(diffusion, "R", 2, 1.0), grid, [batch])
    family, theta = fit.family, fit.theta
    return family, theta, batch


@pytest.mark.parametrize("diffusion", [CLD(), VP()], ids=lambda d: d.name)
def test_the_gradient_is_that_of_the_error(diffusion: Diffusion, monkeypatch) -> None:
    monkeypatch.setattr(descent, "STEP_OF_TIMES", 1e-5)
    family, theta, batch = mixture_family(diffusion)
    weight = np.linspace(0.5, 1.5, len(batch.start))
    monkeypatch.setattr(descent, "weights_of", lambda _: weight)
    found = descent.gradient(family, theta, batch)

    def error(theta: np.ndarray) -> float:
        end = final_state(multistep(batch.eps, batch.start, family.coefficients(theta)))[:, 0]
        each = (end - batch.target).square().flatten(1).sum(1).numpy()
        return 0.5 * float(weight @ each) / batch.target.numel()

    for p in range(family.size):
        step = np.zeros(family.size)
        step[p] = 1e-4
        assert found[p] == pytest.approx((error(theta + step) - error(theta - step)) / 2e-4, rel=2e-3, abs=1e-8)


def test_the_search_lowers_the_error_of_the_closed_form() -> None:
    family, theta, batch = mixture_family(VP())
    before = rmse([batch], family.coefficients(theta))
    zeros = np.zeros_like(theta)
    point = descent.improved(family, descent.Point(theta, zeros, zeros), [batch] * 40, 40)
    assert point.steps == 40
    assert rmse([batch], family.coefficients(point.theta)) < 0.5 * before
    times = family.times(point.theta)
    assert (np.diff(times) < 0).all()
    assert times[-1] == family.grid[-1]


def test_the_grid_search_finds_a_better_grid_and_goes_on_after_any_pass() -> None:
    exact = exact_flow(VP())
    fine = power_grid(0.9, exact.t_end, 40, 1.25)
    states = [exact.at(float(t)) for t in fine[1:]]
    method = Method(VP(), "R", 2, 1.0)
    solved = [Solved(Batch(exact.eps, exact.start, states[-1][:, 0]), torch.stack(states).numpy())]
    start = nearest(fine, power_grid(0.9, exact.t_end, 4, 1.25))
    assert start == [0, 10, 20, 30]
    others = [Batch(exact.eps, exact.start, 0.5 * states[-1][:, 0])]
    first = first_state(method, fine, solved, others, start, 4)
    found = list(passes(method, fine, solved, others, first, 100))
    assert found[-1].error < 0.7 * first.error
    assert found[-1].error == judged(method, fine, solved, found[-1].indices)[1]
    assert [state.error for state in found] == sorted((state.error for state in found), reverse=True)
    assert list(passes(method, fine, solved, others, found[1], 100)) == found[2:]
    assert found[-1].move == 0 or found[-1].trials >= 100
    errors = {}
    for state in (first, *found):
        errors.setdefault(
            tuple(state.indices), rmse(others, judged(method, fine, solved, state.indices)[0].coefficients)
        )
    assert tuple(found[-1].chosen) == min(errors, key=errors.__getitem__)
    assert found[-1].lowest == min(errors.values())


@pytest.mark.parametrize("same", [0, 1, 2, 3])
def test_a_fit_that_reuses_another_is_the_same_fit(same: int) -> None:
    exact = exact_flow(CLD())
    fine = power_grid(0.9, exact.t_end, 40, 1.25)
    states = [exact.at(float(t)) for t in fine[1:]]
    evaluated: list[float] = []

    def eps(u: torch.Tensor, t: float) -> torch.Tensor:
        evaluated.append(t)
        return exact.eps(u, t)

    solved = [Solved(Batch(eps, exact.start, states[-1][:, 0]), torch.stack(states).numpy())]
    method, old, new = Method(CLD(), "R", 2, 1.0), [0, 10, 20, 30], [0, 10, 20, 30]
    new[same] += 3
    known, _ = judged(method, fine, solved, old)
    whole, error = judged(method, fine, solved, new)
    evaluated.clear()
    reused, same_error = judged(method, fine, solved, new, known)
    assert len(evaluated) == 4 - same
    assert same_error == error
    np.testing.assert_array_equal(reused.theta, whole.theta)
    for name in ("Psi", "C"):
        np.testing.assert_array_equal(getattr(reused.coefficients, name), getattr(whole.coefficients, name))
    np.testing.assert_array_equal(reused.family.coefficients(reused.theta).C, whole.family.coefficients(whole.theta).C)


def test_a_grid_has_as_many_times_on_the_fine_one() -> None:
    fine = np.linspace(1.0, 0.0, 6)
    assert nearest(fine, np.array([0.1, 0.05, 0.02, 0.0])) == [2, 3, 4]
    assert nearest(fine, np.array([1.0, 0.99, 0.98, 0.0])) == [0, 1, 2]


def test_in_frequency_space_all_frequencies_share_the_offsets(monkeypatch) -> None:
    monkeypatch.setattr(descent, "STEP_OF_TIMES", 1e-5)
    bdm = BDM(image_size=8)
    grid = power_grid(0.9, 0.5, 3, 1.25)
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 1, 1, 8, 8)))
    eps = lambda u, t: torch.tanh(u)  # noqa: E731
    states = traced(eps, start, gddim_coefficients(bdm, power_grid(0.9, 0.5, 30, 1.25), 2)).states[10::10]
    batch = Batch(eps, start, states[-1][:, 0], states)
    fit = closed_form.fit(Method(bdm, "R", 2, 0.95), grid, [batch])
    family, theta = fit.family, fit.theta
    fitted, own = family.coefficients(theta), family.method.on(grid)
    assert fitted.Psi.shape == (3, 8, 8, 1, 1)
    assert np.ptp(fitted.C - own.C, axis=(2, 3)).max() < 1e-9
    monkeypatch.setattr(descent, "weights_of", np.ones_like)
    found = descent.gradient(family, theta, batch)
    for p in range(family.size):
        step = np.zeros(family.size)
        step[p] = 1e-4
        errors = [rmse([batch], family.coefficients(theta + sign * step)) ** 2 for sign in (1, -1)]
        assert found[p] == pytest.approx((errors[0] - errors[1]) / 4e-4, rel=2e-3, abs=1e-7)


def test_a_step_that_cannot_be_taken_changes_no_time(monkeypatch) -> None:
    """Times that would pass each other, and a batch that overflows."""
    family, theta, batch = mixture_family(VP())
    zeros = np.zeros_like(theta)
    start = descent.Point(theta, zeros, zeros)
    monkeypatch.setattr(descent, "WARM_UP", 1)
    monkeypatch.setattr(descent, "RATE_OF_TIMES", 100.0)
    point = descent.improved(family, start, [batch] * 2, 10)
    np.testing.assert_array_equal(family.times(point.theta), family.grid)
    assert (point.theta != theta).any()
    lost = Batch(batch.eps, batch.start, torch.full_like(batch.target, torch.inf))
    np.testing.assert_array_equal(descent.improved(family, start, [lost] * 2, 10).theta, theta)


def solver_of(c: Coefficients, **changes: object) -> SolverFile:
    fit = Fit(128, 128, 0, None, "gDDIM", True, 0.2, 0.1)
    own = {"checkpoint": "mnist", "checkpoint_sha256": "ab", "diffusion": "cld", "parameters": {"beta_0": 4.0}}
    given = {**own, "diffusion_sha256": None, "nfe": c.nfe, "k": "R", "denoise": False, "fit": fit, **matrices_of(c)}
    return SolverFile(format="gddim solver 1", **{**given, **changes})


def test_a_file_holds_the_coefficients_to_the_last_bit_and_the_loop_runs_them(tmp_path: Path) -> None:
    family, theta, batch = mixture_family(CLD())
    c = family.coefficients(theta)
    path = tmp_path / "solver.json"
    write_solver(path, solver_of(c))
    found = read_solver(path).coefficients
    for one, other in ((c.t, found.t), (c.Psi, found.Psi), (c.C, found.C), (c.first, found.first)):
        np.testing.assert_array_equal(one, other)
    u, past = batch.start, []
    raw = json.loads(path.read_text())
    u = torch.einsum("de,be...->bd...", torch.tensor(raw["first"], dtype=u.dtype), u)
    for i, t in enumerate(raw["t"][:-1]):  # the method by hand, from the file
        past.insert(0, batch.eps(u, t))
        u = torch.einsum("de,be...->bd...", torch.tensor(raw["Psi"][i], dtype=u.dtype), u)
        for lag, eps in enumerate(past[:3]):
            u = u + torch.einsum("de,be...->bd...", torch.tensor(raw["C"][i][lag], dtype=u.dtype), eps)
    assert (u - final_state(multistep(batch.eps, batch.start, found))).abs().max() < 1e-12


def test_hostile_files_are_refused_in_one_line(tmp_path: Path) -> None:
    c = gddim_coefficients(CLD(), power_grid(1.0, 1e-3, 3), 2)
    path = tmp_path / "solver.json"
    good = msgspec.json.encode(solver_of(c))
    raw = json.loads(good)
    wrong = [
        {"t": [1.0, 0.5, 0.6, 0.1]}, {"t": [1.0]}, {"t": [3.0, 2.0, 1.0, -1.0]}, {"nfe": 4}, {"nfe": 10**9}, {"Psi": []},
        {"Psi": [[1.0]]}, {"C": raw["C"][:2]}, {"C": [[[["a"]]]]}, {"last": [[1.0]]}, {"prediction": [1]}, {"k": "Q"},
        {"format": "gddim solver 2"}, {"surprise": 1}, {"Psi": [[[1e300, 0.0], [0.0, 1.0]]] * 3},
        {"C": [[[[1.0, 2.0], [3.0]]] * 3] * 3}, {"t_start": 0.5}, {"first": [[1.0]]}, {"Psi": [[[{}, 0.0], [0.0, 1.0]]] * 3},
    ]  # fmt: skip
    texts = [json.dumps({**raw, **change}).encode() for change in wrong]
    texts += [b"", b"[]", b"[" * 100_000, good.replace(b"1.0", b"NaN", 1), good.replace(b"1.0", b"1e999", 1)]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(DataError) as caught:
            read_solver(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    for text in damaged(good, 300):
        path.write_bytes(text)
        try:
            read_solver(path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
    with pytest.raises(DataError, match="cannot be read"):
        read_solver(tmp_path / "missing.json")


def test_the_example_is_no_toy() -> None:
    """A mixture has no exact linear solver, so the search has something to do."""
    assert len(example_mixture().means) > 1
    family, theta, batch = mixture_family(CLD())
    assert rmse([batch], family.coefficients(theta)) > 1e-4
