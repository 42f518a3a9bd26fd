"""Every diffusion's matrices satisfy the equations that define them, whatever its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.linalg import expm

from gddim_cli.diffusions.base import Diffusion, SamplingConfig, check_times
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.parameters import parameters_of
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.registry import DIFFUSIONS, make_diffusion
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.numerics.quadrature import Array

TIMES = np.array([1e-3, 0.01, 0.2, 0.6, 1.0])


@dataclass(frozen=True)
class ByTheBook(Diffusion):
    """A diffusion given by its four essentials only: here CLD's, so that the closed forms have a second opinion."""

    name = "by-the-book"
    D = 2
    model: CLD

    def F(self, t: ArrayLike) -> Array:
        return self.model.F(t)

    def GG(self, t: ArrayLike) -> Array:
        return self.model.GG(t)

    @property
    def Sigma_0(self) -> Array:
        return self.model.Sigma_0

    @property
    def prior_factor(self) -> Array:
        return self.model.prior_factor


@dataclass(frozen=True)
class ThirdOrder(Diffusion):
    """Position, velocity and acceleration: D = 3, with noise in the last only."""

    name = "third-order"
    D = 3

    def F(self, t: ArrayLike) -> Array:
        a = np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 3.0], [0.0, -3.0, -5.0]])
        return np.ones_like(t)[..., None, None] * a

    def GG(self, t: ArrayLike) -> Array:
        return np.ones_like(t)[..., None, None] * np.diag([0.0, 0.0, 10.0])

    @property
    def Sigma_0(self) -> Array:
        return np.diag([1e-3, 0.04, 0.04])

    @property
    def prior_factor(self) -> Array:
        return np.eye(3)


def derivative(function, t: float, h: float = 1e-4) -> Array:
    """Fourth-order central difference."""
    return (8 * (function(t + h) - function(t - h)) - (function(t + 2 * h) - function(t - 2 * h))) / (12 * h)


def test_released_cld_against_the_golden_file(golden: dict) -> None:
    at = golden["at"]
    t = np.array([row["t"] for row in at])
    cld = CLD()
    for found, name in [(cld.Psi(t, 0.0), "Psi_t0"), (cld.Sigma(t), "Sigma"), (cld.L(t), "L"), (cld.R(t), "R")]:
        assert np.abs(found - np.array([row[name] for row in at])).max() < 1e-9, name


diffusions = st.one_of(
    st.builds(
        CLD,
        beta_0=st.floats(0.5, 6),
        beta_1=st.floats(0, 6),
        m_inv=st.floats(1, 6),
        Gamma=st.none() | st.floats(0.3, 3),
        gamma=st.floats(0.01, 1),
        numerical_eps=st.floats(1e-4, 1e-2),
    ),
    st.builds(VP, beta_0=st.floats(0.05, 1), beta_1=st.floats(1, 20)),
    st.builds(PSLD, Gamma=st.floats(0.01, 1), nu=st.floats(1, 5), numerical_eps=st.floats(1e-4, 1e-2)),
    st.builds(VE, sigma_min=st.floats(0.01, 0.1), sigma_max=st.floats(5, 50)),
    st.just(VPCosine()),
    st.just(ThirdOrder()),
)


@settings(deadline=None, max_examples=60)
@given(diffusions, st.floats(0.05, 0.95))
def test_matrices_satisfy_their_equations(diffusion: Diffusion, t: float) -> None:
    f, gg, sigma, r = diffusion.F(t), diffusion.GG(t), diffusion.Sigma(t), diffusion.R(t)
    psi = diffusion.Psi(t, 0.3)
    scale = 1 + np.abs(f).max() ** 2
    assert np.abs(derivative(lambda s: diffusion.Psi(s, 0.3), t) - f @ psi).max() < 1e-7 * scale * np.abs(psi).max()
    growth = f @ sigma + sigma @ f.T + gg
    assert np.abs(derivative(diffusion.Sigma, t) - growth).max() < 1e-7 * scale
    assert np.abs(r @ r.T - sigma).max() < 1e-10
    turned = (f + 0.5 * gg @ np.linalg.inv(sigma)) @ r  # gDDIM, Eq. 17
    assert np.abs(derivative(diffusion.R, t) - turned).max() < 1e-6 * (1 + np.abs(turned).max()) * scale


