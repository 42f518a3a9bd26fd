from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gddim_cli.errors import NumericsError
from gddim_cli.images.quantize import quantize
from gddim_cli.images.render import grid, half_blocks, write_png

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.just(4), st.just(5), st.sampled_from([1, 3])))


@given(hnp.arrays(np.float64, (2, 1, 3, 3), elements=st.floats(-2, 2)))
def test_quantisation_is_what_the_two_programs_write(x: np.ndarray) -> None:
    pixels = x.transpose(0, 2, 3, 1)
    floor = np.floor(np.clip(255 * (pixels + 1) / 2, 0, 255))
    edm = np.clip(127.5 * pixels + 128, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(quantize(x, "round"), edm)
    assert np.abs(quantize(x, "floor") - floor).max() <= (np.abs(127.5 * (pixels + 1) % 1) < 1e-9).any()


def test_every_grey_level_survives_both() -> None:
    levels = np.arange(256.0).reshape(1, 1, 16, 16)
    for how in ("floor", "round"):
        np.testing.assert_array_equal(quantize(levels / 127.5 - 1 + 1e-9, how).ravel(), np.arange(256))


def test_numbers_that_are_none_are_not_written() -> None:
    x = np.zeros((3, 1, 2, 2))
    x[1, 0, 0, 0] = np.nan
    with pytest.raises(NumericsError, match="1 of 3 images"):
        quantize(x, "floor")


@given(images, st.none() | st.integers(1, 5))
def test_a_grid_holds_every_image(batch: np.ndarray, columns: int | None) -> None:
    picture = grid(batch, columns)
    wide = (picture.shape[1] - 2) // 7
    for i, image in enumerate(batch):
        top, left = 2 + 6 * (i // wide), 2 + 7 * (i % wide)
        np.testing.assert_array_equal(picture[top : top + 4, left : left + 5], image)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, channels), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_a_preview_has_two_pixels_a_character() -> None:
    picture = np.zeros((4, 6, 1), np.uint8)
    picture[1] = 200
    lines = half_blocks(picture, width=80).splitlines()
    assert [len(re.findall("▀", line)) for line in lines] == [6, 6]
    assert "38;2;0;0;0;48;2;200;200;200" in lines[0]
    assert len(re.findall("▀", half_blocks(np.zeros((40, 60, 3), np.uint8), width=30).splitlines()[0])) == 30
