"""Archives that are cut short, damaged, or compressed so that a few bytes fill the memory: one line each."""

from __future__ import annotations

import io
import resource
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, png, random_images, write

from gddim_cli.checkpoints.formats.torch_outline import outline_of
from gddim_cli.errors import DataError
from gddim_cli.runs.images import open_images
from gddim_cli.runtime.arrays import read_archive, read_member


def count(path: Path) -> int:
    return sum(len(batch) for batch in open_images(path).batches(64))


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as found:
        count(path)
    assert "\n" not in str(found.value)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return write(tmp_path / "x.tar", encoded(random_images(6, 16, 16, 3)))


def offset(path: Path, number: int) -> int:
    """Where the header of a member begins; past the last member, where the archive ends."""
    with tarfile.open(path) as archive:
        return [*(member.offset for member in archive), archive.offset][number]


def test_a_tar_that_is_cut_is_refused(tar: Path) -> None:
    whole = tar.read_bytes()
    assert count(tar) == 6
    for number in (3, 6):
        for more in (0, 100, 511):
            tar.write_bytes(whole[: offset(tar, number) + more])
            refused(tar, r"x\.tar: cannot be read: it is damaged or cut after .*\.(png|PNG); make the file again")
            tar.write_bytes(whole)
    tar.write_bytes(whole[: offset(tar, 6) + tarfile.BLOCKSIZE])  # one block of zeros is enough for tar programs
    assert count(tar) == 6


@pytest.mark.parametrize("damage", [b"\xff" * 100, bytes(512)])
def test_a_tar_with_a_damaged_header_is_refused(tar: Path, damage: bytes) -> None:
    content = bytearray(tar.read_bytes())
    at = offset(tar, 3)
    content[at : at + len(damage)] = damage
    tar.write_bytes(content)
    refused(tar, "it is damaged or cut after")


def test_a_second_tar_behind_the_first_is_refused(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes() * 2)
    refused(tar, "it is damaged or cut after")


def test_the_rest_of_a_tar_is_not_read_without_end(tar: Path) -> None:
    with tar.open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    refused(tar, "it is damaged or cut after")


@pytest.mark.parametrize(("packing", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
@pytest.mark.parametrize("damaged", [False, True])
def test_only_stored_and_deflated_members_are_read(tmp_path: Path, packing: int, name: str, damaged: bool) -> None:
    array = io.BytesIO()
    np.save(array, random_images(4, 8, 8, 3))
    contents = {"x.zip": ("0.png", png(random_images(8, 8, 3))), "x.npz": ("images.npy", array.getvalue())}
    for file, (member, content) in contents.items():
        with zipfile.ZipFile(tmp_path / file, "w", packing) as archive:
            archive.writestr(member, content)
        if damaged:
            raw = bytearray((tmp_path / file).read_bytes())
            raw[60:90] = bytes(30)
            (tmp_path / file).write_bytes(raw)
        refused(tmp_path / file, rf"{file}: {member} is compressed with {name}; .* pack it again")
    for read in (lambda: read_archive(tmp_path / "x.npz"), lambda: read_member(tmp_path / "x.npz", "images")):
        with pytest.raises(DataError, match=f"images.npy is compressed with {name}"):
            read()


def test_a_member_that_unpacks_to_more_than_it_claims_is_not_unpacked(tmp_path: Path) -> None:
    path, length = tmp_path / "x.zip", 400 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("0.png", "w") as member:
        for _ in range(length >> 20):
            member.write(bytes(1 << 20))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", length), struct.pack("<I", 1000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "0.png: cannot be read: Bad CRC-32")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_torch_zip_is_no_checkpoint(tmp_path: Path, packing: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w", packing) as archive:
        archive.writestr("x/data.pkl", random_images(1000).tobytes())
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[45:90] = b"\xff" * 45
    (tmp_path / "x.pth").write_bytes(content)
    assert outline_of(tmp_path / "x.pth") is None
