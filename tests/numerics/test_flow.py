from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from gddim_cli.diffusions.bdm import BDM
from gddim_cli.errors import NumericsError
from gddim_cli.numerics.flow import Flow, short_edges
from gddim_cli.numerics.quadrature import antiderivative, nodes_and_weights, resolving_edges

A = np.array([[0.0, 4.0, 0.0], [-4.0, 0.0, 7.0], [0.0, -7.0, -12.0]])


def constant(t: np.ndarray) -> np.ndarray:
    return np.broadcast_to(A, (len(t), 3, 3))


def turning(t: np.ndarray) -> np.ndarray:
    """Matrices at different times that do not commute."""
    rows = [[-1 + 0 * t, 3 * np.cos(5 * t)], [-2 * np.sin(3 * t), -4 * t]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def test_a_constant_rate_gives_the_matrix_exponential() -> None:
    flow = Flow(constant, 3, 1.0)
    for t, s in [(1.0, 0.0), (0.0, 1.0), (0.3, 0.25), (0.25, 0.9), (0.5, 0.5)]:
        wanted = expm(A * (t - s))
        assert np.abs(flow(t, s) - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_a_rate_that_does_not_commute_with_itself() -> None:
    flow = Flow(turning, 2, 1.0)

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        return (turning(np.array([t]))[0] @ x.reshape(2, 2)).ravel()

    solved = solve_ivp(slope, (0.2, 1.0), np.eye(2).ravel(), "DOP853", rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(flow(1.0, 0.2), solved.y[:, -1].reshape(2, 2), atol=1e-11)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf, np.array([0.5, 2.0])])
def test_times_outside_are_refused(bad) -> None:
    flow, integral = Flow(constant, 3, 1.0), antiderivative(np.cos, 0.0, 1.0)
    for call in (lambda: flow(bad), lambda: flow(0.5, bad), lambda: integral(np.asarray(bad))):
        with pytest.raises(NumericsError, match=r"outside \[0, 1\]"):
            call()


def test_the_ends_are_inside_in_spite_of_rounding() -> None:
    flow, integral = Flow(constant, 3, 1.0), antiderivative(np.cos, 0.0, 1.0)
    np.testing.assert_allclose(flow(1.0 + 1e-15), expm(A), atol=1e-12)
    assert integral(np.array(-1e-15)) == pytest.approx(0.0, abs=1e-14)


def test_the_largest_block_rules_the_panels_and_not_their_number() -> None:
    """A Frobenius norm over all frequencies would make 32 times as many panels of a 32x32 spectrum as of one block."""
    for size in (8, 32, 64):
        bdm = BDM(image_size=size)
        edges = short_edges(bdm.F, np.array([1e-3, 0.25, 0.5, 0.75, 0.99]))
        assert len(edges) < 40, size
    nodes, _ = nodes_and_weights(edges)
    largest = np.abs(bdm.F(nodes)).max(axis=(1, 2, 3, 4, 5))
    assert (largest * np.diff(edges) < 2.5).all()


def test_a_rate_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(NumericsError, match="too strong to integrate"):
        Flow(lambda t: 1e9 * constant(t), 3, 1.0)
    with pytest.raises(NumericsError, match="too strong to integrate"):
        short_edges(lambda t: 1e200 * constant(t), resolving_edges(lambda t: np.ones((len(t), 1)), 0.0, 1.0))
