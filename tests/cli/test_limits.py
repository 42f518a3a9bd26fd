"""Bounds of options and files, and outputs that exist already: one line each, before any long work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import folder_of, pictures

from gddim_cli.samplers import rk45

GIVEN_UP = "after 16 steps; give a looser --rtol or --atol"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num", 10**12], "--num: 1000000000000: expected a whole number from 1 to 10000000"),
        (["--nfe", 10**8], "--nfe: 100000000: expected a whole number from 1 to 100000"),
        (["--batch-size", 10**20], "--batch-size: 100000000000000000000: expected auto or a whole number from 1 to"),
        (["--seed", "9" * 5000], "--seed: inf: expected a whole number of at least 0"),
        (
            ["--rtol", 1e308, "--sampler", "rk45"],
            "--rtol: 1e+308: expected a number of at least 1e-12 and below 1e+300",
        ),
        (["--sampler", "rk45", "--time-grid", 2], "--time-grid: rk45 chooses its own steps; leave --time-grid out"),
    ],
)
def test_options_out_of_range(gddim: Callable, tiny: Path, tmp_path: Path, words: list, message: str) -> None:
    result = gddim("sample", "--checkpoint", tiny, "--out", tmp_path / "imgs", *words)
    assert (result.status, result.err.count("\n"), message in result.err) == (2, 1, True), result.err
    assert len(result.err) < 300


def test_rk45_gives_up_after_a_bounded_number_of_steps(
    gddim: Callable, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rk45, "MAX_STEPS", 3)
    words = ("--checkpoint", tiny, "--sampler", "rk45", "--rtol", 1e-9, "--num", 2, "--batch-size", 2)
    result = gddim("sample", *words, "--out", tmp_path / "imgs")
    assert (result.status, "RK45 has reached only t = " in result.err, GIVEN_UP in result.err) == (1, True, True)
    # A budget that needs more steps than the bound raises the bound.
    assert gddim("sample", *words[:4], "--nfe", 60, *words[6:], "--out", tmp_path / "more").status == 0


@pytest.mark.parametrize("words", [["--lambda", 10, "--order", 0], ["--sampler", "rk45", "--rtol", 1e299]])
def test_extreme_settings_leak_no_warning(tiny: Path, tmp_path: Path, words: list) -> None:
    command = [
        sys.executable,
        "-m",
        "gddim_cli",
        "sample",
        "--checkpoint",
        tiny,
        "-n",
        "2",
        "--batch-size",
        "2",
        "--quiet",
    ]
    done = subprocess.run(
        [*map(str, command), "--out", tmp_path / "imgs", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert "Warning" not in done.stderr
    assert done.stderr.count("\n") <= 1, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--nfe", "0"],
        ["sample", "--sampler", "gdim"],
        ["sample", "--format", "jpg"],
        ["bench", "--nfe", "0"],
        ["bench", "--preset", "none"],
        ["train", "no-such-recipe.yaml", "--data", "x"],
        ["fid", "x", "--metrics", "fd"],
        ["tune", "--nfe", "0"],
    ],
)
def test_a_usage_error_imports_no_torch(tmp_path: Path, words: list[str]) -> None:
    code = (
        "import sys\nfrom gddim_cli.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2", "False"], done.stdout + done.stderr


def test_coefficients_do_not_replace_a_file(gddim: Callable, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(b"mine")
    result = gddim("coefficients", "--nfe", 5, "--npz", path)
    assert (result.status, f"--npz: {path} exists and was not written by this run" in result.err) == (2, True)
    assert path.read_bytes() == b"mine"
    assert gddim("coefficients", "--nfe", 5, "--npz", path, "--force").status == 0
    assert np.load(path).files


@pytest.mark.parametrize("name", ["grid.png", "manifest.json"])
@pytest.mark.parametrize("words", [[], ["--overwrite"], ["--force"]])
def test_a_strangers_folder(gddim: Callable, tiny: Path, tmp_path: Path, name: str, words: list[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / name).write_bytes(b"mine")
    result = gddim("sample", "--checkpoint", tiny, "--nfe", 4, "-n", 2, "--out", folder, *words)
    assert (result.status, f"--out: {folder} holds {name}, but no run.json of a run" in result.err) == (2, True)
    assert (folder / name).read_bytes() == b"mine"


@pytest.mark.parametrize("n", [-5, 0, 1, 10**30])
def test_statistics_of_an_impossible_number_of_images(gddim: Callable, tmp_path: Path, n: int) -> None:
    path = tmp_path / "stats.npz"
    digits = folder_of(tmp_path / "digits", pictures(90, 28, 1))
    assert gddim("fid", "stats", digits, path).status == 0
    result = gddim("fid", digits, "--ref", changed(path, n))
    assert (result.status, "its array 'gddim' is damaged" in result.err) == (1, True), result.err
    assert str(n) not in result.out


def test_statistics_of_fewer_images_than_they_have_features(gddim: Callable, tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    digits = folder_of(tmp_path / "digits", pictures(90, 28, 1))
    assert gddim("fid", "stats", digits, path).status == 0
    result = gddim("fid", digits, "--ref", changed(path, 7))
    assert (result.status, "pool_3 has 90 rows for 7 images; the file is damaged" in result.err) == (1, True)


def changed(path: Path, n: int) -> Path:
    """The statistics with another number of images."""
    arrays = dict(np.load(path))
    about = json.loads(str(arrays["gddim"]))
    arrays["gddim"] = np.array(json.dumps(about | {"n": n}))
    np.savez(path, **arrays)
    return path


def test_statistics_do_not_replace_a_file_of_something_else(gddim: Callable, tmp_path: Path) -> None:
    digits, path = folder_of(tmp_path / "digits", pictures(90, 28, 1)), tmp_path / "stats.npz"
    path.write_bytes(b"mine")
    result = gddim("fid", "stats", digits, path)
    assert (result.status, f"{path} exists and holds something else; choose another name" in result.err) == (2, True)
    assert path.read_bytes() == b"mine"
    assert gddim("fid", "stats", digits, path, "--force").status == 0
    assert gddim("fid", "stats", digits, path).status == 0


def test_statistics_do_not_replace_those_of_other_images_of_the_same_name(
    gddim: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        folder_of(tmp_path / str(seed) / "digits", pictures(90, 28, 1, seed=seed))
    monkeypatch.chdir(tmp_path / "1")
    assert gddim("fid", "stats", "digits", tmp_path / "stats.npz").status == 0
    first = (tmp_path / "stats.npz").read_bytes()
    monkeypatch.chdir(tmp_path / "2")
    for words in (("stats", "digits", tmp_path / "stats.npz"), ("digits", "--save-stats", tmp_path / "stats.npz")):
        result = gddim("fid", *words)
        assert (result.status, "stats.npz exists and holds something else" in result.err) == (2, True), result.err
    assert (tmp_path / "stats.npz").read_bytes() == first


def test_statistics_do_not_replace_those_of_another_network(gddim: Callable, tmp_path: Path) -> None:
    digits, path = folder_of(tmp_path / "digits", pictures(90, 28, 1)), tmp_path / "stats.npz"
    network = tmp_path / "mean.py"
    network.write_text("def build(device):\n    return lambda images: images.flatten(1)[:, :8]\n")
    assert gddim("fid", "stats", digits, path).status == 0
    first = path.read_bytes()
    for words in (("stats", digits, path), (digits, "--ref", digits, "--save-stats", path)):
        result = gddim("fid", *words, "--features", f"{network}:build")
        assert (result.status, "stats.npz exists and was made with" in result.err) == (2, True), result.err
    assert path.read_bytes() == first


def test_a_long_name_is_shortened_in_the_message(gddim: Callable, tmp_path: Path) -> None:
    result = gddim("bench", "--sampler", "1" * 5000, "--out", tmp_path / "out")
    assert (result.status, "there is no sampler '111" in result.err) == (2, True), result.err
    assert max(map(len, result.err.splitlines())) < 500
