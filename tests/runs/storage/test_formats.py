"""Images in and out of every format, shards joined, manifests that tell the truth, equal runs equal bytes."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddim_cli.errors import DataError, OutputError
from gddim_cli.runs.storage import shards
from gddim_cli.runs.storage.manifest import read_manifest
from gddim_cli.runs.storage.registry import FORMATS, open_storage

PIXELS = np.random.default_rng(0).integers(0, 256, (25, 4, 5, 3), dtype=np.uint8)
SHARDED = ("npz", "tar")


def stored(folder: Path, format: str, batches: list[list[int]]):
    storage = open_storage(folder, format)
    for batch in batches:
        storage.store(batch, PIXELS[batch])
    return storage


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_stored_comes_back(tmp_path: Path, format: str, channels: int) -> None:
    storage = open_storage(tmp_path, format)
    order = [3, 0, 2, 7]
    for index in order:
        storage.store([index], PIXELS[[index], ..., :channels])
    assert storage.done(25) == set(order)
    assert storage.done(5) == {0, 2, 3}
    np.testing.assert_array_equal(storage.read([7, 0, 3]), PIXELS[[7, 0, 3], ..., :channels])
    with pytest.raises(DataError, match=r"000001|image 1 "):
        storage.read([0, 1])


@pytest.mark.parametrize("format", SHARDED)
def test_parts_that_hold_images_of_two_shards_lose_none(tmp_path: Path, monkeypatch, format: str) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 10)
    storage = stored(tmp_path, format, [list(range(first, min(first + 4, 25))) for first in range(0, 25, 4)])
    for _ in range(2):
        storage.join(25)
        names = [f"images-{span}.{format}" for span in ("000000-000009", "000010-000019", "000020-000024")]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        np.testing.assert_array_equal(storage.read(range(25)), PIXELS)
    with pytest.raises(DataError, match="image 25 is missing from the folder"):
        storage.read([25])


@pytest.mark.parametrize("format", SHARDED)
def test_a_part_with_holes_is_not_taken_for_its_shard(tmp_path: Path, format: str) -> None:
    """Two parts, one inside the other: the outer has the shard's name, and not its images."""
    storage = stored(tmp_path, format, [[1, 2], [0, 3]])
    storage.join(4)
    (shard,) = tmp_path.iterdir()
    assert storage.index(shard) == [0, 1, 2, 3]
    np.testing.assert_array_equal(storage.read(range(4)), PIXELS[:4])


@pytest.mark.parametrize("format", SHARDED)
def test_no_part_goes_before_all_images_are_found(tmp_path: Path, format: str) -> None:
    storage = stored(tmp_path, format, [[0, 1], [3]])
    with pytest.raises(DataError, match="image 2 is missing from the folder"):
        storage.join(4)
    assert storage.done(4) == {0, 1, 3}


@pytest.mark.parametrize("format", SHARDED)
def test_shards_do_not_depend_on_the_parts_that_they_were_joined_from(tmp_path: Path, format: str) -> None:
    shuffled = list(range(25))
    random.Random(1).shuffle(shuffled)
    ways = {"even": [list(range(k, min(k + 5, 25))) for k in range(0, 25, 5)], "odd": [[k] for k in shuffled]}
    found = []
    for name, batches in ways.items():
        (tmp_path / name).mkdir()
        stored(tmp_path / name, format, batches).join(25)
        (shard,) = (tmp_path / name).iterdir()
        found.append(shard.read_bytes())
    assert found[0] == found[1]


def test_tars_are_webdatasets(tmp_path: Path) -> None:
    """A sample a key, the key the index, each a PNG; read with the standard library alone."""
    stored(tmp_path, "tar", [[0, 1, 2]]).join(3)
    with tarfile.open(tmp_path / "images-000000-000002.tar") as archive:
        members = archive.getmembers()
        assert [entry.name for entry in members] == ["000000.png", "000001.png", "000002.png"]
        assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in members} == {(0, 0, 0, "")}
        for entry, pixels in zip(members, PIXELS[:3], strict=True):
            with Image.open(io.BytesIO(archive.extractfile(entry).read())) as image:
                np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("format", SHARDED)
