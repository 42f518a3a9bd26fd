"""A model, a sampler and a diffusion from Python files of the user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import gddim_cli
from gddim_cli.runtime.user_file import LOADED
from gddim_cli.samplers.registry import SAMPLERS

MODEL = """
import torch
import gddim_cli as gddim

class Shrink(torch.nn.Module):
    def forward(self, y, sigma):
        return y * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)

def build(side=4):
    return gddim.Denoiser(Shrink(), image_shape=(3, int(side), 5), sigma_min=0.001, sigma_max=300.0)

def pair():
    return Shrink(), {"image_shape": (3, 4, 5), "prediction": "denoiser", "sigma_min": 0.001, "sigma_max": 300.0}

def wrong_pair():
    return Shrink(), {"image_shape": (3, 4, 5), "prediction": "denoizer"}

def number():
    return 5

def broken():
    raise KeyError("weights")
"""
SAMPLER = """
import dataclasses
from typing import Annotated
import msgspec
import gddim_cli as gddim

class Options(msgspec.Struct, frozen=True, kw_only=True):
    stretch: Annotated[float, gddim.about("Stretch of each step.", ge=0, le=1)] = 0.0

def prepare(diffusion, config, budget, options):
    from gddim_cli.samplers.base import multistep_sampler, time_grid
    from gddim_cli.samplers.em import em_coefficients
    found = em_coefficients(diffusion, time_grid(diffusion, config, budget, budget), 0.0, config.k, config.denoise)
    return multistep_sampler(dataclasses.replace(found, C=found.C * (1 + options.stretch)), options)