def test_r_starts_as_the_root_of_sigma_0() -> None:
    for diffusion in (CLD(), CLD(beta_1=3.0, Gamma=0.5), ThirdOrder()):
        np.testing.assert_allclose(diffusion.R(0.0), np.sqrt(diffusion.Sigma_0), atol=1e-15)


@pytest.mark.parametrize("size", [2, 3])
def test_r_starts_as_the_symmetric_root_of_any_sigma_0(size: int) -> None:
    """As in the paper; Cholesky's factor is another root where Sigma_0 is not diagonal."""
    root = np.array([[0.2, 0.1, 0.02], [0.1, 0.4, 0.05], [0.02, 0.05, 0.3]])[:size, :size]

    @dataclass(frozen=True)
    class Mixed(CLD if size == 2 else ThirdOrder):
        @property
        def Sigma_0(self) -> Array:
            return root @ root

    diffusion = Mixed()
    np.testing.assert_allclose(diffusion.R(0.0), root, atol=1e-14)
    assert np.abs(diffusion.L(0.0) - root).max() > 0.05
    for t in TIMES:
        r, sigma = diffusion.R(t), diffusion.Sigma(t)
        np.testing.assert_allclose(r @ r.T, sigma, atol=1e-13)
        np.testing.assert_allclose(diffusion.Psi_hat(t, 0.1, 0.0), r @ np.linalg.inv(diffusion.R(0.1)), atol=1e-12)
    turned = (diffusion.F(0.4) + 0.5 * diffusion.GG(0.4) @ np.linalg.inv(diffusion.Sigma(0.4))) @ diffusion.R(0.4)
    np.testing.assert_allclose(derivative(diffusion.R, 0.4), turned, atol=1e-8)


@pytest.mark.parametrize("friction", [0.1, 0.999999, 1.0, 1.000001, 3.0, 10.0, 100.0, 1e3, 1e5])
def test_the_exponential_at_any_damping(friction: float) -> None:
    """Against scipy's; above a friction of 100 cosh and sinh alone would overflow."""
    cld = CLD(Gamma=friction)
    amounts = np.array([-0.01, 0.0, 1e-5, 0.3, 2.0, 4.0]) if friction < 1e4 else np.array([0.0, 1e-5, 0.3, 4.0])
    found = cld.exponential(amounts)
    for b, matrix in zip(amounts, found, strict=True):
        wanted = expm(cld.A * b)
        np.testing.assert_allclose(matrix, wanted, rtol=0, atol=2e-14 * max(1.0, friction) * np.abs(wanted).max())
    assert np.isfinite(cld.Psi(1.0, 0.0)).all()
    assert not np.isfinite(CLD(Gamma=1e3).Psi(0.0, 1.0)).all()  # without a warning: it is a true overflow


def test_times_of_sampling() -> None:
    check_times(CLD(), SamplingConfig())
    for start, end in [(1.1, 1e-3), (0.0, 1e-3), (np.nan, 1e-3)]:
        with pytest.raises(
            UsageError, match=r"t_start: .* is not between 0 and 1, where cld ends; start at 1 or earlier"
        ):
            check_times(CLD(), SamplingConfig(t_start=start, t_end=end))
    for end in (0.0, -1.0, 1.0, 2.0, np.nan):
        with pytest.raises(UsageError, match=r"--t-end: .* is not between 0 and the start, 1"):
            check_times(CLD(), SamplingConfig(t_end=end))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cld", {"m_inv": 0}, "diffusion cld: m_inv: 0: expected a number above 0"),
        ("cld", {"m_inv": -1}, "m_inv: -1: expected"),
        ("cld", {"m_inv": 1e300}, "m_inv: 1e\\+300: expected a number above 0 and at most 1e\\+06"),
        ("cld", {"m_inv": 10**400}, "m_inv: 1000"),
        ("cld", {"gamma": float("nan")}, "gamma: nan: expected a number from 0 to 1e\\+06"),
        ("cld", {"gamma": float("inf")}, "gamma: inf: expected"),
        ("cld", {"gamma": True}, "gamma: True: expected"),
        ("cld", {"gamma": [1]}, "gamma: \\[1\\]: expected"),
        ("cld", {"gamma": None}, "gamma: None: expected"),
        ("cld", {"Gamma": 0}, "Gamma: 0: expected a number above 0 .* or null"),
        ("cld", {"eps_at_every_t": 1}, "eps_at_every_t: 1: expected true or false"),
        ("psld", {"nu": 0}, "diffusion psld: nu: 0: expected"),
        ("bdm", {"image_size": 8.5}, "image_size: 8.5: expected a whole number from 1 to 4096"),
        ("bdm", {"image_size": 10**9}, "image_size: 1000000000: expected a whole number from 1 to 4096"),
        ("ve", {"sigma_min": 50}, "sigma_min 50 is not below sigma_max 50"),
        ("ve", {1: 2}, "diffusion ve has no parameter '1'"),
    ],
)
def test_parameters_outside_their_range_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_diffusion(name, parameters)


