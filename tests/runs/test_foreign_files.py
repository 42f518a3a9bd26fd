"""Files in a run's folder that the run did not write, under names of its own files: refused, and replaced with `--force`."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddim_cli.runs.folder import read_run
from gddim_cli.runs.kept_images import KeptImages


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