def test_a_damaged_shard_is_named(tmp_path: Path, format: str) -> None:
    storage = stored(tmp_path, format, [list(range(8))])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) // 2 + 100):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=rf"{file.name}|image \d is missing from the folder"):
            storage.read(range(8))


def test_a_tar_shard_that_is_cut_between_two_images_is_damaged(tmp_path: Path) -> None:
    """tarfile takes the cut for the end of the archive."""
    storage = stored(tmp_path, "tar", [list(range(8))])
    (file,) = tmp_path.iterdir()
    with tarfile.open(file) as archive:
        cut = archive.getmembers()[5].offset
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"{file.name}: cannot be read \(it is damaged or cut after 000004.png\)"):
        storage.index(file)
    assert storage.damaged(8, None) == {file: set(range(8))}


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path, format: str) -> None:
    with pytest.raises(OutputError, match="its folder has been removed"):
        open_storage(tmp_path / "gone", format).store([0], PIXELS[:1])
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_the_manifest_is_what_sha256sum_says(gddim, tiny: Path, tmp_path: Path, monkeypatch, format: str) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 4)
    out = tmp_path / "imgs"
    words = ("sample", "--checkpoint", tiny, "--nfe", 3, "--format", format, "--out", out, "--batch-size", 3)
    assert gddim(*words, "--num", 6).status == 0
    manifest = read_manifest(out)
    assert (manifest.format, manifest.images) == (format, 6)
    if format == "png":
        listed = subprocess.run("sha256sum [0-9]*.png", shell=True, cwd=out, capture_output=True, check=True).stdout
        assert [(file.images, file.sha256) for file in manifest.files] == [((0, 5), hashlib.sha256(listed).hexdigest())]
    else:
        assert [file.images for file in manifest.files] == [(0, 3), (4, 5)]
        for file in manifest.files:
            content = (out / file.name).read_bytes()
            assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    before = (out / "manifest.json").read_bytes()
    assert gddim(*words, "--num", 6).status == 0
    assert (out / "manifest.json").read_bytes() == before
    assert gddim(*words, "--num", 7).status == 0
    assert read_manifest(out).images == 7
    assert json.loads((out / "run.json").read_text())["complete"] is True


def test_a_run_in_work_has_no_manifest(gddim, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "imgs"
    words = ("sample", "--checkpoint", tiny, "--nfe", 3, "--out", out)
    gddim(*words, "--num", 2)
    assert read_manifest(out) is not None

    def full(*_: object, **__: object) -> None:
        raise OutputError("no room")

    monkeypatch.setattr("gddim_cli.runs.storage.png.write_png", full)
    assert gddim(*words, "--num", 4).status == 1
    assert read_manifest(out) is None


@pytest.mark.parametrize("format", SHARDED)
@pytest.mark.parametrize("look", [lambda s: s.done(25), lambda s: set(s.locate(range(25)))])
def test_parts_that_are_joined_while_they_are_listed(tmp_path: Path, monkeypatch, format: str, look) -> None:
    """By another process, when the first of them has been read."""
    storage = stored(tmp_path, format, [list(range(k, k + 5)) for k in range(0, 25, 5)])
    real, read = type(storage).index, []

    def index(self, file: Path) -> list[int]:
        read.append(file)
        if len(read) == 2:
            storage.join(25)
        return real(self, file)

    monkeypatch.setattr(type(storage), "index", index)
    assert look(storage) == set(range(25))
    assert [file.name for file in tmp_path.iterdir()] == [f"images-000000-000024.{format}"]


@pytest.mark.parametrize("format", SHARDED)
def test_an_empty_shard_is_named_with_the_way_out(tmp_path: Path, format: str) -> None:
    storage = stored(tmp_path, format, [[0, 1]])
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{file.name}: .*; remove it and rerun the same command"):
        storage.done(2)
