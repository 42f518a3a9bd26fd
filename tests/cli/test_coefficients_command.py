"""`gddim coefficients`: what a person who ports the method reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest


def test_json_is_the_golden_grid(gddim, golden: dict) -> None:
    result = gddim("coefficients", "--diffusion", "cld", "--nfe", 50, "--order", 2, "--k", "R", "--json")
    assert (result.status, result.err) == (0, "")
    found = json.loads(result.out)
    grid = next(g for g in golden["grids"] if (g["steps"], g["order"], g["K"]) == (49, 2, "R"))
    assert list(found) == ["t", "Psi", "C", "last"]
    for name in ("t", "Psi", "C"):
        assert np.abs(np.array(found[name]) - np.array(grid[name])).max() < 1e-9
    assert np.shape(found["last"]) == (2, 2, 2)


def test_steps_are_nfe_less_the_denoising_step(gddim) -> None:
    def count(*words: object) -> int:
        return len(json.loads(gddim("coefficients", *words, "--nfe", 7, "--json").out)["Psi"])

    assert count("--diffusion", "cld") == 6
    assert count("--diffusion", "cld", "--no-denoise") == 7
    assert count("--diffusion", "vp") == 7
    assert count("--diffusion", "vp", "--denoise") == 6


def test_vp_blocks_are_one_by_one(gddim) -> None:
    found = json.loads(gddim("coefficients", "--diffusion", "vp", "--nfe", 3, "--order", 1, "--json").out)
    assert np.shape(found["Psi"]) == (3, 1, 1)
    assert np.shape(found["C"]) == (3, 2, 1, 1)


def test_npz_and_json_are_the_same_numbers(gddim, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    printed = json.loads(gddim("coefficients", "--nfe", 5, "--json", "--npz", path).out)
    with np.load(path) as stored:
        assert stored["C"].dtype == np.float64
        for name in printed:
            np.testing.assert_array_equal(stored[name], printed[name])


def test_the_table_shows_every_step(gddim) -> None:
    out = gddim("coefficients", "--nfe", 4, "--order", 1).out
    assert "cld, K = R, order 1, NFE 4" in out
    for word in ("0.001", "last", "C1"):
        assert word in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nfe", 1], "--nfe: 1 is too few"),
        (["--order", 5], "--order: 5: expected a whole number from 0 to 3"),
        (["--diffusion", "vpp"], "did you mean 'vp'"),
        (["--npz", "c.txt"], "--npz: c.txt does not end in .npz"),
    ],
)
def test_refusals(gddim, words, message: str) -> None:
    result = gddim("coefficients", *words)
    assert result.status == 2
    assert message in result.err
    assert result.out == ""


def test_an_npz_that_cannot_be_written(gddim, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = gddim("coefficients", "--nfe", 4, "--npz", tmp_path / "file" / "c.npz")
    assert (result.status, result.out) == (1, "")
    assert "file/c.npz: cannot be written" in result.err
