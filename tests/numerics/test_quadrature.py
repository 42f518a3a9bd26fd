import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gddim_cli.errors import NumericsError
from gddim_cli.numerics.quadrature import antiderivative, nodes_and_weights, resolving_edges


@given(st.floats(1e-6, 1e-1))
def test_a_pole_near_the_interval_is_resolved(scale: float) -> None:
    """1/(t^2 + s^2) has the antiderivative atan(t/s)/s; its poles at +-is come close to 0."""
    integral = antiderivative(lambda t: 1 / (t**2 + scale**2), 0.0, 1.0)
    t = np.geomspace(1e-8, 1.0, 50)
    np.testing.assert_allclose(integral(t), np.arctan(t / scale) / scale, rtol=1e-11, atol=1e-14 / scale)


def test_quadrature_over_panels() -> None:
    edges = resolving_edges(lambda t: np.stack([np.exp(-50 * t), np.cos(9 * t)], axis=1), 0.0, 2.0)
    nodes, weights = nodes_and_weights(edges)
    assert abs((weights * np.exp(-50 * nodes)).sum() - (1 - np.exp(-100)) / 50) < 1e-16
    assert abs((weights * np.cos(9 * nodes)).sum() - np.sin(18) / 9) < 1e-15


def test_what_is_not_smooth_is_refused() -> None:
    with pytest.raises(NumericsError, match="not smooth near t = 0"):
        resolving_edges(lambda t: np.sqrt(t)[:, None], 0.0, 1.0)
    with pytest.raises(NumericsError, match="not finite at t = "):
        resolving_edges(lambda t: np.where(t > 0.5, np.nan, t)[:, None], 0.0, 1.0)
