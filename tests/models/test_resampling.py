"""Resampling against scipy, and its two forms against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn

from gddim_cli.models.networks.resampling import BOX, FIR, Resampling, without_box


def filtered(x: np.ndarray, up: int, down: int, pad: int) -> np.ndarray:
    """FIR along both sides by scipy, cut to what the originals keep."""
    taps = np.array(FIR) / 8
    for axis in (2, 3):
        spread = upfirdn(taps * up, x, up, 1, axis=axis)
        spread = np.take(spread, range(pad, spread.shape[axis]), axis=axis)
        x = np.take(spread, range(0, spread.shape[axis], down), axis=axis)
    return x


def test_fir_against_scipy() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    down = Resampling("down", FIR)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(down, filtered(x, 1, 2, 2)[:, :, :4, :4], atol=1e-14)
    up = Resampling("up", FIR)
    for made in (up(torch.from_numpy(x)), up.by_repetition(torch.from_numpy(x))):
        np.testing.assert_allclose(made.numpy(), filtered(x, 2, 1, 1)[:, :, :16, :16], atol=1e-14)


def test_box() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    down, up = Resampling("down"), Resampling("up")
    assert down(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    for made in (up(x), up.by_repetition(x)):
        assert torch.equal(down(made), x)
        assert torch.equal(made, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_constants_are_kept_inside() -> None:
    ones = torch.ones(1, 2, 16, 16)
    for made in (Resampling("down", FIR)(ones), Resampling("up", FIR)(ones), Resampling("up", FIR).by_repetition(ones)):
        torch.testing.assert_close(made[:, :, 1:-1, 1:-1], torch.ones_like(made[:, :, 1:-1, 1:-1]))


@pytest.mark.parametrize("taps", [BOX, FIR, (1, 3, 5, 3), (1, 5, 10, 10, 5, 1), (2, 3, 1, 1, 3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_forms_are_equal_and_keep_the_layout(taps: tuple[int, ...], layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 6, 8).contiguous(memory_format=layout)
    up = Resampling("up", taps)
    made = up.by_repetition(x)
    torch.testing.assert_close(made, up.by_transposed_convolution(x), rtol=0, atol=1e-6)
    assert made.shape == (2, 3, 12, 16)
    assert made.is_contiguous(memory_format=layout)


def test_a_filter_that_no_repetition_begins_has_one_form() -> None:
    assert (without_box(BOX), without_box(FIR), without_box((1, 2, 3, 1))) == ([1], [1, 2, 1], [])
    up = Resampling("up", (1, 2, 3, 1))
    assert up(torch.randn(1, 1, 4, 4)).shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match="not a repetition of pixels"):
        up.by_repetition(torch.randn(1, 1, 4, 4))


def test_devices_other_than_the_cpu_are_spared_the_transposed_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr(Resampling, "by_repetition", lambda *_: used.append("repetition"))
    monkeypatch.setattr(Resampling, "by_transposed_convolution", lambda *_: used.append("transposed"))
    for device in ("meta", "cpu"):
        Resampling("up", FIR)(torch.empty(1, 1, 4, 4, device=device))
    assert used == ["repetition", "transposed"]
    assert Resampling("up", FIR).state_dict() == {}
