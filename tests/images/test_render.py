from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gddim_cli.errors import DataError, NumericsError
from gddim_cli.images.quantize import quantize
from gddim_cli.images.read import read_images
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


def test_images_of_a_folder_and_of_an_npz_are_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / ("deep" if i else "") / f"{i}.png")
    np.savez(tmp_path / "a.npz", x=pixels, labels=np.arange(3))
    from_folder, from_npz = read_images(tmp_path / "photos"), read_images(tmp_path / "a.npz")
    assert from_npz.shape == (3, 3, 8, 8)
    np.testing.assert_array_equal(np.sort(from_folder, axis=0), np.sort(from_npz, axis=0))


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def refuse(message: str, path: Path, key: str | None = None) -> None:
        with pytest.raises(DataError, match=message):
            read_images(path, key)

    refuse("none: no such file or folder", tmp_path / "none")
    refuse("no images there", tmp_path)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4, 4), np.uint8), b=np.zeros((2, 4, 4), np.uint8))
    refuse(r"needs one array.*found a uint8\[2, 4, 4\], b uint8.*--key", tmp_path / "two.npz")
    refuse("no array 'aa'; did you mean 'a'", tmp_path / "two.npz", "aa")
    assert read_images(tmp_path / "two.npz", "b").shape == (2, 1, 4, 4)
    np.savez(tmp_path / "float.npz", a=np.zeros((2, 4, 4)))
    refuse(r"needs one array.*float64\[2, 4, 4\]", tmp_path / "float.npz")
    np.save(tmp_path / "single.npy", np.zeros((2, 4, 4), np.uint8))
    refuse("not a readable .npz", tmp_path / "single.npy")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    refuse("not a readable .npz", tmp_path / "cut.npz")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (4, 4)).save(photos / "a.png")
    Image.new("RGB", (4, 4)).save(photos / "b.png")
    Image.new("I;16", (4, 4)).save(photos / "0.png")
    refuse("0.png: its mode is I;16; 8-bit images without alpha are needed", photos)
    (photos / "0.png").unlink()
    refuse("--key: .*photos is a folder", photos, "x")
    refuse(r"b.png: 4x4 colour, but a.png is 4x4 grey", photos)
    (photos / "b.png").write_bytes(b"\x89PNG")
    refuse("b.png: not a readable image", photos)
