from __future__ import annotations

import io
import json
import struct
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.images import open_images

pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.just(3), st.just(5), st.sampled_from([1, 3])))
KINDS = ("folder", "zip", "tar", "npz", "packed", "npy")


def png(image: np.ndarray, **how: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(content, format="PNG", **how)
    return content.getvalue()


def encoded(images: np.ndarray) -> dict[str, bytes]:
    """Names in their order, and contents; some deep."""
    return {
        f"{'b/c/' if 2 * i > len(images) else 'a/'}{i:06d}.{'PNG' if i else 'png'}": png(image)
        for i, image in enumerate(images)
    }


def write(target: Path, files: dict[str, bytes]) -> Path:
    """Files as a folder, a .zip or a .tar, whatever the target's suffix says; in reverse, so that the order is ours."""
    for name, content in reversed(files.items()):
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(name, content)
        elif target.suffix == ".tar":
            with tarfile.open(target, "a") as archive:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    return target


def laid_out(images: np.ndarray, where: Path, kind: str) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"x.{kind}"
    if kind == "npz":
        np.savez(path, x=images, labels=np.arange(len(images)))
    elif kind == "packed":
        path = where / "packed.npz"
        np.savez_compressed(path, images)
    elif kind == "npy":
        np.save(path, images[..., 0] if images.shape[-1] == 1 else images)
    else:
        write(path, encoded(images))
    return path


def all_of(source: ImageSource, size: int = 4, **which: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, *source.shape), np.uint8), *source.batches(size, **which)])


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


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


def deep_rgb() -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads as RGB and cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(24)) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(mode: str, kind: str = "PNG", size: tuple[int, int] = (4, 4), **how: object) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format=kind, **how)
    return content.getvalue()


BAD = {
    "truncated": (saved("RGB")[:-20], "not a readable image.*replace it or remove it"),
    "empty": (b"", "not a readable image"),
    "not an image": (b"hello", "not a readable image"),
    "truncated JPEG": (saved("RGB", "JPEG", (64, 64))[:-40], "not a readable image"),
    "16-bit grey": (saved("I;16"), "mode is I;16.*divide by 257"),
    "16-bit colour": (deep_rgb(), "mode is RGB of 16 bits.*divide by 257"),
    "float": (saved("F", "TIFF"), "mode is F;.*bring it to 0..255"),
    "RGBA": (saved("RGBA"), "mode is RGBA with transparency.*background"),
    "LA": (saved("LA"), "mode is LA with transparency"),
    "palette with transparency": (saved("P", transparency=0), "mode is P with transparency"),
    "colour key": (saved("RGB", transparency=(0, 0, 0)), "mode is RGB with transparency"),
    "LAB": (saved("LAB", "TIFF"), "mode is LAB.*save it as RGB"),
    "frames": (saved("RGB", "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4))]), "holds several frames"),
    "other size": (saved("RGB", size=(5, 4)), "5x4 RGB, but 0.png is 4x4 RGB.*convert it or move it away"),
    "grey among colour": (saved("L"), "4x4 grey, but 0.png is 4x4 RGB"),
}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("name", BAD)
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, name: str, kind: str) -> None:
    """Wherever it comes; what is before it is read."""
    content, message = BAD[name]
    good = {f"{i}.png": png(random_images(4, 4, 3)) for i in range(5)}
    source = open_images(write(tmp_path / f"x.{kind}", {**good, "deep/bad.png": content}))
    assert source.count == 6
    batches = source.batches(2)
    assert len(next(batches)) + len(next(batches)) == 4
    with pytest.raises(DataError, match=rf"x\.{kind}/deep/bad.png: .*{message}"):
        next(batches)
    if "but 0.png" not in message:
        with pytest.raises(DataError, match=rf"bad.png: .*{message}"):
            open_images(write(tmp_path / f"y.{kind}", {"bad.png": content}))


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


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_other_files_are_counted_and_no_images_is_an_error(tmp_path: Path, kind: str) -> None:
    text = {"a.txt": b"x", "deep/b.json": b"{}", "deep/._0.png": b"x", ".cache/1.png": b"x"}
    with pytest.raises(DataError, match=rf"x.{kind}: holds no images \(.png, .*\) and 4 other files; give"):
        open_images(write(tmp_path / f"x.{kind}", text))
    source = open_images(write(tmp_path / f"y.{kind}", {**text, "ü b\\ø.png": saved("L"), "b?*.png": saved("L")}))
    assert (source.count, source.ignored) == (2, 4)
    assert all_of(source).shape == (2, 4, 4, 1)


def test_archives_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def refuse(message: str, path: Path) -> None:
        with pytest.raises(DataError, match=message):
            all_of(open_images(path))

    whole = write(tmp_path / "a.zip", encoded(random_images(3, 8, 8, 3))).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.mkdir("photos.png")
        archive.writestr("__MACOSX/0.png", b"x")
    assert (open_images(tmp_path / "a.zip").count, open_images(tmp_path / "a.zip").ignored) == (3, 1)
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    refuse("cut.zip: cannot be read: File is not a zip file", tmp_path / "cut.zip")
    damaged = bytearray(whole)
    damaged[60] ^= 1
    (tmp_path / "damaged.zip").write_bytes(damaged)
    refuse(r"damaged.zip: b/c/000002.PNG: cannot be read: Bad CRC", tmp_path / "damaged.zip")
    locked = bytearray(whole)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    refuse(r"locked.zip: b/c/000002.PNG is encrypted; unpack it", tmp_path / "locked.zip")
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        link = tarfile.TarInfo("000001.png")
        link.type, link.linkname = tarfile.SYMTYPE, "000000.png"
        archive.addfile(link)
    refuse("links.tar: 000001.png is a link.*--dereference", tmp_path / "links.tar")
    (tmp_path / "no.tar").write_bytes(b"hello" * 300)
    refuse("no.tar: cannot be read", tmp_path / "no.tar")
    whole = write(tmp_path / "a.tar", encoded(random_images(3, 8, 8, 3))).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:600])
    refuse("cut.tar", tmp_path / "cut.tar")


