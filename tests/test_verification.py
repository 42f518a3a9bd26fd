"""`gddim check`, `gddim samplers`, `gddim diffusions`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MINE = '''
from dataclasses import dataclass
import numpy as np
from gddim_cli.diffusions.base import Diffusion

@dataclass(frozen=True)
class Mine(Diffusion):
    """A VP whose rate is constant, given by its four essentials."""
    name = "mine"
    D = 1
    def F(self, t):
        return np.full((*np.shape(t), 1, 1), -3.0)
    def GG(self, t):
        return np.full((*np.shape(t), 1, 1), 6.0)
    @property
    def Sigma_0(self):
        return np.zeros((1, 1))
    @property
    def prior_factor(self):
        return np.ones((1, 1))
'''
WRONG = MINE + "    def Psi(self, t, s):\n        return np.exp(-2.9 * (np.asarray(t) - s))[..., None, None]\n"


@pytest.mark.slow
def test_a_diffusion_of_ones_own_passes(gddim, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    result = gddim("check", tmp_path / "mine.py", "--json")
    assert result.status == 0, result.err
    rows = json.loads(result.out)
    assert len(rows) == 9
    assert all(row["passed"] for row in rows)


@pytest.mark.slow
def test_a_closed_form_that_is_wrong_fails(gddim, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    result = gddim("check", tmp_path / "wrong.py")
    assert result.status == 1
    assert "FAILS" in result.out
    assert "checks fail" in result.err


@pytest.mark.slow
def test_parameters_from_yaml(gddim, tmp_path: Path) -> None:
    (tmp_path / "fast.yaml").write_text("name: psld\nGamma: 0.02\nnu: 4.02\n")
    result = gddim("check", tmp_path / "fast.yaml")
    assert result.status == 0, result.out
    assert "Gamma=0.02" in result.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cdl", None, "there is no diffusion 'cdl'; did you mean 'cld'?"),
        ("bdm", None, "bdm differs by frequency"),
        ("none.py", None, "none.py: no such file"),
        ("none.yaml", None, "none.yaml: cannot be read"),
        ("a.yaml", "- cld\n", "a mapping with 'name' and parameters is needed"),
        ("b.yaml", "name: cld\nm_inv: 0\n", "m_inv: 0 is not above 0"),
        ("c.yaml", "name: cld\nbeta_0: fast\n", "beta_0: 'fast' is not a number"),
        ("d.yaml", "name: cld\nbeta: 1\n", "no parameter 'beta'"),
        ("e.py", "x = (", "cannot be run: SyntaxError"),
        ("f.py", "x = 1\n", "defines 0 diffusions, one class is needed"),
        ("g.py", "import no_such_module\n", "cannot be run: ModuleNotFoundError"),
    ],
)
def test_refusals(gddim, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    result = gddim("check", path if "." in name else name)
    assert result.status in (1, 2)
    assert message in result.err
    assert result.out == ""


def test_what_there_is(gddim) -> None:
    samplers = {row["name"]: row for row in json.loads(gddim("samplers", "--json").out)}
    assert set(samplers) == {"gddim", "em", "heun", "rk45", "sscs", "ddim", "ancestral"}
    assert "--corrector" in samplers["gddim"]["options"]
    diffusions = {row["name"]: row for row in json.loads(gddim("diffusions", "--json").out)}
    assert set(diffusions) == {"cld", "vp", "vp-cosine", "ve", "bdm", "psld"}
    assert diffusions["cld"]["parameters"]["beta_0"] == 4.0
    assert "arXiv 2206.05564" in gddim("samplers").out
    assert "parameters" in gddim("diffusions").out


def test_stochastic_coefficients_print_p(gddim, golden: dict) -> None:
    import numpy as np

    out = json.loads(gddim("coefficients", "--nfe", 10, "--lambda", 0.3, "--json").out)
    assert np.shape(out["P"]) == (9, 2, 2)
    assert np.shape(out["C"]) == (9, 1, 2, 2)
    row = next(r for r in golden["stochastic"] if r["lambda"] == 0.3 and r["s"] == 1.0)
    np.testing.assert_allclose(out["P"][0], row["P"], atol=1e-9)
    np.testing.assert_allclose(out["C"][0][0], row["eps"], atol=1e-9)


def test_coloured_noise_is_refused_with_the_reason(gddim, tiny: Path, tmp_path: Path) -> None:
    result = gddim("sample", "--checkpoint", tiny, "--diffusion", "bdm", "--nfe", 5, "--out", tmp_path / "i")
    assert result.status == 2
    assert "noise level differs by frequency" in result.err
