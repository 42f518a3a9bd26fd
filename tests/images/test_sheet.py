"""Sheets and films: every image in its place, captions that fit, formats that can be read back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from support import pictures

from gddim_cli.errors import OutputError, UsageError
from gddim_cli.images.film import check_film, strip, write_film
from gddim_cli.images.render import grid, text_of
from gddim_cli.images.sheet import LABEL, MARGIN, Entry, Sheet, block, font, wrapped


def places(picture: np.ndarray, tile: np.ndarray) -> int:
    """How often a tile stands in a picture."""
    height, width = tile.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width, picture.shape[2]))[:, :, 0]
    return int((windows == tile).all(axis=(2, 3, 4)).sum())


def test_every_image_of_every_entry_is_on_the_sheet() -> None:
    """28x28 images, enlarged by two, each as often as it was given."""
    images = pictures(8, 28, 1)
    rows = {
        "gDDIM order 2": [Entry(images[:4], "4.1"), Entry(images[4:])],
        "EM": [Entry(images[:4]), Entry(None, "failed")],
    }
    drawn = np.asarray(Sheet(["NFE 5", "NFE 10"], rows).draw())
    for number, image in enumerate(images):
        tile = np.broadcast_to(image.repeat(2, axis=0).repeat(2, axis=1), (56, 56, 3))
        assert places(drawn[::2, ::2], tile[::2, ::2]) == (2 if number < 4 else 1)


@pytest.mark.parametrize(
    ("size", "count", "shape"), [(28, 8, (114, 230)), (64, 8, (130, 262)), (8, 3, (56, 172)), (256, 8, (226, 226))]
)
def test_small_images_are_enlarged_and_large_ones_reduced(size: int, count: int, shape: tuple[int, int]) -> None:
    assert block(pictures(count, size)).size[::-1] == shape


def test_long_names_are_wrapped_beside_their_row() -> None:
    name = "cld-cifar10 vp: gDDIM order 2, λ = 0.3, K = L, no denoising step"
    lines = wrapped(name, LABEL)
    assert " ".join(lines) == name
    assert len(lines) > 1
    assert all(font().getlength(line) <= LABEL for line in lines)
    drawn = np.asarray(Sheet(["NFE 5"], {name: [Entry(pictures(1, 8, 1))]}).draw())
    assert (drawn[:, : MARGIN + LABEL] < 128).any()
    # All letters are there: what a font lacks is drawn as one and the same box.
    boxes = {bytes(font().getmask(letter)) for letter in "λη±—…\uffff"}
    assert len(boxes) == 6


def test_a_sheet_records_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(Sheet(["NFE 5"], {"a": [Entry(pictures(2, 8))]}).png('{"seed": 0, "λ": 1}'))
    with Image.open(path) as sheet:
        assert sheet.text["gddim"] == '{"seed": 0, "λ": 1}'
    assert text_of(path) == '{"seed": 0, "λ": 1}'
    path.write_bytes(path.read_bytes()[:200])
    assert text_of(path) == '{"seed": 0, "λ": 1}'
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_text("no picture")
    assert [text_of(tmp_path / f"{name}.png") for name in ("mine", "text", "none")] == [None] * 3


def steps(count: int, size: int = 8, channels: int = 1) -> list[np.ndarray]:
    return [pictures(7, size, channels, seed=number) for number in range(count)]


@pytest.mark.parametrize(("count", "columns"), [(4, [0, 1, 2, 3]), (51, [0, 6, 11, 17, 22, 28, 33, 39, 44, 50])])
def test_a_filmstrip_shows_a_few_images_from_noise_to_image(count: int, columns: list[int]) -> None:
    made = steps(count)
    found = strip(made)
    assert found.shape[:2] == (6 * 58 + 2, len(columns) * 58 + 2)
    for row in range(6):
        for place, step in enumerate(columns):
            tile = found[2 + 58 * row : 58 * (row + 1), 2 + 58 * place : 58 * (place + 1)]
            np.testing.assert_array_equal(tile[::7, ::7], made[step][row])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations_hold_every_step(tmp_path: Path, ending: str, channels: int) -> None:
    path, made = tmp_path / f"film.{ending}", steps(5, channels=channels)
    check_film("--trajectory", path)
    write_film(path, made, grid)
    first = path.read_bytes()
    write_film(path, made, grid)
    assert path.read_bytes() == first
    with Image.open(path) as film:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    assert len(frames) == 5
    if ending == "webp":  # without loss; a GIF has 256 colours
        for frame, images in zip(frames, made, strict=True):
            np.testing.assert_array_equal(frame, np.broadcast_to(grid(images), frame.shape))


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffmpeg")
def test_a_film_as_mp4(tmp_path: Path) -> None:
    """Odd sides are padded to even ones, and the last step is held for two seconds."""
    path = tmp_path / "film.mp4"
    write_film(path, steps(5, size=9, channels=3), lambda images: images[0])
    words = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=width,height,nb_read_frames",
        "-of",
        "csv=p=0",
    ]
    told = subprocess.run([*words, str(path)], capture_output=True, text=True, check=True).stdout.strip()
    assert told == f"10,10,{5 + 25}"


def test_a_missing_or_failing_encoder_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"film.mp4 needs the program ffmpeg, which is not installed; use .webp or .gif"
    ):
        check_film("--trajectory", tmp_path / "film.mp4")
    with pytest.raises(UsageError, match=r"film.avi does not end in .gif, .webp, .mp4, .png"):
        check_film("--trajectory", tmp_path / "film.avi")
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho Unknown encoder >&2\nexit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    check_film("--trajectory", tmp_path / "film.mp4")
    with pytest.raises(OutputError, match="ffmpeg failed: Unknown encoder"):
        write_film(tmp_path / "film.mp4", steps(2), grid)
    assert not (tmp_path / "film.mp4").exists()
