"""Images, archives and arrays that cannot be used are named, with the way out."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import all_of, deep_rgb, encoded, png, random_images, saved, write
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.runs.images import open_images

BAD = {
    "truncated": (saved("RGB")[:-20], "not a readable image.*replace it or remove it"),
    "empty": (b"", "not a readable image"),
    "not an image": (b"hello", "not a readable image"),
    "truncated JPEG": (saved("RGB", "JPEG", (64, 64))[:-40], "not a readable image"),
    "16-bit gray": (saved("I;16"), "mode is I;16.*divide 16-bit values by 257"),
    "16-bit colour": (deep_rgb(), "mode is RGB of 16 bits.*divide 16-bit values by 257"),
    "float": (saved("F", "TIFF"), "mode is F,.*scale it to 0..255"),
    "RGBA": (saved("RGBA"), "mode is RGBA with transparency.*background"),
    "LA": (saved("LA"), "mode is LA with transparency"),
    "palette with transparency": (saved("P", transparency=0), "mode is P with transparency"),
    "colour key": (saved("RGB", transparency=(0, 0, 0)), "mode is RGB with transparency"),
    "LAB": (saved("LAB", "TIFF"), "mode is LAB.*save it as RGB"),
    "frames": (saved("RGB", "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4))]), "holds several frames"),
    "other size": (saved("RGB", size=(5, 4)), "5x4 RGB, but 0.png is 4x4 RGB.*convert it or move it away"),
    "gray among colour": (saved("L"), "4x4 gray, but 0.png is 4x4 RGB"),
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

    refuse(r"float32\[5, 4, 4, 3\]; convert floats to uint8 first", np.zeros((5, 4, 4, 3), np.float32))
    refuse(r"float64\[5, 4, 4\]; convert floats", np.zeros((5, 4, 4)))
    refuse(r"int64\[5, 4, 4, 3\]; scale int64 values .*astype\(np.uint8\)", np.zeros((5, 4, 4, 3), np.int64))
    refuse(
        r"uint8\[5, 3, 4, 4\]; the channels come first: save x.transpose\(0, 2, 3, 1\)",
        np.zeros((5, 3, 4, 4), np.uint8),
    )
    refuse(r"uint8\[5, 1, 4, 4\]; the channels come first", np.zeros((5, 1, 4, 4), np.uint8))
    refuse(r"uint8\[4, 4, 3\]; this looks like one image", np.zeros((4, 4, 3), np.uint8))
    refuse(r"uint8\[0, 4, 4, 3\]; save the images", np.zeros((0, 4, 4, 3), np.uint8))
    refuse(r"uint8\[5, 4, 4, 4\]", np.zeros((5, 4, 4, 4), np.uint8))
    np.savez(tmp_path / "two.npz", a=random_images(2, 4, 4), b=random_images(3, 4, 4))
    with pytest.raises(DataError, match=r"two.npz: .*name the array with --key"):
        open_images(tmp_path / "two.npz")
    np.testing.assert_array_equal(all_of(open_images(tmp_path / "two.npz", "b"))[..., 0], random_images(3, 4, 4))
    np.savez(tmp_path / "fortran.npz", np.asfortranarray(random_images(5, 4, 4, 3)))
    with pytest.raises(DataError, match=r"fortran.npz: the array is in Fortran order; save np.ascontiguousarray"):
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
    refuse("notes.txt: not a supported kind of file; give a folder", tmp_path / "x" / "notes.txt")
    refuse("--key: .*x is not an .npz", tmp_path / "x", "images")
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    refuse("loop: a link to a folder that has already been searched", tmp_path / "x")
    (tmp_path / "x" / "loop").unlink()
    (tmp_path / "x" / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"1.png: cannot be read: No such file"):
        all_of(open_images(tmp_path / "x"))
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "elsewhere").symlink_to(write(tmp_path / "z", {"0.png": saved("L")}))
    assert open_images(tmp_path / "y").count == 1


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
    refuse("0.png: its mode is I;16, but 8-bit images without alpha are needed", photos)
    (photos / "0.png").unlink()
    refuse("--key: .*photos is not an .npz", photos, "x")
    refuse(r"b.png: 4x4 RGB, but a.png is 4x4 gray", photos)
    (photos / "b.png").write_bytes(b"\x89PNG")
    refuse("b.png: not a readable image", photos)
