"""A denoiser is never asked for noise levels that it does not know."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import gddim_cli as gddim
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.runs.noise_range import sigma_eff
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest

CASES = [CLD(), CLD(beta_0=8.0), VP(), VE(), PSLD()]


def recorded(levels: list[float]):
    """The best denoiser of N(0, 0.25), which keeps the noise levels that it is asked for."""

    def denoise(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.extend(sigma.tolist())
        return y * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)

    return denoise


@pytest.mark.parametrize("diffusion", CASES, ids=repr)
@pytest.mark.parametrize("sampler", ["gddim", "em", "heun"])
def test_levels_stay_within_the_range_and_reach_its_ends(diffusion, sampler: str) -> None:
    levels: list[float] = []
    model = gddim.Denoiser(recorded(levels), (1, 2, 2), sigma_min=0.02, sigma_max=40.0)
    made = gddim.Sampler(model, nfe=41, num=2, diffusion=diffusion, sampler=sampler, denoise=True)
    _, states = gddim.sample(
        model, nfe=41, num=2, diffusion=diffusion, sampler=sampler, denoise=True, return_states=True
    )
    assert np.isfinite(states).all()
    assert 0.02 * (1 - 1e-5) <= min(levels) <= max(levels) <= 40.0 * (1 + 1e-5)
    for t, limit in ((made.request.t_start, 40.0), (made.request.t_end, 0.02)):
        natural = diffusion.sampling.t_start if limit == 40.0 else diffusion.sampling.t_end
        assert t == natural or sigma_eff(diffusion, t) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("diffusion", CASES, ids=repr)
def test_a_later_start_still_samples_the_data(diffusion) -> None:
    model = gddim.Denoiser(recorded([]), (1, 8, 8), sigma_min=0.001, sigma_max=30.0)
    _, states = gddim.sample(model, nfe=80, num=64, diffusion=diffusion, return_states=True)
    assert states[:, 0].std() == pytest.approx(0.5, rel=0.03)


def test_the_bundled_recipe_reaches_what_its_diffusions_ask_for_but_not_beta_8() -> None:
    for diffusion in (CLD(), VP(), VE(), PSLD()):
        assert not gddim.Sampler("mnist", nfe=5, diffusion=diffusion)._prepared.notes
    prepared = gddim.Sampler("mnist", nfe=5, diffusion=CLD(beta_0=8.0))._prepared
    assert "noise level 260, the highest that the model supports (instead of 3.8" in prepared.notes[0]
    assert prepared.request.t_start == pytest.approx(0.51, abs=0.02)


def test_the_run_records_the_noise_levels(gddim_command, golden_file, tmp_path) -> None:
    """Those at which sampling starts and ends; none for a network that predicts its own diffusion's noise."""

    def recorded_levels(*words: object) -> list[float] | None:
        done = gddim_command("sample", "--nfe", 3, "--num", 1, "--device", "cpu", "--json", *words)
        assert done.status == 0, done.err
        return json.loads(done.out)["noise_levels"]

    edm = golden_file("edm_small_vp.pkl")
    assert recorded_levels("--checkpoint", "mnist", "--out", tmp_path / "own") == pytest.approx(
        [247.6, 0.001207], rel=1e-3
    )
    low, high = gddim.load_model(str(edm), device="cpu").sigma_range
    for diffusion in ("cld", "ve"):
        levels = recorded_levels("--checkpoint", edm, "--diffusion", diffusion, "--out", tmp_path / diffusion)
        assert levels == pytest.approx([min(high, levels[0]), max(low, levels[1])])
    released = golden_file("ncsnpp_small_scoresde.pth")
    assert recorded_levels("--checkpoint", released, "--out", tmp_path / "released") is None


def test_a_range_that_the_diffusion_does_not_meet_is_refused() -> None:
    model = gddim.Denoiser(recorded([]), (1, 2, 2), sigma_min=100.0, sigma_max=200.0)
    with pytest.raises(gddim.GddimError, match="the model supports noise levels 100 to 200, but ve from t = 1"):
        gddim.sample(model, nfe=5, num=1, diffusion=VE())


def test_a_resolved_request_prepares_the_same_run() -> None:
    model = gddim.Denoiser(recorded([]), (1, 4, 4), sigma_max=30.0)
    first = prepare(SamplingRequest(nfe=7), torch.device("cpu"), model=model)
    again = prepare(first.request, torch.device("cpu"), model=model)
    assert again.request == first.request
    assert torch.equal(again.run([0, 1]), first.run([0, 1]))
