"""`gddim check`, `gddim samplers`, `gddim diffusions`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "examples" / "third_order_langevin.py"

MINE = '''
import numpy as np
from gddim_cli.diffusions.base import Diffusion

class Mine(Diffusion):
    """A VP whose rate is constant, given by its four members."""
    name = "mine"
    D = 1
    rate = 5.0
    def F(self, t):
        return np.full((*np.shape(t), 1, 1), -self.rate)
    def GG(self, t):
        return np.full((*np.shape(t), 1, 1), 2 * self.rate)
    @property
    def Sigma_0(self):
        return np.zeros((1, 1))
    @property
    def prior_factor(self):
        return np.ones((1, 1))
'''
WRONG = MINE + "    def Psi(self, t, s):\n        return np.exp(-4.9 * (np.asarray(t) - s))[..., None, None]\n"
NUMBER_OF_CHECKS = 11


def test_a_diffusion_of_ones_own_passes(gddim, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    result = gddim("check", tmp_path / "mine.py", "--json")
    assert result.status == 0, result.err
    rows = json.loads(result.out)
    assert len(rows) == NUMBER_OF_CHECKS
    assert all(row["passed"] and row["message"] == "" and row["value"] is not None for row in rows)
    assert result.err.startswith("mine: rate=5.0\n")  # not an object at an address


def test_a_closed_form_that_is_wrong_fails(gddim, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    result = gddim("check", tmp_path / "wrong.py")
    assert result.status == 1
    assert "FAILED" in result.out
    assert "Psi(s, s) = I: Psi does not solve dPsi/dt = F Psi" in result.out
    assert "checks failed" in result.err


def test_a_prior_that_is_not_reached_is_told_in_words(gddim, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("name: cld\nbeta_0: 1\n")
    result = gddim("check", tmp_path / "slow.yaml", "--json")
    assert result.status == 1
    failed = {row["check"]: row["message"] for row in json.loads(result.out) if not row["passed"]}
    assert len(failed) == 2
    assert "41% of the image is left" in failed["what is left of the image at t_start, relative to the noise"]
    assert "67% to 100% of the prior's" in failed["Sigma(t_start) against the prior's covariance"]


def test_parameters_from_yaml(gddim, tmp_path: Path) -> None:
    (tmp_path / "fast.yaml").write_text("name: psld\nGamma: 0.02\nnu: 4.02\n")
    result = gddim("check", tmp_path / "fast.yaml")
    assert result.status == 0, result.out
    assert "Gamma=0.02" in result.err


def test_a_diffusion_in_frequency_space_is_tested_on_few_pixels(gddim) -> None:
    result = gddim("check", "bdm")
    assert result.status == 0, result.out
    assert "tested on 4x4 pixels, at three frequencies" in result.err


def test_progress_is_shown(gddim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddim_cli.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    result = gddim("check", "vp")
    assert f"1/{NUMBER_OF_CHECKS} checks" in result.err
    assert "dSigma/dt" in result.err


def test_the_example_of_the_documentation(gddim, tiny: Path, tmp_path: Path) -> None:
    """Third-order Langevin dynamics: tested, and sampled with any denoiser."""
    result = gddim("check", EXAMPLE)
    assert result.status == 0, result.out
    assert "third-order-langevin: beta=11.0, variance=0.04, eps=1e-06" in result.err
    call = ["sample", "--checkpoint", tiny, "--diffusion", EXAMPLE, "--nfe", 8, "--num", 3, "--out", tmp_path / "i"]
    assert gddim(*call).status == 0
    assert len(list((tmp_path / "i").glob("0*.png"))) == 3
    run = json.loads((tmp_path / "i" / "run.json").read_text())
    assert "third-order-langevin" in json.dumps(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cdl", None, "there is no diffusion 'cdl'; did you mean 'cld'?"),
        ("none.py", None, "none.py: no such file"),
        ("none.yaml", None, "none.yaml: cannot be read"),
        ("a.yaml", "- cld\n", "a mapping with 'name' and parameters is needed"),
        ("b.yaml", "name: cld\nm_inv: 0\n", "b.yaml: diffusion cld: m_inv: 0: expected a number above 0"),
        ("c.yaml", "name: cld\nbeta_0: fast\n", "beta_0: 'fast': expected a number from 0 to 1e+06"),
        ("d.yaml", "name: cld\nbeta: 1\n", "no parameter 'beta'"),
        ("e.py", "x = (", "e.py: running it raised SyntaxError"),
        ("f.py", "x = 1\n", "f.py: defines 0 subclasses of Diffusion; exactly one is needed"),
        ("g.py", "import no_such_module\n", "g.py: running it raised ModuleNotFoundError"),
        ("h.py", "raise SystemExit\n", "h.py: running it raised SystemExit"),
        ("i.py", "import sys\nsys.exit(0)\n", "i.py: running it raised SystemExit: 0"),
        ("j.py", "{}['x']\n", "j.py: running it raised KeyError: 'x'"),
        ("k.py", "int('x')\n", "k.py: running it raised ValueError"),
        ("l.py", MINE.replace("np.ones((1, 1))", "{}['x']"), "l.py: prior_factor raised KeyError: 'x'"),
        (
            "m.py",
            MINE + "    def __init__(self):\n        raise ValueError('no')\n",
            "m.py: Mine() raised ValueError: no",
        ),
        ("n.py", MINE + "    def __init__(self, rate):\n        pass\n", "n.py: Mine() raised TypeError"),
        ("o.py", MINE.replace("-self.rate)", "np.nan)"), "o.py: F is not finite at some time between 0 and T = 1"),
        ("p.py", MINE.replace("np.zeros((1, 1))", "np.zeros(1)"), "p.py: Sigma_0 has shape [1]; [D, D] with D = 1"),
        (
            "q.py",
            MINE.replace("(*np.shape(t), 1, 1), 2", "(1, 1), 2"),
            "GG of times of shape [32] has shape [1, 1]; [32, 1, 1]",
        ),
        ("r.py", MINE.replace('    name = "mine"\n', ""), "r.py: the class needs 'name', a text"),
        ("s.py", MINE.replace("    D = 1\n", "    D = True\n"), "s.py: the class needs 'D', a whole number"),
        (
            "t.py",
            MINE.replace("    def GG", "    def G"),
            "t.py: Mine() raised TypeError: Can't instantiate abstract class",
        ),
        ("u.py", MINE + MINE.replace("class Mine", "class Other"), "defines 2 subclasses of Diffusion (Mine, Other)"),
        ("v.py", MINE.replace("-self.rate)", "1j)"), "v.py: F raised TypeError: an array of real numbers is needed"),
        (
            "w.py",
            MINE.replace("    rate", "    T = 0.5\n    rate"),
            "t_start: 1 is not between 0 and 0.5, where mine ends",
        ),
        ("x.py", MINE.replace("-self.rate)", "-self.rates[t])"), "x.py: F raised AttributeError"),
    ],
)
def test_refusals(gddim, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    result = gddim("check", path if "." in name else name)
    assert result.status in (1, 2)
    assert message in result.err
    assert result.err.count("\n") == 1 or name == "w.py"  # one line; there the name of the diffusion comes before
    assert result.out == ""


def test_what_there_is(gddim) -> None:
    samplers = {row["name"]: row for row in json.loads(gddim("samplers", "--json").out)}
    others = {"edm", "dpm++2m", "dpm++3m", "unipc", "deis", "ipndm", "tuned"}
    assert set(samplers) == {"gddim", "em", "heun", "rk45", "sscs", "ddim", "ancestral"} | others
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