def test_arrays_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def refuse(message: str, array: np.ndarray) -> None:
        np.save(tmp_path / "x.npy", array)
        np.savez(tmp_path / "x.npz", x=array)
        for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
            with pytest.raises(DataError, match=rf"{path.name}: .*{message}"):
                open_images(path)

    refuse(r"float32\[5, 4, 4, 3\]; floats: \[0, 1\] or \[-1, 1\]\?", np.zeros((5, 4, 4, 3), np.float32))
    refuse(r"float64\[5, 4, 4\]; floats", np.zeros((5, 4, 4)))
    refuse(r"int64\[5, 4, 4, 3\]; int64: .*astype\(np.uint8\)", np.zeros((5, 4, 4, 3), np.int64))
    refuse(
        r"uint8\[5, 3, 4, 4\]; the channels come first: save x.transpose\(0, 2, 3, 1\)",
        np.zeros((5, 3, 4, 4), np.uint8),
    )
    refuse(r"uint8\[5, 1, 4, 4\]; the channels come first", np.zeros((5, 1, 4, 4), np.uint8))
    refuse(r"uint8\[4, 4, 3\]; one image\?", np.zeros((4, 4, 3), np.uint8))
    refuse(r"uint8\[0, 4, 4, 3\]; save the images", np.zeros((0, 4, 4, 3), np.uint8))
    refuse(r"uint8\[5, 4, 4, 4\]", np.zeros((5, 4, 4, 4), np.uint8))
    np.savez(tmp_path / "two.npz", a=random_images(2, 4, 4), b=random_images(3, 4, 4))
    with pytest.raises(DataError, match=r"two.npz: .*name the array with --key"):
        open_images(tmp_path / "two.npz")
    np.testing.assert_array_equal(all_of(open_images(tmp_path / "two.npz", "b"))[..., 0], random_images(3, 4, 4))
    np.savez(tmp_path / "fortran.npz", np.asfortranarray(random_images(5, 4, 4, 3)))
    with pytest.raises(DataError, match=r"fortran.npz: in Fortran's order; save np.ascontiguousarray"):
        all_of(open_images(tmp_path / "fortran.npz"))
    for pack in (np.savez, np.savez_compressed):
        pack(tmp_path / "damaged.npz", random_images(50, 8, 8, 3))
        content = bytearray((tmp_path / "damaged.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "damaged.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"damaged.npz: array 'arr_0': cannot be read"):
            all_of(open_images(tmp_path / "damaged.npz"), 7)


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    def refuse(message: str, path: Path, key: str | None = None) -> None:
        with pytest.raises(DataError, match=message):
            open_images(path, key)

    refuse("none: no such file or folder; give a folder", tmp_path / "none")
    write(tmp_path / "x", {"0.png": saved("L"), "notes.txt": b"x"})
    refuse("0.png: a single image; give a folder", tmp_path / "x" / "0.png")
    refuse("notes.txt: not a kind of file that is read here; give a folder", tmp_path / "x" / "notes.txt")
    refuse("--key: .*x is not an .npz", tmp_path / "x", "images")
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    refuse("loop: a link to a folder that is searched already", tmp_path / "x")
    (tmp_path / "x" / "loop").unlink()
    (tmp_path / "x" / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"1.png: cannot be read: No such file"):
        all_of(open_images(tmp_path / "x"))
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "elsewhere").symlink_to(write(tmp_path / "z", {"0.png": saved("L")}))
    assert open_images(tmp_path / "y").count == 1


@pytest.mark.parametrize("format", ["png", "npz"])
def test_a_run_is_its_own_images(gddim: Callable, tiny: Path, tmp_path: Path, format: str) -> None:
    def sample(num: int) -> Path:
        out = tmp_path / "run"
        words = ["--nfe", "3", "--batch-size", "4", "--format", format, "--quantize", "round", "--out", out]
        assert gddim("sample", "--checkpoint", tiny, "--num", num, *words).status == 0
        return out

    run = sample(6)
    (run / "notes.txt").write_text("x")
    (run / "999999.png").write_bytes(saved("RGB"))  # not of the run, and of another size than grid.png
    source = open_images(run)
    assert (source.count, source.shape, source.quantize, source.ignored) == (6, (8, 8, 1), "round", 2)
    images = all_of(source)
    earlier = source.fingerprint()
    longer = open_images(sample(11))
    assert longer.count == 11
    np.testing.assert_array_equal(all_of(longer, 5)[:6], images)
    np.testing.assert_array_equal(all_of(open_images(run, num=6)), images)
    assert longer.fingerprint() != earlier
    with pytest.raises(DataError, match=r"--num 12: the run in .*run has 11 images; gddim sample --num 12"):
        open_images(run, num=12)


