"""Sources of images: the same images from every kind, fingerprints, and reading ahead."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from image_files import all_of, encoded, laid_out, png, random_images, saved, write
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode
from gddim_cli.runs.images import open_images

pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.just(3), st.just(5), st.sampled_from([1, 3])))
KINDS = ("folder", "zip", "tar", "npz", "packed", "npy")


@settings(max_examples=25, deadline=None)
@given(pixels, st.integers(1, 10), st.integers(0, 10), st.none() | st.integers(0, 10))
def test_every_kind_holds_the_same_images_whatever_the_batches(tmp_path_factory, images, size, start, stop) -> None:
    where = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        source = open_images(laid_out(images, where, kind))
        assert (source.count, source.shape, source.quantize) == (len(images), images.shape[1:], None)
        batches = list(source.batches(size, start, stop))
        assert all(len(batch) == size for batch in batches[:-1])
        expected = images[start:stop]
        assert sum(map(len, batches)) == len(expected)
        if batches:
            assert batches[0].dtype == np.uint8
            np.testing.assert_array_equal(np.concatenate(batches), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_num_is_a_fixed_random_choice(tmp_path: Path, kind: str) -> None:
    """In the images' order, the same ones in every call, and part of a larger choice."""
    images = random_images(40, 4, 4, 3)
    path = laid_out(images, tmp_path, kind)
    few, more = open_images(path, num=15), open_images(path, num=25)
    assert (few.count, few.chosen_from) == (15, 40)
    rows = np.sort(np.random.default_rng(0).permutation(40)[:15])
    assert not np.array_equal(rows, np.arange(15))
    for size in (1, 4, 100):
        np.testing.assert_array_equal(all_of(few, size), images[rows])
    np.testing.assert_array_equal(all_of(few, 2, start=3, stop=9), images[rows[3:9]])
    np.testing.assert_array_equal(few.read_all(4), images[rows])
    assert set(rows) < set(more.rows)
    np.testing.assert_array_equal(
        all_of(more.at_most(15)), all_of(more)[np.sort(np.random.default_rng(0).permutation(25)[:15])]
    )
    assert more.at_most(15).chosen_from == 40
    prints = {source.fingerprint() for source in (few, more, open_images(path))}
    assert len(prints) == 3
    assert few.fingerprint() == open_images(path, num=15).fingerprint()
    whole = open_images(path, num=40)
    assert (whole.chosen_from, whole.fingerprint()) == (None, open_images(path).fingerprint())
    images = images[:7]
    path = laid_out(images, tmp_path / "seven", kind)
    with pytest.raises(DataError, match=rf"--num 8: .*{path.name} holds 7 images"):
        open_images(path, num=8)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_fingerprint_notices_every_change(tmp_path: Path, kind: str) -> None:
    files = encoded(random_images(4, 4, 4, 1))
    first, *_, last = files
    other = bytearray(files[last])
    other[-1] ^= 1

    def fingerprint(name: str, changed: dict[str, bytes]) -> str:
        return open_images(write(tmp_path / f"{name}.{kind}", changed)).fingerprint()

    same = fingerprint("same", files)
    assert same == fingerprint("again", files)
    assert same == fingerprint("with_notes", {**files, "notes.txt": b"not an image"})
    changes = {
        "byte": {**files, last: bytes(other)},
        "gone": {name: content for name, content in files.items() if name != last},
        "more": {**files, "z.png": files[first]},
        "renamed": {name.replace("000001", "000010"): content for name, content in files.items()},
        "swapped": {**files, first: files[last], last: files[first]},
    }
    assert len({same, *(fingerprint(name, changed) for name, changed in changes.items())}) == 1 + len(changes)


@pytest.mark.parametrize("kind", ["npz", "packed", "npy"])
def test_a_fingerprint_notices_a_changed_array(tmp_path: Path, kind: str) -> None:
    images = random_images(4, 4, 4, 3)
    same = open_images(laid_out(images, tmp_path / "a", kind)).fingerprint()
    assert same == open_images(laid_out(images, tmp_path / "b", kind)).fingerprint()
    images[3, 3, 3, 2] ^= 1
    assert same != open_images(laid_out(images, tmp_path / "c", kind)).fingerprint()


@given(st.data())
def test_no_damage_of_a_png_goes_unnoticed(data: st.DataObject) -> None:
    """Pillow itself decodes many of these to other pixels without a word."""
    image = random_images(6, 5, 3)
    content = bytearray(png(image))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataError, match=r"a.png: not a readable image|a.png: its mode"):
        decode(bytes(content), "a.png")


def test_modes_become_grey_or_colour(tmp_path: Path) -> None:
    colours = Image.fromarray(random_images(4, 4, 3))
    for mode in ("1", "L", "P", "RGB"):
        (tmp_path / mode).mkdir()
        image = colours.convert(mode)
        image.save(tmp_path / mode / "a.png")
        expected = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB")).reshape(1, 4, 4, -1)
        np.testing.assert_array_equal(all_of(open_images(tmp_path / mode)), expected)
    (tmp_path / "print").mkdir()
    (tmp_path / "print" / "a.JPG").write_bytes(saved("CMYK", "JPEG"))
    assert open_images(tmp_path / "print").shape == (4, 4, 3)
    for suffix in ("png", "bmp", "webp", "tif"):
        (tmp_path / suffix).mkdir()
        how = {"lossless": True} if suffix == "webp" else {}
        colours.save(tmp_path / suffix / f"a.{suffix.upper()}", **how)
        np.testing.assert_array_equal(all_of(open_images(tmp_path / suffix))[0], np.asarray(colours))


def test_leaving_early_ends_the_threads(tmp_path: Path) -> None:
    path = laid_out(random_images(40, 64, 64, 3), tmp_path, "zip")
    before = threading.active_count()
    batches = open_images(path).batches(2)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before

    def interrupted() -> None:
        for _ in open_images(path).batches(2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_larger_pictures_keep_their_order_with_two_threads(tmp_path: Path, kind: str) -> None:
    images = random_images(60, 64, 64, 1)
    source = open_images(laid_out(images, tmp_path, kind))
    assert source._threads == 2
    np.testing.assert_array_equal(all_of(source, 7), images)


def test_no_more_is_read_ahead_than_a_few_batches(tmp_path: Path, monkeypatch) -> None:
    from gddim_cli.images import pictures as picture_sources

    decoded = []
    monkeypatch.setattr(picture_sources, "decode", lambda content, name: decoded.append(name) or decode(content, name))
    source = open_images(laid_out(random_images(60, 4, 4, 3), tmp_path, "folder"))
    decoded.clear()
    batches = source.batches(5)
    next(batches)
    batches.close()
    assert 5 <= len(decoded) <= 15


@pytest.mark.parametrize("kind", ["npz", "packed", "npy", "tar"])
def test_memory_does_not_grow_with_the_images(tmp_path: Path, kind: str) -> None:
    images = random_images(300, 64, 64, 3)  # 3.7 MB
    path = laid_out(images, tmp_path, kind)
    tracemalloc.start()
    try:
        assert sum(len(batch) for batch in open_images(path).batches(10)) == 300
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2


def test_images_of_a_folder_and_of_an_npz_are_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / ("deep" if i else "") / f"{i}.png")
    np.savez(tmp_path / "a.npz", x=pixels, labels=np.arange(3))
    from_folder, from_npz = all_of(open_images(tmp_path / "photos")), all_of(open_images(tmp_path / "a.npz"))
    assert from_npz.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(np.sort(from_folder, axis=0), np.sort(from_npz, axis=0))
