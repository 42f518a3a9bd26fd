"""A package of one's own adds a sampler with an option: the command line, run.json, labels and Python see it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gddim_cli
from gddim_cli.errors import UsageError
from gddim_cli.runtime.registry import PENDING, REGISTRIES, Spec, register
from gddim_cli.samplers.registry import SAMPLERS

TOY = '''
"""Euler's method with steps that are a little too long."""
from typing import Annotated

import msgspec

import gddim_cli as gddim


class ToyOptions(msgspec.Struct, frozen=True, kw_only=True):
    wobble: Annotated[float, gddim.about("How much longer the steps are.", label="wobble {}", ge=0, le=1)] = 0.0


def prepare(diffusion, config, budget, options):
    from gddim_cli.samplers.base import multistep_sampler, time_grid
    from gddim_cli.samplers.em import em_coefficients
    import dataclasses

    found = em_coefficients(diffusion, time_grid(diffusion, config, budget, budget), 0.0, config.k, config.denoise)
    return multistep_sampler(dataclasses.replace(found, C=found.C * (1 + options.wobble)), options)


SPEC = gddim.SamplerSpec(
    name="toy", title="Toy", order="1", source="this test", prepare=prepare,
    options=ToyOptions,
)
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that holds the toy."""
    folder = tmp_path / "site"
    about = folder / "toy_gddim-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "toy_gddim.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-gddim\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gddim.plugins]\ntoy = toy_gddim:SPEC\n")
    return folder


def run(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    root = Path(gddim_cli.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{root}", "COLUMNS": "120"}
    call = [sys.executable, "-m", "gddim_cli", *map(str, words)]
    return subprocess.run(call, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_an_installed_sampler_is_seen_everywhere(site: Path, tiny: Path, tmp_path: Path) -> None:
    assert "--wobble" in run(site, "sample", "--help").stdout
    assert "toy" in run(site, "samplers").stdout
    made = run(site, "sample", "--checkpoint", tiny, "--sampler", "toy", "--wobble", "0.25", "--nfe", 4, "--num", 2,
               "--out", tmp_path / "imgs", "--json")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["settings"]["options"] == {"wobble": 0.25}
    refused = run(site, "sample", "--checkpoint", tiny, "--sampler", "toy", "--wobble", "2", "--out", tmp_path / "no")
    assert "--wobble: 2: expected a number from 0 to 1" in refused.stderr
    refused = run(site, "sample", "--checkpoint", tiny, "--wobble", "0.5", "--out", tmp_path / "no")
    assert "--wobble: unsupported by gddim; an option of toy" in refused.stderr


@pytest.mark.slow
def test_a_benchmark_plan_and_its_table_know_it(site: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "checkpoint: mnist\nref: mnist\nnum: 2\nnfe: 4\n"
        "rows:\n  - {sampler: toy, wobble: [0, 0.5]}\n  - {sampler: em, lambda: 0}\n"
    )
    shown = run(site, "bench", plan, "--print-plan", "--out", tmp_path / "bench")
    assert shown.returncode == 0, shown.stderr
    assert "Toy wobble 0.5" in shown.stdout
    wrong = run(site, "bench", "--sampler", "toy", "--wobble", "0.5,3", "--nfe", 4, "--out", tmp_path / "bench")
    assert "--wobble: 3: expected a number from 0 to 1" in wrong.stderr


def test_a_sampler_registered_in_a_program(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_in_a_program.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = register(importlib.import_module("toy_in_a_program").SPEC)
    try:
        model = gddim_cli.load_model(str(tiny), device="cpu")
        plain = gddim_cli.sample(model, nfe=4, num=2, sampler="em", lam=0.0)
        np.testing.assert_array_equal(gddim_cli.sample(model, nfe=4, num=2, sampler="toy"), plain)
        assert (gddim_cli.sample(model, nfe=4, num=2, sampler="toy", wobble=0.5) != plain).any()
        assert spec.label(spec, spec.options(wobble=0.5), None) == "Toy wobble 0.5"
        with pytest.raises(UsageError, match="there is a sampler 'gddim' already"):
            register(gddim_cli.SamplerSpec(**{**vars(spec), "name": "gddim"}))
    finally:
        SAMPLERS.remove("toy")
    assert "toy" not in SAMPLERS


def test_a_spec_waits_for_its_registry() -> None:
    class Kind(Spec):
        pass

    from gddim_cli.runtime.registry import Registry

    early = register(Kind(name="early"))
    assert early in PENDING
    registry = Registry("kind", Kind, [Kind(name="builtin")])
    try:
        assert list(registry) == ["builtin", "early"]
        assert early not in PENDING
    finally:
        REGISTRIES.remove(registry)
    with pytest.raises(UsageError, match="is not a spec"):
        register("no spec")  # type: ignore[arg-type]
