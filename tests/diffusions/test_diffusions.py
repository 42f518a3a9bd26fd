"""Every diffusion's matrices satisfy the equations that define them, whatever its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.registry import make_diffusion
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
    """Position, velocity and acceleration: three numbers a pixel, noise in the last only."""

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
