"""`gddim sample` as a person uses it, on a tiny checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.runs.folder import RunFolder
from gddim_cli.runs.generate import Generation
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.row_file import RowFile

SHORT = ("--nfe", 4, "--order", 2)


def pictures(folder: Path) -> np.ndarray:
    return np.stack([picture(path) for path in sorted(folder.glob("0*.png"))])


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to one gray level on at most 0.1 % of the pixels."""
    difference = np.abs(a.astype(int) - b.astype(int))
    return difference.max() <= 1 and (difference > 0).mean() <= 1e-3


@pytest.fixture
def sample(gddim, tiny: Path, tmp_path: Path):
    def run(*words: object, out: str = "imgs", short: tuple[object, ...] = SHORT):
        return gddim("sample", "--checkpoint", tiny, "--out", tmp_path / out, *short, *words)

    return run


def test_a_run_leaves_images_a_grid_and_its_record(sample, tmp_path: Path, tiny: Path) -> None:
    result = sample("--num", 6, "--seed", 5)
    assert result.status == 0, result.err
    assert result.out == ""
    assert "6 images" in result.err
    folder = tmp_path / "imgs"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".lock", *(f"{i:06d}.png" for i in range(6)), "grid.png", "manifest.json", "run.json"]
    assert pictures(folder).shape == (6, 8, 8)
    run = json.loads((folder / "run.json").read_text())
    assert run["complete"] is True
    assert (run["nfe"], run["num"], run["seed_range"]) == (4, 6, [0, 5])
    assert run["settings"]["seed"] == 5
    assert run["settings"]["denoise"] is True
    assert run["settings"]["checkpoint_sha256"] == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert run["sessions"][0]["versions"]["torch"]


def test_batches_do_not_change_images(sample, tmp_path: Path) -> None:
    raws = []
    for size in (1, 7, 64):
        assert (
            sample("--num", 64, "--batch-size", size, "--save-raw", tmp_path / f"{size}.npy", out=str(size)).status == 0
        )
        raws.append(np.load(tmp_path / f"{size}.npy"))
    assert raws[0].shape == (64, 2, 1, 8, 8)
    assert raws[0].dtype == np.float32
    for size, raw in zip((7, 64), raws[1:], strict=True):
        assert close(pictures(tmp_path / "1"), pictures(tmp_path / str(size)))
        np.testing.assert_allclose(raw, raws[0], atol=2e-4)


def test_more_images_continue_a_run_and_nothing_is_redone(sample, tmp_path: Path) -> None:
    sample("--num", 5)
    folder = tmp_path / "imgs"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("0*.png")}
    kept = pictures(folder)
    (folder / "000002.png").unlink()
    result = sample("--num", 9, "--batch-size", 3)
    assert result.status == 0
    assert "4 of 9 images exist, 5 to make" in result.err
    assert close(pictures(folder)[:5], kept)
    changed = [path.name for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert changed == ["000002.png"]
    again = sample("--num", 9)
    assert "all 9 images are already in" in again.err
    assert len(json.loads((folder / "run.json").read_text())["sessions"]) == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", 1], "seed: 0 -> 1"),
        (["--order", 1], "order: 2 -> 1"),
        (["--nfe", 5], "nfe: 4 -> 5"),
        (["--quantize", "round"], "quantize: floor -> round"),
        (["--dtype", "float64"], "dtype: float32 -> float64"),
        (["--format", "npz"], "format: png -> npz"),
    ],
)
def test_another_setting_in_the_same_folder_is_refused(sample, tmp_path: Path, words, named: str) -> None:
    sample("--num", 2)
    before = (tmp_path / "imgs" / "run.json").read_text()
    result = sample("--num", 2, *words)
    assert result.status == 2
    assert named in result.err
    assert "--overwrite" in result.err
    assert (tmp_path / "imgs" / "run.json").read_text() == before


def test_overwrite_removes_the_run_and_nothing_else(sample, tmp_path: Path) -> None:
    sample("--num", 5)
    (tmp_path / "imgs" / "notes.txt").write_text("mine")
    assert sample("--num", 2, "--seed", 1, "--overwrite").status == 0
    assert sorted(path.name for path in (tmp_path / "imgs").iterdir()) == [
        ".lock", "000000.png", "000001.png", "grid.png", "manifest.json", "notes.txt", "run.json",
    ]  # fmt: skip


def test_images_of_unknown_origin_are_not_mixed_in(sample, tmp_path: Path) -> None:
    sample("--num", 2)
    (tmp_path / "imgs" / "run.json").unlink()
    result = sample("--num", 4)
    assert result.status == 2
    assert "000000.png and 3 more, but no run.json" in result.err


