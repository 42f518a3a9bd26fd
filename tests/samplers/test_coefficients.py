from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad_vec

from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError
from gddim_cli.samplers.coefficients import denoising_matrices, gddim_coefficients
from gddim_cli.samplers.time_grids import power_grid


def test_every_golden_grid(golden: dict) -> None:
    for grid in golden["grids"]:
        t = power_grid(1.0, 1e-3, grid["steps"])
        found = gddim_coefficients(CLD(), t, grid["order"], grid["K"])
        assert np.abs(t - grid["t"]).max() < 1e-12
        assert np.abs(found.Psi - np.array(grid["Psi"])).max() < 1e-9
        assert np.abs(found.C - np.array(grid["C"])).max() < 1e-9, (grid["K"], grid["steps"], grid["order"])


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([CLD(), VP(), CLD(beta_1=5.0), CLD(Gamma=0.5)]),
    st.integers(1, 60),
    st.integers(0, 3),
    st.floats(1.0, 4.0),
    st.floats(1e-4, 0.1),
)
def test_weights_sum_to_what_one_eps_does(diffusion, steps: int, order: int, power: float, t_end: float) -> None:
    """`sum_j C_ij = R_{t'} - Psi(t', t) R_t` for K = R, whatever the order, warm-up included."""
    t = power_grid(1.0, t_end, steps, power)
    c = gddim_coefficients(diffusion, t, order)
    r = diffusion.R(t)
    size = max(1.0, np.abs(c.Psi).max())  # one step back through a strong contraction is a large number
    assert np.abs(c.C.sum(axis=1) - (r[1:] - c.Psi @ r[:-1])).max() < 1e-9 * size


@pytest.mark.parametrize("k", ["R", "L"])
def test_against_another_quadrature(k) -> None:
    """Step 3 of a grid, order 2, by scipy's adaptive integrator and Lagrange polynomials written out."""
    cld, t = CLD(), power_grid(1.0, 1e-3, 7)
    found = gddim_coefficients(cld, t, 2, k).C[3]
    nodes = [t[3], t[2], t[1]]
    for j in range(3):
        a, b = (node for i, node in enumerate(nodes) if i != j)

        def integrand(s: float, j: int = j, a: float = a, b: float = b) -> np.ndarray:
            weight = (s - a) * (s - b) / ((nodes[j] - a) * (nodes[j] - b))
            return 0.5 * weight * cld.Psi(t[4], s) @ cld.GG(s) @ np.linalg.inv(cld.K(s, k)).T

        np.testing.assert_allclose(found[j], quad_vec(integrand, t[3], t[4], epsabs=1e-13)[0], atol=1e-11)


def test_the_warm_up_uses_the_history_there_is() -> None:
    c = gddim_coefficients(VP(), power_grid(1.0, 1e-3, 6), 3).C
    for i in range(3):
        lower = gddim_coefficients(VP(), power_grid(1.0, 1e-3, 6), i).C
        np.testing.assert_array_equal(c[i, i + 1 :], 0.0)
        np.testing.assert_allclose(c[i, : i + 1], lower[i], rtol=1e-13)


def test_vp_order_0_is_ddim() -> None:
    """DDIM (2010.02502, Eq. 12 with eta = 0), in its own symbols."""
    t = power_grid(1.0, 1e-3, 10)
    c = gddim_coefficients(VP(), t, 0)
    alpha = np.exp(-(0.1 * t + 0.5 * 19.9 * t**2))
    x, eps = 0.7, -1.3
    predicted = (x - np.sqrt(1 - alpha[:-1]) * eps) / np.sqrt(alpha[:-1])
    ddim = np.sqrt(alpha[1:]) * predicted + np.sqrt(1 - alpha[1:]) * eps
    np.testing.assert_allclose(c.Psi[:, 0, 0] * x + c.C[:, 0, 0, 0] * eps, ddim, atol=1e-11)


def test_denoising_step_removes_the_noise_of_a_point() -> None:
    """For VP the reverse drift from a small t_end with the exact eps of a point leads to that point, to first order."""
    vp, t_end, point, eps = VP(), 1e-4, 0.8, 1.7
    u = vp.Psi(t_end, 0.0) * point + vp.R(t_end) * eps
    first, second = denoising_matrices(vp, t_end, "R")
    before, after = abs(u - point).item(), abs(first * u + second * eps - point).item()
    assert after < 2e-2 * before


def test_bad_grids_and_orders() -> None:
    with pytest.raises(UsageError, match=r"--order: 4 is not in 0\.\.3"):
        gddim_coefficients(VP(), power_grid(1.0, 1e-3, 5), 4)
    for start, end in [(1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (0.5, 0.7)]:
        with pytest.raises(UsageError, match="--t-end"):
            power_grid(start, end, 5)
    with pytest.raises(UsageError, match="at least one step"):
        power_grid(1.0, 1e-3, 0)