def test_parameters_are_converted() -> None:
    assert make_diffusion("cld", {"beta_0": 0, "numerical_eps": "1e-6", "Gamma": None}) == CLD(beta_0=0.0)
    assert isinstance(make_diffusion("cld", {"beta_0": 8}).beta_0, float)
    assert make_diffusion("psld", {"Gamma": 0}).Gamma == 0
    assert parameters_of(make_diffusion("bdm", {"image_size": 8})) == {
        "sigma_blur_max": 10.0,
        "min_scale": 0.001,
        "image_size": 8,
    }
    assert all(not parameters_of(kind()).keys() & {"name", "D", "T", "sampling"} for kind in DIFFUSIONS.values())


def test_a_range_stands_with_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diffusion that is registered brings its ranges along."""

    @dataclass(frozen=True)
    class Other(VP):
        name = "other"
        bend: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.0

    monkeypatch.setitem(DIFFUSIONS, "other", Other)
    assert make_diffusion("other", {"bend": -0.5, "beta_0": 1}) == Other(beta_0=1.0, bend=-0.5)
    with pytest.raises(UsageError, match="diffusion other: bend: 2: expected a number from -1 to 1"):
        make_diffusion("other", {"bend": 2})


@pytest.mark.parametrize("model", [CLD(), CLD(Gamma=0.6), CLD(Gamma=2.0, beta_0=1.0, beta_1=4.0)])
def test_the_numerical_versions_agree_with_the_closed_forms(model: CLD) -> None:
    plain = ByTheBook(model)
    for t in TIMES:
        np.testing.assert_allclose(
            plain.Psi(t, 0.3), model.Psi(t, 0.3), rtol=0, atol=1e-9 * np.abs(model.Psi(t, 0.3)).max()
        )
        np.testing.assert_allclose(plain.Sigma(t), model.Sigma(t), atol=1e-11)
        np.testing.assert_allclose(plain.R(t), model.R(t), atol=1e-9)


def test_small_times_keep_their_relative_accuracy() -> None:
    """Without initial variance, Sigma_xx = Sigma-noise falls as t^3: 1 - (1 - t^3) would lose it, the closed form does not."""
    cld = CLD(gamma=0.0, numerical_eps=0.0)
    t = 1e-6
    leading = 2 * cld.friction * cld.beta_0**3 * cld.m_inv**2 * t**3 / 3
    assert cld.noise_covariance(t)[0, 0] == pytest.approx(leading, rel=1e-4)


def test_eps_at_every_t_is_cld_sgms_variance() -> None:
    plain, kept = CLD(numerical_eps=0.0), CLD(numerical_eps=1e-9, eps_at_every_t=True)
    np.testing.assert_allclose(
        kept.Sigma(TIMES) - plain.Sigma(TIMES), np.broadcast_to(1e-9 * np.eye(2), (5, 2, 2)), atol=1e-15
    )


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NumericsError, match="positive definite Sigma_0"):
        CLD(numerical_eps=0.0).R(0.5)
    with pytest.raises(UsageError, match="did you mean 'cld'"):
        make_diffusion("clb")
    with pytest.raises(UsageError, match="no parameter 'beta0'; did you mean 'beta_0'"):
        make_diffusion("cld", {"beta0": 4.0})
