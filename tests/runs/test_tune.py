"""`gddim tune` and `gddim sample --solver`: what is fitted, resumed, found and refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import gddim_cli
from gddim_cli.cli.tune import DEFAULT_SEED
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError
from gddim_cli.hub.load import load
from gddim_cli.hub.store import bundled_folder
from gddim_cli.runs import tune
from gddim_cli.runs.converged import rms_distance
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.solvers import SOLVERS, find_solver
from gddim_cli.runs.tune import Tuning
from gddim_cli.runtime.arrays import write_sealed_array
from gddim_cli.samplers.fitted.solver_file import read_solver
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.registry import find_sampler

CPU = torch.device("cpu")
FEW = ("--nfe", 4, "--num", 8, "--batch-size", 8)


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tune, "REFERENCE_STEPS", {"R": 24, "L": 24})
    monkeypatch.setattr(tune, "SEARCH", 24)
    monkeypatch.setattr(tune, "GRID_SEARCH", 100)


def tuning(checkpoint: Path, nfe: int = 4, num: int = 8, **settings: object) -> Tuning:
    request = SamplingRequest.of({"checkpoint": str(checkpoint), "nfe": nfe, "seed": DEFAULT_SEED, **settings})
    return Tuning(prepare(request, CPU), num, batch_size=4)


@pytest.fixture
def tuned(gddim, tiny: Path, tmp_path: Path) -> Path:
    """A solver file for the tiny checkpoint through CLD at NFE 4."""
    path = tmp_path / "solver.json"
    result = gddim("tune", "--checkpoint", tiny, *FEW, "--out", path)
    assert result.status == 0, result.err
    assert "error on held-out noises: " in result.err
    return path


def test_a_tuned_run_takes_the_budget_and_records_the_solver(gddim, tiny: Path, tuned: Path, tmp_path: Path) -> None:
    solver = read_solver(tuned)
    assert solver.fit.improved
    assert solver.fit.rmse_after < 0.5 * solver.fit.rmse_before
    words = ("sample", "--checkpoint", tiny, "--nfe", 4, "--num", 3, "--out", tmp_path / "imgs", "--json")
    result = gddim(*words, "--solver", tuned)
    assert result.status == 0, result.err
    run = json.loads(result.out)
    assert (run["nfe"], run["settings"]["sampler"]) == (4, "tuned")
    assert run["settings"]["options"] == {"solver": tune.hashlib.sha256(tuned.read_bytes()).hexdigest()}
    assert "sampler: tuned -> gddim" in gddim(*words).err
    # The coefficients of the file, run by the loop of all multistep samplers, make the images.
    images, states = gddim_cli.sample(str(tiny), nfe=4, num=3, solver=str(tuned), return_states=True)
    made = prepare(SamplingRequest.of({"checkpoint": str(tiny), "nfe": 4}), CPU)
    by_hand = final_state(multistep(made.eps, made.start(range(3)), solver.coefficients))
    np.testing.assert_allclose(by_hand.numpy(), states, atol=1e-6)
    assert images.shape == (3, 8, 8, 1)


def test_auto_finds_the_solver_of_the_cache_or_says_what_makes_it(gddim, tiny: Path, tmp_path: Path) -> None:
    words = ("sample", "--checkpoint", tiny, "--num", 1, "--out", tmp_path / "imgs", "--solver", "auto", "--nfe")
    missing = gddim(*words, 4)
    assert missing.status == 2
    assert f"gddim tune --checkpoint {tiny} --nfe 4" in missing.err
    assert gddim("tune", "--checkpoint", tiny, *FEW).status == 0
    assert gddim(*words, 4).status == 0
    run = json.loads((tmp_path / "imgs" / "run.json").read_text())
    resolved = msgspec.convert(run["settings"], SamplingRequest)
    again = prepare(resolved, CPU, model=gddim_cli.load_model(str(tiny)))
    assert again.request.options == run["settings"]["options"]  # a kept file is found by its sha256
    assert "--nfe 5" in gddim(*words, 5).err
    assert not list((tmp_path / "home" / "tune").glob("*/reference*"))


def test_the_same_seed_gives_the_same_file_also_when_interrupted(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    whole = tuning(tiny).solver()
    assert tuning(tiny).solver() == whole  # all from what is kept
    tuning(tiny).forget()
    done = 0

    def interrupt(count: int) -> None:
        nonlocal done
        done += count
        if done > stop:
            raise KeyboardInterrupt

    interrupted, stop = 0, 200
    while True:
        done = 0
        one = tuning(tiny)
        try:
            found = Tuning(one.prepared, one.num, one.batch_size, interrupt).solver()
            break
        except KeyboardInterrupt:
            interrupted += 1
            stop += 200
    assert interrupted > 2
    assert found == whole
    assert tuning(tiny, seed=7).solver() != whole


def test_where_the_search_does_not_win_the_file_holds_the_start(tiny: Path, monkeypatch) -> None:
    def worse(_family, point, *_args):
        return point

    monkeypatch.setattr(tune.descent, "improved", worse)
    fit = tune.closed_form.fit

    def bad(*args):
        found = fit(*args)
        matrices = np.arange(len(found.theta)) >= found.family.free_times
        return replace(found, theta=found.theta + 1e4 * matrices)

    monkeypatch.setattr(tune.closed_form, "fit", bad)
    one = tuning(tiny)
    solver = one.solver()
    assert not solver.fit.improved
    assert solver.fit.rmse_after == solver.fit.rmse_before
    assert solver.last is not None
    found, start = solver.coefficients, one.start
    for name in ("t", "Psi", "C", "last", "prediction"):
        np.testing.assert_array_equal(getattr(found, name), getattr(start, name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nfe", 5), "was fitted to NFE 4, not 5; give --nfe 4"),
        (("--nfe", 4, "--diffusion", "vp"), "was fitted to the diffusion cld"),
        (("--nfe", 4, "--no-denoise"), "give --denoise"),
        (("--nfe", 4, "--t-end", 0.01), "give --t-end 0.001"),
        (("--nfe", 4, "--k", "L"), "give --k R"),
        (("--nfe", 4, "--sampler", "heun"), "--solver: unsupported by heun"),
        (("--nfe", 4, "--order", 2), "--order: unsupported by tuned"),
        (("--nfe", 4, "--time-grid", 2), "--time-grid: tuned chooses its own steps"),
    ],
)
def test_a_solver_of_something_else_is_refused(gddim, tiny: Path, tuned: Path, words, message: str) -> None:
    result = gddim("sample", "--checkpoint", tiny, *words, "--solver", tuned, "--num", 1, "--out", tuned.parent / "i")
    assert result.status == 2
    assert message in result.err
    assert result.err.count("gddim: ") == 1


def test_a_solver_of_another_checkpoint_is_refused(gddim, tuned: Path) -> None:
    result = gddim("sample", "--checkpoint", "mnist", "--nfe", 4, "--solver", tuned, "--out", tuned.parent / "i")
    assert result.status == 2
    assert "was fitted to the checkpoint tiny" in result.err
    assert "gddim tune --checkpoint mnist --diffusion cld --nfe 4" in result.err
    with pytest.raises(UsageError, match="needs the network"):
        find_sampler("tuned").prepare(VP(), VP.sampling, 4, find_sampler("tuned").options())


def test_usage_errors(gddim, tiny: Path, tmp_path: Path) -> None:
    assert "--nfe: is required" in gddim("tune", "--checkpoint", tiny).err
    assert "--nfe: 2000 is above 1000" in gddim("tune", "--nfe", 2000).err
    assert "--num: 1: expected a whole number from 2 to 100000" in gddim("tune", "--nfe", 4, "--num", 1).err
    assert "does not end in .json" in gddim("tune", "--nfe", 4, "--out", tmp_path / "x.txt").err
    (tmp_path / "mine.json").write_text("{}")
    assert "--force" in gddim("tune", "--checkpoint", tiny, *FEW, "--out", tmp_path / "mine.json").err
    solver = gddim(
        "sample", "--checkpoint", tiny, "--nfe", 4, "--solver", tmp_path / "mine.json", "--out", tmp_path / "i"
    )
    assert (solver.status, "not a solver file" in solver.err) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "diffusion"),
    [("ncsnpp_small_flax.msgpack", None), ("ncsnpp_small_cldsgm.pth", None), ("edm_small_ncsnpp_cond.pkl", "cld")],
)
def test_every_parameterization_can_be_tuned(golden_file, name: str, diffusion: str | None, monkeypatch) -> None:
    """eps_R and mixed score in their own diffusion, and a class-conditional denoiser with labels drawn."""
    monkeypatch.setattr(tune, "SEARCH", 6)
    solver = tuning(golden_file(name), 3, 16, diffusion=diffusion).solver()
    assert solver.fit.rmse_after < solver.fit.rmse_before
    assert (solver.fit.classes == "uniform") == ("cond" in name)


def test_a_network_without_a_gradient_is_fitted_in_closed_form(tiny: Path, tmp_path: Path, gddim) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\nimport torch\nimport gddim_cli as gddim\n\ndef network(y, sigma):\n"
        "    return torch.from_numpy(np.tanh(y.numpy() / (1 + sigma[:, None, None, None].numpy())))\n\n"
        "def build():\n    return gddim.Denoiser(network, (1, 8, 8), 0.002, 300)\n"
    )
    result = gddim("tune", "--checkpoint", f"{path}:build", *FEW, "--diffusion", "vp", "--json")
    assert result.status == 0, result.err
    assert "the network has no gradient" in result.err
    assert json.loads(result.out)["improved"]


SHIPPED = [("cld", nfe) for nfe in (5, 8, 10, 15, 20)] + [("vp", 5), ("vp", 10)]


def test_the_solvers_that_ship_belong_to_the_bundled_checkpoint() -> None:
    model, folder = load("mnist", CPU), bundled_folder() / SOLVERS
    names = set()
    for name, nfe in SHIPPED:
        diffusion = make_diffusion(name, {})
        path = find_solver("auto", model, "mnist", diffusion, None, nfe)
        solver = read_solver(path)
        assert (path.parent, solver.checkpoint_sha256, solver.nfe) == (folder, model.sha256, nfe)
        assert solver.fit.improved
        assert solver.fit.rmse_after < 0.75 * solver.fit.rmse_before
        assert path.stat().st_size < 20_000
        names.add(path.name)
    assert names == {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_shipped_solver_is_closer_to_the_converged_images_than_the_paper_s_scheme() -> None:
    """16 images through VP at NFE 5, of a seed that no fit saw."""
    shared = {"diffusion": "vp", "num": 16, "seed": 1000, "return_states": True}
    converged = gddim_cli.sample("mnist", nfe=100, order=3, **shared)[1]
    paper, tuned = (
        rms_distance(gddim_cli.sample("mnist", nfe=5, **shared, **settings)[1], converged)
        for settings in ({"preset": "paper"}, {"solver": "auto"})
    )
    assert tuned < 0.6 * paper


def test_the_default_for_few_evaluations_and_the_paper_s_scheme(gddim, tiny: Path) -> None:
    def resolved(**given: object) -> tuple[object, ...]:
        request = prepare(SamplingRequest.of({"checkpoint": str(tiny), **given}), CPU).request
        return request.options.get("predict"), request.options.get("order"), request.time_grid

    assert resolved(nfe=20) == resolved(nfe=10, diffusion="vp") == ("x0", 2, 1.5)
    assert resolved(nfe=21) == resolved(nfe=10, predict="eps") == resolved(nfe=10, order=2) == ("eps", 2, 2.0)
    assert resolved(nfe=10, time_grid=2.0) == ("eps", 2, 2.0)
    assert resolved(nfe=10, **{"lambda": 0.3}) == ("eps", 0, 2.0)
    paper = gddim_cli.sample(str(tiny), nfe=6, num=2, preset="paper")
    np.testing.assert_array_equal(paper, gddim_cli.sample(str(tiny), nfe=6, num=2, predict="eps"))
    assert "the preset paper has eps" in gddim("sample", "--preset", "paper", "--predict", "x0").err
    assert "there is no preset 'papr'" in gddim("sample", "--preset", "papr").err


def test_a_pipe_is_not_read_as_a_solver(gddim, tiny: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name in (tmp_path / "pipe.json", "/dev/zero"):
        result = gddim("sample", "--checkpoint", tiny, "--nfe", 4, "--solver", name, "--out", tmp_path / "i")
        assert (result.status, f"{name}: cannot be read: not a plain file" in result.err) == (1, True), result.err


def test_damaged_references_are_computed_again(tiny: Path) -> None:
    """A changed number, an array of another shape with and without a checksum, a file cut short, and an empty one."""
    fit = tuning(tiny)
    (first,) = fit.solved(range(4), True)
    exact = np.array(first.states)
    (path,) = fit.folder.glob("reference-*.npy")
    whole = path.read_bytes()
    position = len(whole) // 2
    changed = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
    for content in (changed, whole[:-40], whole[:-32], b""):
        path.write_bytes(content)
        (found,) = fit.solved(range(4), True)
        np.testing.assert_array_equal(found.states, exact)
        assert path.read_bytes() == whole
    for write in (np.save, write_sealed_array):
        write(path, np.zeros((3, 2), np.float32))
        (found,) = fit.solved(range(4), True)
        np.testing.assert_array_equal(found.states, exact)


def test_work_of_an_unfinished_fit_that_is_damaged_is_done_again(tiny: Path) -> None:
    """References exchanged, also between fits, and edited states of both searches: the same solver as without damage."""
    fit = tuning(tiny)
    exact = fit.solver()
    other = tuning(tiny, seed=7)
    other.solver()
    files = sorted(fit.folder.glob("reference-*.npy"))
    whole = {file: file.read_bytes() for file in [*files, fit.folder / "grid.json", fit.folder / "search.json"]}
    for one, two in ((files[0], files[1]), (files[2], files[3]), (files[0], files[2])):
        one.write_bytes(whole[two])
        two.write_bytes(whole[one])
        assert fit.solver() == exact
        assert {file: file.read_bytes() for file in whole} == whole
    for name in ("reference-000000.npy", "grid.json", "search.json"):
        (fit.folder / name).write_bytes((other.folder / name).read_bytes())
        assert fit.solver() == exact
    for name, key, value in (
        ("grid.json", "chosen", [10**6] * 4),
        ("grid.json", "chosen", [0]),
        ("search.json", "best", None),
        ("search.json", "theta", [1.0]),
        ("search.json", "square", [-1.0]),
    ):
        state = json.loads((fit.folder / name).read_text())
        state["value"][key] = value
        (fit.folder / name).write_text(json.dumps(state))
        assert fit.solver() == exact
        assert (fit.folder / name).read_bytes() == whole[fit.folder / name]