def cut_short(run: Path, **changes: object) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **changes}))


def test_a_run_that_is_not_whole_is_refused_with_the_way_out(gddim: Callable, tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert gddim("sample", "--checkpoint", tiny, "--num", 5, "--nfe", "3", "--out", run).status == 0
    whole = (run / "run.json").read_text()
    images = all_of(open_images(run))
    (run / "000003.png").unlink()
    with pytest.raises(DataError, match=r"not complete: 4 of 5 images.*rerun the same gddim sample command.*--num 3"):
        open_images(run)
    with pytest.raises(DataError, match=r"not complete: 4 of 5 images"):
        open_images(run, num=4)
    np.testing.assert_array_equal(all_of(open_images(run, num=3)), images[:3])
    cut_short(run, complete=False, num=3, brought_by="a later version")
    with pytest.raises(DataError, match=r"not complete: it was interrupted at its end; rerun.*--num 3"):
        open_images(run)
    (run / "000000.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 images are there; rerun the same gddim sample command$"):
        open_images(run)
    for content, message in {
        "{": "not the record of a run.*remove it",
        "{}": "not the record of a run",
        whole.replace('"png"', '"jxl"'): "its format is jxl",
    }.items():
        (run / "run.json").write_text(content)
        with pytest.raises(DataError, match=rf"run.json: {message}"):
            open_images(run)


def test_shards_make_one_source(tmp_path: Path) -> None:
    """Two shards of a run; a batch may lie in both, and a start past the first does not open it."""
    images = random_images(10, 4, 4, 3)
    record = {"format": "npz", "settings": {"quantize": "floor"}, "num": 10, "complete": True}
    (tmp_path / "run.json").write_text(json.dumps(record))
    for part in (range(6), range(6, 10)):
        name = f"images-{part[0]:06d}-{part[-1]:06d}.npz"
        np.savez(tmp_path / name, images=images[part.start : part.stop], index=np.array(part))
    source = open_images(tmp_path)
    for size in (1, 4, 7, 100):
        np.testing.assert_array_equal(all_of(source, size), images)
    np.testing.assert_array_equal(all_of(source, 3, start=5, stop=9), images[5:9])
    np.savez(tmp_path / "images-000006-000009.npz", images=images[6:8], index=np.arange(6, 10))
    with pytest.raises(
        DataError,
        match=r"images-000006-000009.npz: damaged, or not written by this run; rerun the same gddim sample command",
    ):
        open_images(tmp_path)
    np.savez(tmp_path / "images-000006-000009.npz", images=images[6:, :2], index=np.arange(6, 10))
    with pytest.raises(DataError, match=r"images-000006-000009.npz: 4x2 RGB, but images-000000-000005.npz is 4x4"):
        open_images(tmp_path)


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


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def refuse(message: str, path: Path, key: str | None = None) -> None:
        with pytest.raises(DataError, match=message):
            all_of(open_images(path, key))

    refuse("none: no such file or folder", tmp_path / "none")
    refuse("holds no images", tmp_path)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4, 4), np.uint8), b=np.zeros((2, 4, 4), np.uint8))
    refuse(r"needs one array.*found a uint8\[2, 4, 4\], b uint8.*--key", tmp_path / "two.npz")
    refuse("no array 'aa'; did you mean 'a'", tmp_path / "two.npz", "aa")
    assert all_of(open_images(tmp_path / "two.npz", "b")).shape == (2, 4, 4, 1)
    np.savez(tmp_path / "float.npz", a=np.zeros((2, 4, 4)))
    refuse(r"needs one array.*float64\[2, 4, 4\]", tmp_path / "float.npz")
    np.save(tmp_path / "single.npz.npy", np.zeros((2, 4, 4), np.uint8))
    assert all_of(open_images(tmp_path / "single.npz.npy")).shape == (2, 4, 4, 1)
    (tmp_path / "single.npz.npy").rename(tmp_path / "single.npz")
    refuse("not a readable .npz", tmp_path / "single.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    refuse("not a readable .npz", tmp_path / "cut.npz")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (4, 4)).save(photos / "a.png")
    Image.new("RGB", (4, 4)).save(photos / "b.png")
    Image.new("I;16", (4, 4)).save(photos / "0.png")
    refuse("0.png: its mode is I;16; 8-bit images without alpha are needed", photos)
    (photos / "0.png").unlink()
    refuse("--key: .*photos is not an .npz", photos, "x")
    refuse(r"b.png: 4x4 RGB, but a.png is 4x4 grey", photos)
    (photos / "b.png").write_bytes(b"\x89PNG")
    refuse("b.png: not a readable image", photos)
