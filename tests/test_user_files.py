"""A model, a sampler and a diffusion from Python files of the user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support import OWN_DIFFUSION

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


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:.*quantize:UserWarning")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('oops')", "bad.py: the network raised KeyError: 'oops' (line 4)"),
        ("raise SystemExit(0)", "bad.py: the network raised SystemExit: 0 (line 4)"),
        ("return None", "the network returned NoneType for images [2, 1, 8, 8]"),
        ("return y[..., :4]", "the network returned [2, 1, 8, 4], float32 for images [2, 1, 8, 8]"),
        ("return y + 0j", "the network returned [2, 1, 8, 8], complex64"),
        ("return y > 0", "the network returned [2, 1, 8, 8], bool"),
        ("return y.long()", "the network returned [2, 1, 8, 8], int64"),
        ("return y.to(torch.float8_e5m2)", "the network returned [2, 1, 8, 8], float8_e5m2"),
        ("return y.to('meta')", "the network returned a tensor without data (device meta) for images [2, 1, 8, 8]"),
        ("return y.to_sparse()", "the network returned a tensor of layout sparse_coo"),
        ("return torch.nested.nested_tensor([*y])", "the network returned a nested tensor"),
        ("return torch.quantize_per_tensor(y, 0.1, 0, torch.qint8)", "the network returned a quantized tensor"),
        ("return y.as_subclass(type('Own', (torch.Tensor,), {}))", "the network returned Own for images"),
        ("return y * float('nan')", "2 of 2 images of a batch are not finite"),
    ],
)
def test_networks_that_fail(gddim, tmp_path: Path, body: str, message: str) -> None:
    text = f"import torch\nimport gddim_cli as gddim\ndef f(y, sigma):\n    {body}\n\n"
    (tmp_path / "bad.py").write_text(f"{text}def build():\n    return gddim.Denoiser(f, (1, 8, 8), 0.001, 300)\n")
    words = ("--checkpoint", f"{tmp_path / 'bad.py'}:build", "--nfe", 3)
    result = gddim("sample", *words, "--num", 2, "--out", tmp_path / "imgs")
    assert (result.status, message in result.err) == (1, True), result.err
    assert result.err.count("gddim: ") == 1
    assert gddim("tune", *words, "--num", 4, "--out", tmp_path / "solver.json").status == 1


@pytest.mark.parametrize("place", ["top", "build", "network"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise Odd('boo')", "raised Odd: boo (line 8)"),
        ("raise asyncio.CancelledError", "raised CancelledError (line 8)"),
        (
            "raise BaseExceptionGroup('several', [SystemExit(1)])",
            "raised BaseExceptionGroup: several (1 sub-exception)",
        ),
        ("raise Silent", "raised Silent (line 8)"),
    ],
)
def test_errors_of_every_class_are_one_line(gddim, tmp_path: Path, place: str, code: str, message: str) -> None:
    lines = {"top": "if True:", "build": "def build():", "network": "def network(y, sigma):"}
    path = tmp_path / "bad.py"
    path.write_text(
        "import asyncio\nimport gddim_cli as gddim\nclass Odd(BaseException): pass\nclass Silent(RuntimeError):\n"
        f"    def __str__(self): raise self\n\n{lines[place]}\n    {code}\n"
        + "def build():\n    return gddim.Denoiser(network, (1, 8, 8), 0.001, 300)\n"
        * (place == "network")
    )
    result = gddim("sample", "--checkpoint", f"{path}:build", "--nfe", 3, "--num", 2, "--out", tmp_path / "imgs")
    assert (result.status, message in result.last, "Traceback" in result.err) == (1, True, False), result.err


def test_an_interruption_of_a_users_code_stays_one(gddim, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def build():\n    raise KeyboardInterrupt\n")
    words = ("--checkpoint", f"{tmp_path / 'bad.py'}:build", "--nfe", 3, "--num", 2)
    assert gddim("sample", *words, "--out", tmp_path / "imgs").status == 130


def test_what_users_code_prints_does_not_spoil_the_json(gddim, tmp_path: Path) -> None:
    path = tmp_path / "loud.py"
    path.write_text(
        "import gddim_cli as gddim\nprint('top')\ndef f(y, sigma):\n    print('network')\n    return y\n"
        "def build():\n    print('build')\n    return gddim.Denoiser(f, (1, 8, 8), 0.001, 300)\n"
    )
    words = ("--checkpoint", f"{path}:build", "--nfe", 3, "--num", 2, "--json")
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert result.status == 0, result.err
    assert json.loads(result.out)["settings"]
    assert {"top", "build", "network"} <= set(result.err.split())


@pytest.mark.parametrize("place", ["top", "build"])
@pytest.mark.parametrize(
    "change",
    ["set_default_dtype(torch.float16)", "set_default_dtype(torch.float64)", "set_default_device('meta')"],
)
def test_defaults_of_torch_that_a_file_changes_are_restored(gddim, tmp_path: Path, change: str, place: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        f"import torch\nimport gddim_cli as gddim\n{f'torch.{change}' * (place == 'top')}\n"
        "def f(y, sigma):\n    return y * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)\n"
        f"def build():\n    {f'torch.{change}' * (place == 'build')}\n"
        "    return gddim.Denoiser(f, (1, 8, 8), 0.001, 300)\n"
    )
    result = gddim("check", "--checkpoint", f"{path}:build", "--json")
    assert json.loads(result.out)
    assert result.status in (0, 1), result.err
    assert (torch.get_default_dtype(), torch.get_default_device()) == (torch.float32, torch.device("cpu"))


def test_a_network_without_weights_is_refused(gddim, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nimport gddim_cli as gddim\n\ndef build():\n    module = torch.nn.Conv2d(1, 1, 1, device='meta')\n"
        "    return gddim.Denoiser(module, (1, 8, 8), 0.001, 300)\n"
    )
    words = ("--checkpoint", f"{tmp_path / 'own.py'}:build", "--nfe", 3)
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert (result.status, "own.py: moving the network to cpu raised" in result.last) == (1, True), result.err


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
        "own.py: ((prepare )?raised|running it failed: SamplerSpec: title is 5, not a text)|prepare returned int",
        result.err,
    )
    assert result.err.count("gddim: ") == 1


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        ("lambda *_: None", "solve returned NoneType, not an iterator of steps"),
        ("lambda *_: iter([])", "solve yielded no step"),
        ("multistep_sampler(dataclasses.replace(found, C=found.C * 1j), options).solve", ""),
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
    expected = f"sampler stretched: {message}" if message else "a matrix or a time is complex; real numbers are needed"
    assert (result.status, expected in result.err) == (1, True), result.err
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("T = 1.0", "T = 10**400", "T = inf: the name must be"),
        ("D = 1", "D = 10**400", "D = inf, T = 1: the name must be"),
        ('"own"', "'\\ud800'", "the name must be a str of 1 to 100 printable characters"),
        ('"own"', "'x' * 10**6", "the name must be a str of 1 to 100 printable characters"),
        ('"own"', "type('S', (str,), {})('q')", "the name must be a str of 1 to 100 printable characters"),
        ("t_start=1.0", "t_start=10**400", "t_start and t_end must be finite numbers"),
        ("t_start=1.0", "t_start=10**5000", "sampling raised ValueError: Exceeds the limit"),
        ("t_start=1.0", "t_start=Fraction(1, 1)", "t_start and t_end must be finite numbers"),
        (
            "np.eye(1)",
            "np.eye(1, dtype='>f8')",
            "prior_factor raised TypeError: an array of float64 is needed, not of >f8",
        ),
        ("np.eye(1)", "np.eye(1) * float('nan')", "prior_factor is not finite"),
        (
            "np.zeros((1, 1))",
            "np.zeros((1, 1), np.longdouble)",
            "Sigma_0 raised TypeError: an array of float64 is needed",
        ),
        (
            "2 * np.ones((*np.shape(t), 1, 1))",
            "np.ones((*np.shape(t), 1, 1), np.float16)",
            "GG raised TypeError: an array of",
        ),
        ("return 2", "return 0", "Sigma_t is singular at t = 1"),
        ("return 2", "return 1e300", "has no noise level that float32 can hold"),
        ("np.zeros((1, 1))", "np.eye(1) * 1e300", "has no noise level that float32 can hold"),
    ],
)
def test_diffusions_that_are_none(gddim, tiny: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"from fractions import Fraction\n{OWN_DIFFUSION}".replace(old, new, 1))
    result = gddim(
        "sample", "--checkpoint", tiny, "--diffusion", path, "--nfe", 3, "--num", 2, "--out", tmp_path / "imgs"
    )
    assert (result.status, message in result.err) == (1, True), result.err
    assert result.err.count("\n") == 1
    assert len(result.err) < 2000


def test_a_diffusion_of_ones_own(gddim, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    words = ("sample", "--checkpoint", tiny, "--diffusion", path, "--nfe", 3, "--num", 2)
    for name, matrix in (
        ("double", "np.eye(1)"),
        ("whole", "np.eye(1, dtype=int)"),
        ("single", "np.eye(1, dtype='f')"),
    ):
        path.write_text(f"from fractions import Fraction\n{OWN_DIFFUSION}".replace("np.eye(1)", matrix, 1))
        result = gddim(*words, "--out", tmp_path / name)
        assert result.status == 0, result.err


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