def test_npz_runs_resume_and_end_as_one_shard(sample, tmp_path: Path) -> None:
    sample("--num", 6)
    assert sample("--num", 4, "--format", "npz", "--batch-size", 3, out="npz").status == 0
    assert sample("--num", 6, "--format", "npz", "--batch-size", 3, out="npz").status == 0
    assert [path.name for path in (tmp_path / "npz").glob("*.npz")] == ["images-000000-000005.npz"]
    with np.load(tmp_path / "npz" / "images-000000-000005.npz") as shard:
        assert close(shard["images"][..., 0], pictures(tmp_path / "imgs"))
        np.testing.assert_array_equal(shard["index"], range(6))


def test_own_noise_replaces_the_prior(sample, tmp_path: Path) -> None:
    from gddim_cli.diffusions.cld import CLD
    from gddim_cli.numerics.noise import standard_normal

    z = standard_normal(0, range(3), (2, 1, 8, 8))
    np.save(tmp_path / "u.npy", np.einsum("de,be...->bd...", CLD().prior_factor, z).astype(np.float32))
    sample("--num", 3)
    same = sample("--init-noise", tmp_path / "u.npy", out="own")
    assert (same.status, "standard deviation" in same.err) == (0, False)
    np.save(tmp_path / "z.npy", z.astype(np.float32))
    other = sample("--init-noise", tmp_path / "z.npy", out="other")
    assert other.status == 0
    assert "component 1 of the states has a standard deviation of" in other.err
    assert "that of the prior is 0.5" in other.err
    assert "component 0" not in other.err
    assert close(pictures(tmp_path / "own"), pictures(tmp_path / "imgs"))
    run = json.loads((tmp_path / "own" / "run.json").read_text())
    assert len(run["settings"]["init_noise_sha256"]) == 64
    assert run["num"] == 3


def test_another_diffusion_through_the_same_network(sample, tmp_path: Path) -> None:
    assert sample("--num", 2, "--diffusion", "vp", "--save-raw", tmp_path / "r.npy", "--json").status == 0
    run = json.loads((tmp_path / "imgs" / "run.json").read_text())
    assert run["settings"]["diffusion"] == "vp"
    assert run["settings"]["denoise"] is False
    assert np.load(tmp_path / "r.npy").shape == (2, 1, 8, 8)