SPEC = gddim.SamplerSpec(
    name="stretched", title="Stretched", order="1", source="mine",
    prepare=prepare, options=Options,
)
"""


@pytest.fixture
def files(tmp_path: Path):
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "own.py").write_text(SAMPLER)
    yield tmp_path
    SAMPLERS.remove("stretched")
    LOADED.clear()


def test_a_model_of_ones_own(gddim, files: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", f"{files / 'mine.py'}:build", "--nfe", 6, "--num", 3, "--set", "side=6", "--json")
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert result.status == 0, result.err
    settings = json.loads(result.out)["settings"]
    assert len(settings["checkpoint_sha256"]) == 64
    model = gddim_cli.load_model(f"{files / 'mine.py'}:build", device="cpu", side=6)
    assert model.image_shape == (3, 6, 5)
    assert gddim_cli.sample(model, nfe=6, num=3).shape == (3, 6, 5, 3)
    small, pair = (gddim_cli.load_model(f"{files / 'mine.py'}:{name}", device="cpu") for name in ("build", "pair"))
    np.testing.assert_array_equal(gddim_cli.sample(pair, nfe=6, num=3), gddim_cli.sample(small, nfe=6, num=3))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine.py:none", "mine.py: defines no function 'none'"),
        ("mine.py:number", "number() returned int; expected a gddim.Denoiser"),
        (
            "mine.py:wrong_pair",
            "Denoiser with the arguments from wrong_pair() failed: prediction: there is no parameterization 'denoizer'",
        ),
        ("mine.py:broken", "broken() raised KeyError: 'weights'"),
        ("absent.py:build", "absent.py: no such file"),
    ],
)
def test_models_that_are_none(gddim, files: Path, tmp_path: Path, reference: str, message: str) -> None:
    result = gddim("sample", "--checkpoint", files / reference, "--nfe", 5, "--out", tmp_path / "imgs")
    assert result.status == 1
    assert message in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('oops')", "bad.py: the network raised KeyError: 'oops' (line 4)"),
        ("raise SystemExit(0)", "bad.py: the network raised SystemExit: 0 (line 4)"),
        ("return None", "the network returned NoneType for images [2, 1, 8, 8]"),
        ("return y[..., :4]", "the network returned [2, 1, 8, 4], float32 for images [2, 1, 8, 8]"),
        ("return y + 0j", "the network returned [2, 1, 8, 8], complex64"),
        ("return y * float('nan')", "2 of 2 images of a batch are not finite"),
    ],
)
def test_networks_that_fail(gddim, tmp_path: Path, body: str, message: str) -> None:
    text = f"import gddim_cli as gddim\n\ndef f(y, sigma):\n    {body}\n\n"
    (tmp_path / "bad.py").write_text(f"{text}def build():\n    return gddim.Denoiser(f, (1, 8, 8), 0.001, 300)\n")
    words = ("--checkpoint", f"{tmp_path / 'bad.py'}:build", "--nfe", 3)
    result = gddim("sample", *words, "--num", 2, "--out", tmp_path / "imgs")
    assert (result.status, message in result.err) == (1, True), result.err
    assert result.err.count("gddim: ") == 1
    assert gddim("tune", *words, "--num", 4, "--out", tmp_path / "solver.json").status == 1


def test_a_file_without_its_function(gddim, files: Path, tmp_path: Path) -> None:
    result = gddim("sample", "--checkpoint", files / "mine.py", "--out", tmp_path / "imgs")
    assert (result.status, "mine.py:FUNCTION" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    found = em", "    raise SystemExit(0)\n    found = em"),
        ("    found = em", "    1 / 0\n    found = em"),
        ("    return multistep", "    return 5\n    return multistep"),
        ('title="Stretched"', "title=5"),
    ],
)
def test_samplers_that_fail(gddim, tiny: Path, files: Path, tmp_path: Path, old: str, new: str) -> None:
    path = files / "own.py"
    path.write_text(SAMPLER.replace(old, new))
    result = gddim(
        "sample", "--checkpoint", tiny, "--sampler", path, "--nfe", 4, "--num", 2, "--out", tmp_path / "imgs"
    )
    assert result.status == 1
    assert re.search(
        "own.py: (raised|running it failed: SamplerSpec: title is 5, not a text)|prepare returned int", result.err
    )
    assert result.err.count("gddim: ") == 1


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        ("lambda *_: None", "solve returned NoneType, not an iterator of steps"),
        ("lambda *_: iter([])", "solve yielded no step"),
        ("lambda *_: iter([(0.5, None)])", "solve must yield pairs of a time and states of shape [2, 2, 1, 8, 8]"),
        ("lambda eps, u, draw: iter([(0.5, u[:1])])", "solve must yield pairs of a time and states"),
        ("lambda eps, u, draw: iter([u])", "solve must yield pairs of a time and states"),
    ],
)
def test_samplers_with_wrong_steps(gddim, tiny: Path, files: Path, tmp_path: Path, solve: str, message: str) -> None:
    path = files / "own.py"
    made = "return dataclasses.replace(multistep_sampler(found, options), solve={})"
    path.write_text(SAMPLER.replace("return multistep_sampler(", f"{made.format(solve)}\n    (", 1))
    words = ("--checkpoint", tiny, "--sampler", path, "--nfe", 4, "--num", 2)
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert (result.status, f"sampler stretched: {message}" in result.err) == (1, True), result.err
    assert result.err.count("gddim: ") == 1


@pytest.mark.parametrize(
    ("sampling", "message"),
    [("t_end='x'", "t_end='x'"), ("t_start=True", "t_start=True"), ("k='Q'", "k='Q'"), ("denoise=3", "denoise=3")],
)
def test_diffusions_sampled_in_no_way(gddim, tmp_path: Path, sampling: str, message: str) -> None:
    path = tmp_path / "own.py"
    text = "from gddim_cli.diffusions.vp import VP\nfrom gddim_cli.diffusions.base import SamplingConfig\n\n"
    path.write_text(f"{text}class Own(VP):\n    sampling = SamplingConfig({sampling})\n")
    result = gddim("coefficients", "--nfe", 3, "--diffusion", path)
    assert (result.status, f"{path}: sampling = " in result.err, message in result.err) == (1, True, True), result.err


def test_a_generator_exit_of_a_users_code_is_an_error_like_any_other(gddim, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from gddim_cli.diffusions.vp import VP\n\nclass Own(VP):\n    def F(self, t): raise GeneratorExit\n"
    )
    result = gddim("coefficients", "--nfe", 3, "--diffusion", path)
    assert (result.status, "own.py: F raised GeneratorExit (line 4)" in result.err) == (1, True), result.err


def test_a_sampler_of_ones_own(gddim, tiny: Path, files: Path, tmp_path: Path) -> None:
    path = files / "own.py"
    words = ("--checkpoint", tiny, "--sampler", path, "--stretch", 0.5, "--nfe", 4, "--num", 2, "--json")
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert result.status == 0, result.err
    settings = json.loads(result.out)["settings"]
    assert (settings["sampler"], settings["options"]) == ("stretched", {"stretch": 0.5})
    assert len(settings["sampler_sha256"]) == 64
    assert "--stretch" in gddim("sample", "--sampler", path, "--help").out
    model = gddim_cli.load_model(str(tiny), device="cpu")
    euler = gddim_cli.sample(model, nfe=4, num=2, sampler="em", lam=0.0)
    np.testing.assert_array_equal(gddim_cli.sample(model, nfe=4, num=2, sampler=str(path)), euler)
    refused = gddim("sample", "--checkpoint", tiny, "--sampler", path, "--stretch", 2, "--out", tmp_path / "no")
    assert "--stretch: 2: expected a number from 0 to 1" in refused.err


def test_samplers_that_are_none(gddim, files: Path, tmp_path: Path) -> None:
    (files / "none.py").write_text("x = 1\n")
    result = gddim("sample", "--sampler", files / "none.py", "--out", tmp_path / "imgs")
    assert (result.status, "defines 0 samplers; exactly one SamplerSpec is needed" in result.err) == (1, True)
    (files / "exit.py").write_text("raise SystemExit\n")
    result = gddim("sample", "--sampler", files / "exit.py", "--out", tmp_path / "imgs")
    assert (result.status, "raised SystemExit" in result.err) == (1, True)


@pytest.mark.parametrize("text", ["side", "=5", "side=4=", "side=4,side=5"])
def test_settings_of_a_checkpoint(gddim, files: Path, tmp_path: Path, text: str) -> None:
    words = [word for part in text.split(",") for word in ("--set", part)]
    result = gddim(
        "sample", "--checkpoint", f"{files / 'mine.py'}:build", *words, "--nfe", 5, "--out", tmp_path / "imgs"
    )
    assert result.status in (1, 2)
    assert result.err.count("\n") == 1


def test_precision_of_a_network_of_ones_own(gddim, tmp_path: Path) -> None:
    text = "import torch\nimport gddim_cli as gddim\n\nclass Own(torch.nn.Module):\n    def __init__(self):\n"
    text += "        super().__init__()\n        self.weight = torch.nn.Parameter(torch.tensor(0.5))\n\n"
    text += "    def forward(self, y, sigma):\n        assert y.dtype == self.weight.dtype\n        return y * self.weight\n\n"
    (tmp_path / "own.py").write_text(f"{text}def build():\n    return gddim.Denoiser(Own(), (1, 8, 8), 0.001, 300.0)\n")
    words = (
        "sample",
        "--checkpoint",
        f"{tmp_path / 'own.py'}:build",
        "--nfe",
        3,
        "--num",
        2,
        "--out",
        tmp_path / "imgs",
    )
    for option in ("--dtype=bfloat16", "--compile"):
        refused = gddim(*words, option)
        assert (refused.status, "do not apply to a network of your own" in refused.err) == (2, True), refused.err
    result = gddim(*words, "--dtype", "float64", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["settings"]["dtype"] == "float64"
