"""Output folders of gddim sample, and shards, as sources of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import all_of, random_images, saved

from gddim_cli.errors import DataError
from gddim_cli.runs.images import open_images


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
    with pytest.raises(DataError, match=r"not complete: it was interrupted after its last image; rerun.*--num 3"):
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