def test_a_diffusion_from_a_file(sample, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("name: cld\nGamma: 0.8\n")
    assert sample("--num", 2, "--diffusion", tmp_path / "slow.yaml").status == 0
    run = json.loads((tmp_path / "imgs" / "run.json").read_text())
    assert run["settings"]["parameters"]["Gamma"] == 0.8


def test_json_goes_to_stdout_alone(sample) -> None:
    result = sample("--num", 1, "--json")
    assert json.loads(result.out)["complete"] is True


def test_trajectory_shows_every_step(sample, tmp_path: Path) -> None:
    sample("--num", 4)
    assert sample("--num", 4, "--batch-size", 3, "--trajectory", tmp_path / "t.gif").status == 0
    with Image.open(tmp_path / "t.gif") as film:
        assert film.n_frames == 1 + 4  # the noise first
        film.seek(4)
        last = np.asarray(film.convert("L"))
    assert close(last, picture(tmp_path / "imgs" / "grid.png"))


def test_raw_states_of_images_that_were_there_are_made_up_for(sample, tmp_path: Path) -> None:
    raw = tmp_path / "states.npy"
    sample("--num", 3)
    sample("--num", 3, "--save-raw", raw)
    first = np.load(raw)
    sample("--num", 5, "--save-raw", raw)
    assert np.load(raw).shape == (5, 2, 1, 8, 8)
    np.testing.assert_array_equal(np.load(raw)[:3], first)
    pixels = np.floor(np.clip(127.5 * (first[:, 0, 0] + 1), 0, 255)).astype(np.uint8)
    np.testing.assert_array_equal(pixels, pictures(tmp_path / "imgs")[:3])


def test_raw_rows_still_missing_are_known(tmp_path: Path) -> None:
    path = tmp_path / "r.npy"
    RowFile(path, 4, (1, 2, 2), "this", None, overwrite=False).store([1, 3], np.ones((2, 1, 2, 2)))
    assert RowFile(path, 6, (1, 2, 2), "this", None, overwrite=False).done(6) == {1, 3}
    assert RowFile(path, 6, (1, 2, 2), "another", None, overwrite=False).done(6) == set()
    assert not path.exists()


def test_damaged_raw_rows_are_missing(tmp_path: Path) -> None:
    """One changed bit in a row, a row of zeros, and checksums cut off; also when more rows are asked for."""
    path, shape = tmp_path / "r.npy", (1, 2, 2)
    RowFile(path, 4, shape, "this", None, overwrite=False).store(range(4), np.ones((4, *shape)))
    (partial,) = tmp_path.iterdir()
    rows = np.load(partial, mmap_mode="r+")
    rows[1, 0, 1, 1] = np.nextafter(np.float32(1), np.float32(2))
    rows[2] = 0
    rows.flush()
    assert RowFile(path, 4, shape, "this", None, overwrite=False).done(4) == {0, 3}
    longer = RowFile(path, 6, shape, "this", None, overwrite=False)
    assert longer.done(6) == {0, 3}
    longer.store([1, 2, 4, 5], np.ones((4, *shape)))
    os.truncate(partial, partial.stat().st_size - 8)
    assert RowFile(path, 6, shape, "this", None, overwrite=False).done(6) == {0, 1, 2, 3}
    os.truncate(partial, partial.stat().st_size - 16)
    rest = RowFile(path, 6, shape, "this", None, overwrite=False)
    assert rest.done(6) == set()
    rest.store(range(6), np.ones((6, *shape)))
    rest.finish()
    np.testing.assert_array_equal(np.load(path), np.ones((6, *shape), np.float32))
    assert path.stat().st_size == 128 + np.load(path).nbytes


@pytest.mark.parametrize("rows", [np.zeros((4, 3), np.float32), np.zeros((4, 1, 2, 2)), np.float32(1)])
def test_raw_rows_of_another_shape_are_refused(tmp_path: Path, rows: np.ndarray) -> None:
    path = tmp_path / "r.npy"
    RowFile(path, 4, (1, 2, 2), "this", None, overwrite=False)
    (partial,) = tmp_path.iterdir()
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "x.npy").rename(partial)
    with pytest.raises(DataError, match=r"partial: .*not rows of float32\[1, 2, 2\]; remove it and rerun"):
        RowFile(path, 4, (1, 2, 2), "this", None, overwrite=False)


def test_files_of_another_run_are_not_taken_for_this_ones(sample, tmp_path: Path) -> None:
    """States, films and the noise itself: each is refused or made anew, never adopted."""
    raw, film = tmp_path / "r.npy", tmp_path / "f.gif"
    sample("--num", 4, "--seed", 1, "--save-raw", raw, "--trajectory", film, out="a")
    first, shown = np.load(raw), film.read_bytes()
    sample("--num", 2, out="b")
    result = sample("--num", 2, "--save-raw", raw, out="b")
    assert result.status == 2
    assert "--save-raw: " in result.err
    assert "r.npy exists and was not written by this run; choose another name, or --force" in result.err
    np.testing.assert_array_equal(np.load(raw), first)
    refused = sample("--num", 2, "--trajectory", film, out="b")
    assert "--trajectory: " in refused.err
    assert sample("--num", 2, "--trajectory", film, "--overwrite", out="b").status == 2
    assert film.read_bytes() == shown
    assert sample("--num", 2, "--trajectory", film, "--save-raw", raw, "--force", out="b").status == 0
    assert film.read_bytes() != shown
    assert len(np.load(raw)) == 2
    np.save(tmp_path / "n.npy", first)
    result = sample("--init-noise", tmp_path / "n.npy", "--save-raw", tmp_path / "n.npy", out="c")
    assert (result.status, "is the --init-noise file" in result.err) == (2, True)


def test_a_film_grows_with_its_run(sample, tmp_path: Path) -> None:
    film = tmp_path / "f.gif"
    sample("--num", 3, "--trajectory", film)
    small = film.read_bytes()
    assert "all 3 images are already" in sample("--num", 3, "--trajectory", film).err
    sample("--num", 5, "--trajectory", film)
    with Image.open(film) as grown:
        assert grown.size == picture(tmp_path / "imgs" / "grid.png").shape[::-1]
    assert film.read_bytes() != small


def test_outputs_are_probed_before_work_and_before_overwriting(sample, tmp_path: Path) -> None:
    sample("--num", 2)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.gif").mkdir()
    for words in (["--save-raw", tmp_path / "file" / "r.npy"], ["--trajectory", tmp_path / "folder.gif"]):
        result = sample("--num", 2, "--overwrite", *words)
        assert result.status == 1
        assert "cannot be written" in result.err
        assert len(pictures(tmp_path / "imgs")) == 2


