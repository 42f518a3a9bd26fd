"""The checks pass right diffusions and fail wrong ones, and say what is wrong."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.registry import DIFFUSIONS
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.numerics.quadrature import Array
from gddim_cli.verification import checks
from gddim_cli.verification.checks import CHECKS, Result, Subject, check_order, examine
from gddim_cli.verification.frequencies import parts_to_test

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "examples" / "third_order_langevin.py"


def example_class() -> type[Diffusion]:
    """The class of the example file."""
    spec = importlib.util.spec_from_file_location("third_order_langevin", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.ThirdOrderLangevin


ThirdOrderLangevin = example_class()


def blocks(rows: list[list[ArrayLike]]) -> Array:
    """Matrices [..., D, D] of entries [...]."""
    return np.stack([np.stack(np.broadcast_arrays(*row), -1) for row in rows], -2)


@dataclass(frozen=True)
class Turning(Diffusion):
    """`F(t)` that does not commute with itself at other times; N(0, I) is stationary, and Sigma_0 is not diagonal."""

    name = "turning"
    D = 2
    friction: float = 7.0

    def F(self, t: ArrayLike) -> Array:
        t = np.asarray(t, dtype=np.float64)
        rate, turn = self.friction * (1 + t), 4 * np.cos(5 * t)
        return blocks([[-rate * (1 + 0.3 * np.sin(6 * t)), turn + np.sin(3 * t)], [-turn, -rate]])

    def GG(self, t: ArrayLike) -> Array:
        f = self.F(t)
        return -(f + f.swapaxes(-1, -2))

    @property
    def Sigma_0(self) -> Array:
        return np.array([[0.01, 0.004], [0.004, 0.04]])

    @property
    def prior_factor(self) -> Array:
        return np.eye(2)


class Fading(Diffusion):
    """VP with a constant rate, given by its four members, not a dataclass."""

    name = "fading"
    D = 1
    rate = 5.0

    def F(self, t: ArrayLike) -> Array:
        return np.full((*np.shape(t), 1, 1), -self.rate)

    def GG(self, t: ArrayLike) -> Array:
        return np.full((*np.shape(t), 1, 1), 2 * self.rate)

    @property
    def Sigma_0(self) -> Array:
        return np.zeros((1, 1))

    @property
    def prior_factor(self) -> Array:
        return np.ones((1, 1))


class Slow(Fading):
    """Ends at T = 20, where the image has gone, but is sampled from t = 1."""

    T = 20.0
    rate = 0.25


class SlowToTheEnd(Slow):
    sampling = SamplingConfig(t_start=20.0)


RIGHT = [
    *(kind() for kind in DIFFUSIONS.values()),
    VE(sigma_min=0.002, sigma_max=80.0),
    VP(beta_0=20.0, beta_1=0.0),
    VP(beta_1=1000.0),
    CLD(beta_0=8.0),
    CLD(m_inv=16.0),
    CLD(Gamma=0.6),
    CLD(Gamma=2.0),
    CLD(beta_0=0.1, beta_1=8.0),
    CLD(numerical_eps=1e-4, gamma=1.0),
    PSLD(beta_0=16.0),
    PSLD(Gamma=2.0),
    PSLD(Gamma=10.0),
    PSLD(Gamma=0.02, nu=4.02),
    BDM(sigma_blur_max=3.0, min_scale=0.05),
    ThirdOrderLangevin(),
    ThirdOrderLangevin(beta=15.0),
    Turning(),
    Fading(),
    SlowToTheEnd(),
]


@dataclass(frozen=True)
class WrongPsi(VP):
    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return super().Psi(t, s) ** 1.001


@dataclass(frozen=True)
class WrongStart(VP):
    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return 1.0001 * super().Psi(t, s)


@dataclass(frozen=True)
class WrongSigma(CLD):
    def noise_covariance(self, t: ArrayLike) -> Array:
        return super().noise_covariance(t) * 1.0001


@dataclass(frozen=True)
class WrongR(CLD):
    def theta(self, t: ArrayLike) -> Array:
        return super().theta(t) * 1.0001


@dataclass(frozen=True)
class LopsidedNoise(Turning):
    def GG(self, t: ArrayLike) -> Array:
        return super().GG(t) + np.array([[0.0, 0.1], [0.0, 0.0]])


class WidePrior(Fading):
    prior_factor = 3 * np.eye(1)


class NoPrior(Fading):
    prior_factor = np.zeros((1, 1))


WRONG = [
    (WrongPsi(), "dPsi/dt", "leave Psi out to have it computed from F"),
    (WrongStart(), "dPsi/dt", "Psi(s, s) = I"),
    (WrongSigma(), "dSigma/dt", "Sigma does not solve"),
    (WrongR(), "dR/dt", "R does not solve"),
    (LopsidedNoise(), "GG symmetric", "GG is not the product of a matrix and its transpose"),
    (WidePrior(), "prior", "the variances of the state are 11% of the prior's: Sigma = [[1.0]], but"),
    (NoPrior(), "prior", "prior_factor is singular"),
    (
        Slow(),
        "what is left of the image",
        "at t_start = 1, 78% of the image is left in the state (1.2 times the standard deviation",
    ),
    (Slow(), "what is left of the image", "choose a later t_start (the diffusion ends at T = 20)"),
    (Slow(), "prior", "39% of the prior's"),
    (CLD(beta_0=1.0), "what is left of the image", "41% of the image is left in the state (0.59 times"),
    (CLD(beta_0=1.0), "prior", "67% to 100% of the prior's: Sigma = [[0.7648, 0.0725], [0.0725, 0.2273]]"),
    (CLD(Gamma=10.0), "what is left of the image", "67% of the image is left"),
    (VP(beta_1=2.0), "what is left of the image", "choose stronger noise"),
    (VE(sigma_max=3.0), "what is left of the image", "0.33 times the standard deviation of the noise"),
]


def quick(diffusion: Diffusion) -> list[Result]:
    """The results of all checks but the orders of convergence."""
    subjects = [Subject(part) for part in parts_to_test(diffusion)]
    with np.errstate(all="ignore"):
        return [check(subject) for check in CHECKS[:-4] for subject in subjects]


@pytest.mark.parametrize("diffusion", RIGHT, ids=lambda diffusion: str(diffusion).partition(" object")[0])
def test_right_diffusions_pass(diffusion: Diffusion) -> None:
    assert [result for result in quick(diffusion) if not result.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", RIGHT, ids=lambda diffusion: str(diffusion).partition(" object")[0])
def test_right_diffusions_pass_with_their_orders(diffusion: Diffusion) -> None:
    results = list(examine(diffusion))
    assert len(results) == len(CHECKS)
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize(("diffusion", "check", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_wrong_diffusions_fail_and_are_told_why(diffusion: Diffusion, check: str, words: str) -> None:
    failed = [result for result in quick(diffusion) if not result.passed]
    assert any(check in result.check and words in result.message for result in failed), failed


def test_a_flaw_in_one_part_fails_no_unrelated_check() -> None:
    assert [result.check for result in quick(WidePrior()) if not result.passed] == [
        "Sigma(t_start) against the prior's covariance"
    ]
    assert [result.check for result in quick(WrongR()) if not result.passed] == [
        "dR/dt = (F + GG Sigma^-1 / 2) R, R R^T = Sigma",
        "error of one step of order 0 on one image, relative to the norm of Psi",
    ]


def test_an_order_is_found() -> None:
    result = check_order(2, Subject(VP()))
    assert result.passed
    assert result.value == pytest.approx(3, abs=0.2)


def test_steps_are_doubled_until_the_slope_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near T the rate of vp-cosine has a pole: on few steps order 3 looks lower than it is."""
    subject = Subject(VPCosine())
    assert check_order(3, subject).passed
    monkeypatch.setattr(checks, "MAX_STEPS", 320)
    result = check_order(3, subject)
    assert not result.passed
    assert (
        "the slope has not settled at 4 by 320 steps: at each doubling from 160 steps on, it was 3.52; the last error"
        in result.message
    )


