from __future__ import annotations

import numpy as np
import torch

from gddim_cli.numerics.blocks import combine, to_tensor_like


def test_blocks_that_all_pixels_share() -> None:
    rng = np.random.default_rng(0)
    matrices, states = rng.standard_normal((3, 2, 2)), rng.standard_normal((3, 5, 2, 1, 4, 4))
    wanted = np.einsum("kde,kbechw->bdchw", matrices, states)
    found = combine(list(torch.from_numpy(matrices)), list(torch.from_numpy(states)))
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    alone = combine([torch.from_numpy(matrices[0])], [torch.from_numpy(states[0])])
    np.testing.assert_allclose(alone, np.einsum("de,bechw->bdchw", matrices[0], states[0]), atol=1e-14)


def test_blocks_that_differ_by_frequency() -> None:
    rng = np.random.default_rng(0)
    matrices, states = rng.standard_normal((2, 4, 4, 1, 1)), rng.standard_normal((2, 5, 1, 3, 4, 4))
    found = combine(list(torch.from_numpy(matrices)), list(torch.from_numpy(states)))
    np.testing.assert_allclose(found, (matrices[:, None, None, None, ..., 0, 0] * states).sum(0), atol=1e-14)


def test_arrays_take_the_dtype_of_the_state() -> None:
    made = to_tensor_like(np.eye(2)[:, ::-1], torch.zeros(1, dtype=torch.float32))
    assert made.dtype == torch.float32
    np.testing.assert_array_equal(made, [[0, 1], [1, 0]])
    fixed = to_tensor_like(np.broadcast_to(np.eye(2), (3, 2, 2)), torch.zeros(1, dtype=torch.float64))
    assert fixed.shape == (3, 2, 2)  # read-only arrays too, without a warning