def test_a_persons_own_pictures_are_left_alone(sample, tmp_path: Path) -> None:
    sample("--num", 2)
    mine = tmp_path / "imgs" / "20240101.png"
    Image.new("L", (3, 3)).save(mine)
    assert "3 images in" in sample("--num", 3).err
    assert sample("--num", 2, "--seed", 1, "--overwrite").status == 0
    assert mine.exists()


def test_a_stochastic_samplers_noise_is_each_images_own(sample, tmp_path: Path) -> None:
    for size in (1, 5):
        words = ("--num", 5, "--lambda", 0.7, "--order", 0, "--batch-size", size)
        assert sample(*words, out=str(size)).status == 0
    assert close(pictures(tmp_path / "1"), pictures(tmp_path / "5"))


def test_rk45_takes_a_budget_or_a_tolerance(sample, tmp_path: Path) -> None:
    done = sample("--num", 1, "--sampler", "rk45", "--nfe", 40, "--rtol", 0.1)
    assert (done.status, "--nfe: with --rtol or --atol, rk45 chooses the number of evaluations" in done.err) == (
        2,
        True,
    )
    assert not (tmp_path / "imgs").exists()
    assert sample("--num", 1, "--sampler", "rk45", "--rtol", 0.1, short=()).status == 0


def test_rk45_keeps_its_batches_and_says_what_it_spent(sample, tmp_path: Path) -> None:
    words = ("--num", 5, "--sampler", "rk45", "--nfe", 40, "--batch-size", 3)
    assert sample(*words, short=()).status == 0
    run = json.loads((tmp_path / "imgs" / "run.json").read_text())
    assert abs(run["nfe"] - 40) <= 12
    assert run["tolerance"] > 0
    assert run["sessions"][0]["images"] == 5  # the last batch of three is computed whole, and one of it not kept
    kept = pictures(tmp_path / "imgs")
    (tmp_path / "imgs" / "000001.png").unlink()
    assert sample(*words, short=()).status == 0
    assert close(pictures(tmp_path / "imgs"), kept)
    assert "batch_size: 3 -> 4" in sample(*words[:-1], 4, short=()).err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_cut_goes_on(tiny: Path, tmp_path: Path, sample, how: signal.Signals) -> None:
    """Cut after some images; what is there is whole; the same command ends with the images of an uncut run."""
    folder = tmp_path / "cut"
    words = [
        "sample",
        "--checkpoint",
        tiny,
        "--out",
        folder,
        "--nfe",
        10,
        "--order",
        2,
        "--num",
        300,
        "--batch-size",
        7,
    ]
    command = [sys.executable, "-m", "gddim_cli", *map(str, words)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that spin beside the tests' own make this slow
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one_thread)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("0*.png"))) < 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    message = process.communicate()[1]
    there = sorted(folder.glob("0*.png"))
    assert 40 <= len(there) < 300
    for path in there:
        picture(path)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "rerun the same command to resume" in message
        assert "Traceback" not in message
        assert json.loads((folder / "run.json").read_text())["complete"] is False
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    assert "to make" in done.stderr
    sample("--num", 300, "--nfe", 10, out="whole")
    assert close(pictures(folder), pictures(tmp_path / "whole"))
    assert [file.name for file in folder.glob(".*")] == [".lock"]


def test_the_bundled_checkpoint_is_the_default_and_says_so(gddim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    result = gddim("sample", "--nfe", 10, "--num", 4, "--out", tmp_path / "imgs")
    assert result.status == 0
    assert "checkpoint: mnist (bundled; cld-cifar10 has not been downloaded)" in result.err
    assert pictures(tmp_path / "imgs").shape == (4, 28, 28)


def test_the_progress_of_an_adaptive_sampler_is_complete_only_at_its_end(tiny: Path, tmp_path: Path) -> None:
    """RK45 takes more steps than it was expected to; until the last one some of the work is left."""
    request = SamplingRequest.of({"checkpoint": str(tiny), "sampler": "rk45", "rtol": 1e-4})
    prepared = prepare(request, torch.device("cpu"))
    generation = Generation(RunFolder(tmp_path / "imgs", "png"), prepared, 2, 2)
    counts: list[tuple[int, int]] = []
    generation.run(generation.prepare(), lambda images: counts.append((images, prepared.model.network.nfe)))
    done = np.cumsum([images for images, _ in counts])
    assert done[-1] == 2 * prepared.sampler.steps < 2 * len(counts)
    assert (done[[nfe < counts[-1][1] for _, nfe in counts]] < done[-1]).all()