def test_a_sampler_that_does_not_converge_is_given_up_early() -> None:
    result = check_order(1, Subject(WrongStart()))
    assert not result.passed
    assert "has not settled at 2 by 640 steps" in result.message


def test_a_diffusion_that_is_sampled_with_cholesky_s_factor_needs_no_r() -> None:
    @dataclass(frozen=True)
    class Lower(CLD):
        sampling = SamplingConfig(k="L")

    results = list(examine(Lower(numerical_eps=0.0)))
    assert [result for result in results if not result.passed] == []
    assert len(results) == len(CHECKS) - 2
    assert not any(result.check.startswith(("dR/dt", "one step")) for result in results)


def test_times_outside_are_refused() -> None:
    class TooLate(Fading):
        sampling = SamplingConfig(t_start=2.0)

    with pytest.raises(UsageError, match="t_start: 2 is not between 0 and 1, where fading ends; start at 1 or earlier"):
        Subject(TooLate())


def test_what_no_check_can_test() -> None:
    class Spectral(Fading):
        spectral = True

    with pytest.raises(UsageError, match="make it a dataclass with a field image_size"):
        list(examine(Spectral()))
    with pytest.raises(NumericsError, match="R_t is not defined; use K = L"):
        list(examine(CLD(numerical_eps=1e-9, eps_at_every_t=True)))
    with pytest.raises(NumericsError, match="K = R needs a positive definite Sigma_0"):
        list(examine(replace(CLD(), numerical_eps=0.0)))
