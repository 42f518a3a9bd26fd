"""Images that are damaged, or made to mislead: one line each, without a hang, a full disk or much memory."""

from __future__ import annotations

import io
import os
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import folder_of, pictures, refusals

from gddim_cli.errors import DataError
from gddim_cli.runs.images import open_images


def read(path: Path, num: int | None = None) -> None:
    """All images of a source, from its start to its fingerprint."""
    source = open_images(path, num=num)
    for _ in source.batches(64):
        pass
    source.fingerprint()


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as found:
        read(path)
    assert "\n" not in str(found.value)


def npy(header: str) -> bytes:
    """An .npy with this header and a kilobyte of zeros behind it."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(1000)


HEADERS = {
    "10^8 images": ("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000, 28, 28)}", "truncated"),
    "12 digits": ("{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999, 999999999999, 28)}", "truncated"),
    "40 digits": (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 40}, 28, 28)}}", "truncated"),
    "negative": ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28)}", r"its shape is \[-1, 28, 28\]"),
    "no numbers": ("{'descr': '|u1', 'fortran_order': False, 'shape': ('a', 28)}", "read"),
    "true": ("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 28, 28)}", "its shape is"),
    "no literal": ("{'descr': '|u1', 'fortran_order': False, 'shape': (", "read"),
    "not a dictionary": ("'''", "read"),
    "deep": ("(" * 200 + ")" * 200, "read"),
    "objects": ("{'descr': '|O', 'fortran_order': False, 'shape': (9, 28, 28)}", "it holds Python objects"),
    "no type": ("{'descr': 'x9', 'fortran_order': False, 'shape': (9, 28, 28)}", "read"),
    "long": ("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 28, 28)}" + " " * 20000, "read"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_believed_as_far_as_the_file_is_long(tmp_path: Path, name: str) -> None:
    header, message = HEADERS[name]
    (tmp_path / "x.npy").write_bytes(npy(header))
    refused(tmp_path / "x.npy", rf"x.npy: cannot be read as an .npy: .*{message}|{message}")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy(header))
    refused(tmp_path / "x.npz", rf"x.npz: not a readable .npz: .*{message}|{message}")


def test_an_archive_cannot_claim_more_than_its_bytes_can_hold(tmp_path: Path) -> None:
    """The lengths in a .zip's directory say 78 GB, in a file of a kilobyte."""
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000, 28, 28)}")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header)
    content = (tmp_path / "x.npz").read_bytes().replace(struct.pack("<I", len(header)), struct.pack("<I", 0xFFFFFFF0))
    (tmp_path / "x.npz").write_bytes(content)
    refused(tmp_path / "x.npz", "truncated: uint8.* takes 78400000000 bytes, but there are only")


def test_a_pipe_is_not_an_image(tmp_path: Path) -> None:
    """It would wait for its writer for ever."""
    images = folder_of(tmp_path / "a", pictures(3, 28, 1))
    os.mkfifo(images / "00001b.png")
    refused(images, "00001b.png: not a plain file; remove it")
    for suffix in ("npy", "npz", "zip", "tar"):
        os.mkfifo(tmp_path / f"x.{suffix}")
        refused(tmp_path / f"x.{suffix}", f"x.{suffix}: not a plain file")
    (images / "00001b.png").unlink()
    (images / "00001b.png").symlink_to("/dev/zero")
    refused(images, "00001b.png: not a plain file")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes with this many black pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [8_000, 12_000, 20_000])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, size: int) -> None:
    images = folder_of(tmp_path / "a", pictures(3, 28, 1))
    (images / "1.png").write_bytes(bomb(size, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(images, r"1\.png: .*pixels")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_compressed_bomb_is_refused_by_its_length(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", b"")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 1 << 30)  # its length
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", r"0.png: 1073741824 bytes, but a picture file may have at most 268435456")
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "0.png").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    refused(tmp_path / "a", "0.png: 1099511627776 bytes")


def tar_of(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    """A .tar of two pictures; `change` alters the second one's header."""
    content = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(content, format="PNG")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("0.png", "1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"1.png")
    member = tarfile.TarInfo.frombuf(bytes(raw[at : at + 512]), "utf-8", "strict")
    change(member)
    raw[at : at + 512] = member.tobuf(tarfile.GNU_FORMAT)[:512]
    path.write_bytes(raw)
    return path


def test_a_tar_with_false_headers_is_refused(tmp_path: Path) -> None:
    def size(value: int) -> Callable[[tarfile.TarInfo], None]:
        return lambda member: setattr(member, "size", value)

    def kind(value: bytes) -> Callable[[tarfile.TarInfo], None]:
        return lambda member: setattr(member, "type", value)

    refused(tar_of(tmp_path / "a.tar", size(10**12)), "a.tar")
    refused(tar_of(tmp_path / "b.tar", size(-512)), "b.tar: ")
    refused(tar_of(tmp_path / "c.tar", size(-(10**6))), "c.tar: ")
    refused(tar_of(tmp_path / "d.tar", kind(tarfile.GNUTYPE_SPARSE)), "d.tar: .*")
    refused(tar_of(tmp_path / "e.tar", kind(tarfile.FIFOTYPE)), "e.tar: 1.png is a link or not a plain file")


def corpus(folder: Path, kind: str) -> Path:
    """A small valid source of each kind."""
    images = pictures(4, 12, 3)
    if kind in ("npz", "packed"):
        path = folder / "x.npz"
        (np.savez if kind == "npz" else np.savez_compressed)(path, images=images, labels=np.arange(4))
        return path
    if kind == "npy":
        np.save(folder / "x.npy", images)
        return folder / "x.npy"
    files = {}
    for i, (image, suffix) in enumerate(zip(images, ("png", "jpg", "bmp", "tif"), strict=True)):
        content = io.BytesIO()
        Image.fromarray(image).save(content, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        files[f"deep/{i}.{suffix}"] = content.getvalue()
    path = folder / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def survives(folder: Path, kind: str, cases: int, seed: int) -> int:
    """Reads damaged sources of a kind; the number of those that were refused. Anything but DataError is raised."""
    path = corpus(folder, kind)
    return refusals(path, lambda: (read(path), read(path, num=1)), cases, seed, DataError)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "zip", "tar"])
def test_damage_raises_no_other_error(tmp_path: Path, kind: str) -> None:
    assert survives(tmp_path, kind, 150, seed=1) > 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "zip", "tar"])
def test_much_damage_raises_no_other_error(tmp_path: Path, kind: str) -> None:
    assert survives(tmp_path, kind, 3000, seed=2) > 700


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_damaged_pictures_raise_no_other_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"0.{suffix}"
    Image.fromarray(pictures(1, 24, 3)[0]).save(path)
    assert refusals(path, lambda: read(tmp_path / "a"), 3000, 3, DataError) > 300
