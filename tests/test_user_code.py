"""What users' files and plugins do to the program: exceptions, prints, changed folders and defaults end in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from support import folder_of, pictures

from gddim_cli.errors import GddimError
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.runtime import registry
from gddim_cli.runtime.user_file import LOADED
from gddim_cli.samplers.registry import SAMPLERS

SAMPLER = """
import os, sys
import torch, typer
import gddim_cli as gddim
from gddim_cli.samplers.base import PreparedSampler
{first}

def solve(eps, u, draw):
    {inside}
    yield 0.5, {state}

def prepare(diffusion, config, budget, options):
    return PreparedSampler(nfe={nfe}, steps=1, solve=solve, options={options})

SPEC = gddim.SamplerSpec(name="odd", title="Odd", order="1", source="mine", prepare=prepare)
"""
MODEL = """
import os
import torch
import gddim_cli as gddim

class Shrink(torch.nn.Module):
    def forward(self, y, sigma):
        os.chdir({folder!r})
        return y * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)

def build():
    return gddim.Denoiser(Shrink(), image_shape=(1, 4, 4), sigma_min=0.001, sigma_max=300.0)
"""
METRIC = """
import torch
import gddim_cli as gddim
{first}

def compute(features, reference, options, on_step):
    return {{"value": float(features.mean())}}

SPEC = gddim.MetricSpec("average", "Average", compute, lower_is_better=True, needs_reference=False)
"""


@pytest.fixture
def odd(gddim, tiny: Path, tmp_path: Path):
    """`odd(first=..., inside=..., state=...)`: the result of `gddim sample` with the sampler above."""

    def run(first: str = "", inside: str = "pass", state: str = "u", options: str = "options", nfe: str = "1"):
        path = tmp_path / "odd.py"
        path.write_text(SAMPLER.format(first=first, inside=inside, state=state, options=options, nfe=nfe))
        words = ("--checkpoint", tiny, "--sampler", path, "--nfe", 2, "--num", 2, "--json")
        return gddim("sample", *words, "--out", tmp_path / "imgs")

    yield run
    SAMPLERS.remove("odd")
    METRICS.remove("average")
    LOADED.clear()


@pytest.mark.parametrize(
    "inside",
    ["print('hello')", "sys.stderr = None", "sys.stdout.write('x')"],
)
def test_what_a_sampler_prints_does_not_break_json(odd, inside: str) -> None:
    result = odd(inside=inside)
    assert result.status == 0, result.err
    assert json.loads(result.out)["num"] == 2


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("raise typer.Exit(0)", "raised Exit"),
        ("raise typer.BadParameter('x')", "raised BadParameter: x"),
        ("raise BrokenPipeError", "raised BrokenPipeError"),
        ("raise OSError('x')", "raised OSError: x"),
        ("raise SystemExit(0)", "raised SystemExit: 0"),
        ("raise type('E', (Exception,), {'__traceback__': 5})", "raised E"),
        ("raise type('M', (type,), {'__name__': property(lambda s: 1 / 0)})('E', (Exception,), {})", "raised "),
    ],
)
def test_what_a_sampler_raises_is_one_line(odd, inside: str, message: str) -> None:
    result = odd(inside=inside)
    assert (result.status, result.out) == (1, "")
    (line,) = [line for line in result.err.splitlines() if line.startswith("gddim: ")]
    assert "odd.py: solve " in line
    assert message in line


@pytest.mark.parametrize(
    "state", ["u.to('meta')", "u.to_sparse()", "u.to(torch.float8_e4m3fn)", "u.to(torch.complex64)", "u.int()", "5"]
)
def test_unusual_states_are_refused(odd, state: str) -> None:
    result = odd(state=state)
    assert (result.status, result.err.count("gddim: ")) == (1, 1), result.err
    assert "sampler odd: solve must yield pairs of a time and states of shape [2, 2, 1, 8, 8]" in result.err


@pytest.mark.parametrize(
    ("first", "inside", "message"),
    [
        ("", "pass", "sampler odd: prepare returned a PreparedSampler with nfe = 1j"),
        ("", "eps(u.to(torch.complex64), 0.5)", "odd.py: solve called eps with something other than"),
        ("", "eps(u, 0.5j)", "odd.py: solve called eps with the time 0.5j, which is not a real number"),
        ("", "eps(u, torch.tensor(0.5j))", "odd.py: solve called eps with the time tensor(0.+0.5000j), which is not"),
        ("", "eps(5, 0.5)", "odd.py: solve called eps with something other than"),
        (
            "class Odd(msgspec.Struct):\n    x: object = 1j",
            "pass",
            "sampler odd: its options cannot be recorded as JSON",
        ),
    ],
)
def test_what_a_sampler_passes_on_is_checked(odd, first: str, inside: str, message: str) -> None:
    more = "import msgspec\n" + first + "\nOPTIONS = Odd()" if first else ""
    nfe = "1j" if "nfe" in message else "1"
    result = odd(first=more, inside=inside, options="OPTIONS" if first else "options", nfe=nfe)
    assert (result.status, message in result.err) == (1, True), result.err


def test_a_sampler_that_never_ends_is_stopped(odd) -> None:
    result = odd(inside="while True: yield 0.5, u")
    assert (result.status, "sampler odd: solve has yielded 2000 steps, but prepare said 1" in result.err) == (1, True)


def test_a_network_that_changes_the_folder_moves_no_file(gddim, tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / "other"
    (other / "out").mkdir(parents=True)
    (other / "out" / "grid.png").write_bytes(b"mine")
    (tmp_path / "mine.py").write_text(MODEL.format(folder=str(other)))
    monkeypatch.chdir(tmp_path)
    result = gddim("sample", "--checkpoint", "mine.py:build", "--nfe", 3, "--num", 2, "--out", "out")
    assert result.status == 0, result.err
    assert (other / "out" / "grid.png").read_bytes() == b"mine"
    assert [path.name for path in (other / "out").iterdir()] == ["grid.png"]
    assert (tmp_path / "out" / "manifest.json").exists()
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("first", ["torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')"])
def test_defaults_that_a_file_changes_are_restored(gddim: Callable, odd, tmp_path: Path, first: str) -> None:
    result = odd(first=first)
    assert result.status == 0, result.err
    assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")
    path, digits = tmp_path / "average.py", folder_of(tmp_path / "digits", pictures(20, 28, 1))
    path.write_text(METRIC.format(first=first))
    result = gddim("fid", digits, "--metrics", path, "--json")
    assert result.status == 0, result.err
    assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("(", "SyntaxError"),
        ("raise ValueError('x\\ny')", "ValueError: x"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("print('hello'); import nowhere_at_all", "ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_fails_is_named(tmp_path: Path, monkeypatch, capsys, text: str, message: str) -> None:
    (tmp_path / "bad_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint(name="bad", value="bad_plugin:SPEC", group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    registry.load_plugins.cache_clear()
    try:
        with pytest.raises(GddimError, match=f"plugin bad_plugin:SPEC: cannot be loaded: {message}"):
            registry.load_plugins()
    finally:
        registry.load_plugins.cache_clear()
        sys.modules.pop("bad_plugin", None)
    assert capsys.readouterr().out == ""
