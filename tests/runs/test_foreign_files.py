"""Files in a run's folder that the run did not write, under names of its own files: refused, and replaced with `--force`."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gddim_cli.images.sheet import Entry, Sheet
from gddim_cli.runs.kept_images import KeptImages
from gddim_cli.runs.record import read_run


@pytest.fixture
def sample(gddim, tiny: Path, tmp_path: Path):
    def run(*words: object, out: str = "imgs"):
        return gddim("sample", "--checkpoint", tiny, "--nfe", 3, "--out", tmp_path / out, *words)

    return run


def one_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("gddim: ")]
    return line


def mine(path: Path, size: int = 8) -> bytes:
    """Makes a person's own picture at `path`; returns its bytes."""
    Image.fromarray(np.arange(size * size, dtype=np.uint8).reshape(size, size)).save(path)
    return path.read_bytes()


def refuses(result, path: Path) -> bool:
    return result.status == 2 and f"--out: {path}" in result.err and "not written by this run" in one_line(result.err)


@pytest.mark.parametrize("words", [[], ["--num", 4], ["--overwrite"], ["--overwrite", "--seed", 1]])
@pytest.mark.parametrize("name", ["000001.png", "000003.png", "grid.png"])
def test_a_persons_picture_under_a_name_of_the_run(sample, tmp_path: Path, name: str, words: list) -> None:
    folder = tmp_path / "imgs"
    sample("--num", 2)
    path = folder / name
    content = mine(path)
    result = sample(*(["--num", 4] if name == "000003.png" else ["--num", 2]), *words)
    assert refuses(result, path), result.err
    assert path.read_bytes() == content
    done = sample("--num", 4, *words, "--force")
    assert done.status == 0, done.err
    sample("--num", 4, *(word for word in words if word != "--overwrite"), out="fresh")
    for file in (tmp_path / "fresh").glob("*.png"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def test_a_damaged_picture_is_made_again_and_one_of_the_runs_own_too(sample, tmp_path: Path) -> None:
    folder = tmp_path / "imgs"
    sample("--num", 3)
    whole = {file.name: file.read_bytes() for file in folder.glob("*.png")}
    shutil.copyfile(folder / "000000.png", folder / "000001.png")
    for name in ("000002.png", "grid.png"):
        (folder / name).write_bytes(whole[name][:-20])
    result = sample("--num", 3)
    assert result.status == 0, result.err
    assert {file.name: file.read_bytes() for file in folder.glob("*.png")} == whole


@pytest.mark.parametrize("form", ["npz", "tar"])
def test_shards_that_are_not_in_the_manifest(sample, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "imgs"
    sample("--num", 6, "--seed", 9, "--format", form, out="another")
    sample("--num", 3, "--format", form)
    for name in (f"images-000000-000005.{form}", f"images-000004-000005.{form}"):
        shutil.copyfile(tmp_path / "another" / f"images-000000-000005.{form}", folder / name)
        assert refuses(sample("--num", 6, "--format", form), folder / name)
        assert refuses(sample("--num", 6, "--format", form, "--overwrite"), folder / name)
        (folder / name).rename(tmp_path / name)
    shutil.copyfile(tmp_path / f"images-000004-000005.{form}", folder / f"images-000004-000005.{form}")
    assert sample("--num", 6, "--format", form, "--force").status == 0
    sample("--num", 6, "--format", form, out="fresh")
    for file in (tmp_path / "fresh").glob("images-*"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def test_pictures_unpacked_beside_their_archive(sample, tmp_path: Path) -> None:
    folder = tmp_path / "imgs"
    sample("--num", 2, "--format", "tar")
    with tarfile.open(folder / "images-000000-000001.tar") as archive:
        archive.extractall(folder, filter="data")
    assert sample("--num", 2, "--format", "tar").status == 0
    assert refuses(sample("--num", 2, "--overwrite"), folder / "000000.png")
    assert (folder / "images-000000-000001.tar").exists()
    assert sample("--num", 2, "--format", "tar", "--overwrite").status == 0
    assert (folder / "000001.png").exists()
    assert sample("--num", 2, "--overwrite", "--force").status == 0
    assert not (folder / "images-000000-000001.tar").exists()


def test_a_foreign_manifest_is_not_removed(sample, tmp_path: Path) -> None:
    sample("--num", 2)
    (tmp_path / "imgs" / "manifest.json").write_text('{"mine": 1}')
    result = sample("--num", 2, "--overwrite")
    assert (result.status, "manifest.json: cannot be read" in one_line(result.err)) == (1, True)
    assert (tmp_path / "imgs" / "manifest.json").read_text() == '{"mine": 1}'


def test_kept_images_record_a_larger_number_before_they_are_made(sample, tmp_path: Path) -> None:
    sample("--num", 2, "--format", "npz")
    run = read_run(tmp_path / "imgs")
    kept = KeptImages(tmp_path / "imgs", run.settings, 4)
    assert kept.start() == {0, 1}
    assert (read_run(kept.path).num, read_run(kept.path).complete) == (4, False)
    kept.images.store([2, 3], np.zeros((2, 8, 8, 1), np.uint8))
    assert kept.start() == {0, 1, 2, 3}


def jpeg(path: Path) -> None:
    Image.new("L", (8, 8), 9).save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").rename(path)


PLACED = {
    "a text": lambda path: path.write_text("mine"),
    "a JPEG": jpeg,
    "a pipe": os.mkfifo,
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "a picture too large": lambda path: os.truncate(mine(path) and path, 6 << 30),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", ["000001.png", "grid.png"])
@pytest.mark.parametrize("what", PLACED)
def test_other_things_under_a_name_of_the_run(sample, tmp_path: Path, what: str, name: str, finished: bool) -> None:
    path = tmp_path / "imgs" / name
    sample("--num", 2)
    if not finished:
        (path.parent / "manifest.json").unlink()
        if what == "a picture too large" and name != "grid.png":
            pytest.skip("in an unfinished run, a picture with this name is the run's own")
    path.unlink()
    PLACED[what](path)
    assert refuses(sample("--num", 2), path)
    assert os.path.lexists(path)
    assert sample("--num", 2, "--force").status == 0
    assert path.is_file()


@pytest.mark.parametrize("name", ["images-000000-999999999", "images-000001-" + "9" * 30])
@pytest.mark.parametrize("form", ["npz", "tar"])
def test_a_name_that_claims_many_images(sample, tmp_path: Path, form: str, name: str) -> None:
    sample("--num", 3, "--format", form)
    (tmp_path / "imgs" / "manifest.json").unlink()
    (tmp_path / "imgs" / f"{name}.{form}").write_bytes(bytes(600))
    assert sample("--num", 3, "--format", form).status == 0


def test_a_shard_that_unpacks_to_gigabytes(sample, tmp_path: Path) -> None:
    sample("--num", 3, "--format", "npz")
    shard = tmp_path / "imgs" / "images-000000-000002.npz"
    whole = shard.read_bytes()
    np.savez_compressed(shard, images=np.zeros((3, 8192, 8192, 1), np.uint8), index=np.arange(3))
    result = sample("--num", 3, "--format", "npz")
    assert result.status == 0, result.err
    assert shard.read_bytes() == whole


def test_an_unfinished_shard_that_has_an_image_twice(sample, tmp_path: Path) -> None:
    sample("--num", 3, "--format", "npz")
    shard = tmp_path / "imgs" / "images-000000-000002.npz"
    whole = shard.read_bytes()
    (tmp_path / "imgs" / "manifest.json").unlink()
    with np.load(shard) as arrays:
        images = arrays["images"]
    np.savez(shard, images=images, index=np.array([0, 1, 1]))
    result = sample("--num", 3, "--format", "npz")
    assert (result.status, "images-000000-000002.npz; making 3 images again" in result.err) == (0, True)
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("shape", [(3, 4, 4, 1), (3, 8, 8, 3)])
def test_an_unfinished_shard_of_another_size(sample, tmp_path: Path, shape: tuple) -> None:
    sample("--num", 3, "--format", "npz")
    (tmp_path / "imgs" / "manifest.json").unlink()
    np.savez(tmp_path / "imgs" / "images-000000-000002.npz", images=np.zeros(shape, np.uint8), index=np.arange(3))
    result = sample("--num", 3, "--format", "npz")
    assert (result.status, "but the model draws 8x8 gray" in one_line(result.err)) == (1, True)
    assert not (tmp_path / "imgs" / "manifest.json").exists()


def test_a_picture_of_another_size_in_an_unfinished_run(sample, tmp_path: Path) -> None:
    """Also behind the images of the grid."""
    sample("--num", 102)
    (tmp_path / "imgs" / "manifest.json").unlink()
    for name in ("000101.png", "000000.png"):
        path = tmp_path / "imgs" / name
        whole = path.read_bytes()
        Image.new("L", (9, 8)).save(path)
        result = sample("--num", 102)
        assert (result.status, name in result.err or "holds images of" in result.err) == (1, True), result.err
        assert not (tmp_path / "imgs" / "manifest.json").exists()
        path.write_bytes(whole)
    assert sample("--num", 102).status == 0


def test_a_whole_shard_of_a_person(sample, tmp_path: Path) -> None:
    sample("--num", 3, "--format", "npz")
    shard = tmp_path / "imgs" / "images-000000-000002.npz"
    np.savez(shard, images=np.zeros((3, 8, 8, 1), np.uint8), index=np.arange(3))
    assert refuses(sample("--num", 3, "--format", "npz"), shard)
    assert refuses(sample("--num", 3, "--format", "npz", "--overwrite"), shard)


def test_an_annotated_grid_and_a_sheet_in_its_place(sample, tmp_path: Path) -> None:
    sample("--num", 3)
    grid = tmp_path / "imgs" / "grid.png"
    with Image.open(grid) as picture:
        info = PngInfo()
        info.add_itxt("gddim", picture.text["gddim"])
        changed = Image.fromarray(np.asarray(picture) ^ 1)
    changed.save(grid, pnginfo=info)
    assert refuses(sample("--num", 3), grid)
    grid.write_bytes(Sheet(["NFE 5"], {"a": [Entry(None)]}).png("a sheet"))
    assert refuses(sample("--num", 3), grid)


def test_a_link_in_place_of_the_record(sample, tmp_path: Path) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    content = mine(folder / "000000.png")
    (folder / "run.json").symlink_to("nowhere")
    result = sample("--num", 2)
    assert (result.status, "imgs holds 000000.png and 1 more, but no run.json of a run" in result.err) == (2, True)
    assert (folder / "000000.png").read_bytes() == content


def test_a_strangers_folder_is_not_swept(sample, tmp_path: Path) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    for name in (".grid.png.original.tmp", "notes.txt"):
        (folder / name).write_text("mine")
    assert sample("--num", 2).status == 2
    assert (folder / ".grid.png.original.tmp").read_text() == "mine"


@pytest.mark.parametrize("name", ["000000.png", "grid.png"])
def test_a_film_under_a_name_of_the_run(sample, tmp_path: Path, name: str) -> None:
    result = sample("--num", 2, "--trajectory", tmp_path / "imgs" / name)
    assert (result.status, f"{name} is the name of a file of the run itself" in result.err) == (2, True)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_outputs_replace_no_pipe_and_no_link(sample, gddim, tmp_path: Path, make) -> None:
    for name in ("r.npy", "f.gif", "c.npz"):
        make(tmp_path / name)
    results = [
        sample("--num", 2, "--save-raw", tmp_path / "r.npy"),
        sample("--num", 2, "--trajectory", tmp_path / "f.gif"),
    ]
    results.append(gddim("coefficients", "--nfe", 5, "--npz", tmp_path / "c.npz"))
    assert all(result.status == 2 and "was not written by this run" in result.err for result in results)
    assert not any((tmp_path / name).is_file() for name in ("r.npy", "f.gif", "c.npz"))


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"batch_size": -3}, {"images": 10**400}, {"nfe": -1}])
def test_impossible_numbers_in_the_record(sample, tmp_path: Path, change: dict) -> None:
    sample("--num", 2)
    path = tmp_path / "imgs" / "run.json"
    run = json.loads(path.read_text())
    run["sessions"][0] |= change
    path.write_text(json.dumps(run))
    result = sample("--num", 4, "--batch-size", "auto")
    assert (result.status, "run.json: cannot be read as a run" in one_line(result.err)) == (1, True)
