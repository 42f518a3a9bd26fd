"""`gddim sample --compare`: a sheet of several samplers and budgets from the same noises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def compare(gddim, tiny: Path, tmp_path: Path):
    """Runs `gddim sample --compare TEXT WORDS` on the tiny checkpoint."""
    return lambda text, *words: gddim(
        "sample", "--compare", text, *words, "--checkpoint", tiny, "--out", tmp_path / "sheet.png", "--device", "cpu"
    )


def requests(path: Path) -> list[dict]:
    """What a sheet records."""
    with Image.open(path) as sheet:
        return json.loads(sheet.text["gddim"])


def test_a_row_for_each_sampler_and_a_column_for_each_budget(compare, tmp_path: Path) -> None:
    done = compare("gddim:2,em,gddim:0:lambda=0.3,heun:time_grid=linear", "--nfe", "4,6", "--num", "3", "--seed", "5")
    assert done.status == 0, done.err
    assert done.err.endswith("sheet.png: 4 samplers, 2 values of NFE, 3 images per cell\n")
    found = requests(tmp_path / "sheet.png")
    assert [(one["sampler"], one["nfe"]) for one in found] == [
        (sampler, nfe) for sampler in ("gddim", "em", "gddim", "heun") for nfe in (4, 6)
    ]
    assert [one["options"].get("order") for one in found[::2]] == [2, None, 0, None]
    assert (found[4]["options"]["lambda"], found[6]["time_grid"]) == (0.3, 1.0)
    assert {one["seed"] for one in found} == {5}


def test_its_images_are_those_of_sample(compare, gddim, tiny: Path, tmp_path: Path) -> None:
    assert compare("em", "--nfe", "5", "--num", "2").status == 0
    words = ("--sampler", "em", "--nfe", "5", "--num", "2", "--checkpoint", tiny, "--out", tmp_path / "imgs")
    assert gddim("sample", *words).status == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        drawn = np.asarray(sheet.convert("L"))
    for index in range(2):
        with Image.open(tmp_path / "imgs" / f"{index:06d}.png") as image:
            tile = np.asarray(image).repeat(7, axis=0).repeat(7, axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(drawn, tile.shape)[:, :, ::7, ::7]
        near = np.abs(windows.astype(int) - tile[::7, ::7]).max(axis=(2, 3)) <= 1
        assert near.any(), index


def test_what_a_sampler_cannot_make_is_left_out_with_a_note(compare, tmp_path: Path) -> None:
    done = compare("gddim,dpm++2m,heun,dpm++2m:diffusion=vp", "--nfe", "1,4", "--num", "1", "--json")
    assert done.status == 0, done.err
    assert "note: left out: --sampler dpm++2m: needs a diffusion of state dimension 1" in done.err
    found = json.loads(done.out)["requests"]
    assert ("heun", 4) in {(one["sampler"], one["nfe"]) for one in found}
    assert ("heun", 1) not in {(one["sampler"], one["nfe"]) for one in found}
    assert {one["diffusion"] for one in found if one["sampler"] == "dpm++2m"} == {"vp"}
    alone = compare("dpm++2m", "--nfe", "4")
    assert (alone.status, "state dimension 1" in alone.err) == (2, True)


def test_a_row_can_be_the_papers_scheme_and_a_solver_that_is_missing_leaves_its_cell_empty(
    gddim, tmp_path: Path
) -> None:
    """The sheet of the documentation: of the budgets, one has no fitted solver in the package."""
    words = ("--compare", "gddim:preset=paper,gddim,tuned", "--nfe", "5,6", "--num", "1", "--checkpoint", "mnist")
    done = gddim("sample", *words, "--out", tmp_path / "sheet.png", "--device", "cpu")
    assert done.status == 0, done.err
    assert "note: left out: --solver auto: no solver has been fitted to mnist through cld at NFE 6" in done.err
    paper, default, tuned = ([one for one in requests(tmp_path / "sheet.png") if chosen(one)] for chosen in (
        lambda one: one["options"].get("predict") == "eps",
        lambda one: one["options"].get("predict") == "x0",
        lambda one: one["sampler"] == "tuned",
    ))  # fmt: skip
    assert [(one["nfe"], one["options"]["order"], one["k"], one["time_grid"]) for one in paper] == [
        (nfe, 2, "R", 2.0) for nfe in (5, 6)
    ]
    assert [one["nfe"] for one in default] == [5, 6]
    assert [one["nfe"] for one in tuned] == [5]


def test_only_a_sheet_of_the_same_settings_is_replaced(compare, tmp_path: Path) -> None:
    words = ("gddim", "--nfe", "4", "--num", "1")
    assert compare(*words).status == 0
    assert compare(*words).status == 0
    first = (tmp_path / "sheet.png").read_bytes()
    other = compare(*words, "--seed", "7")
    assert (other.status, "sheet.png is a sheet of other settings; choose another" in other.err) == (2, True), other.err
    assert (tmp_path / "sheet.png").read_bytes() == first
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    refused = compare(*words)
    assert (refused.status, "exists and was not written by this run" in refused.err) == (2, True)
    assert compare(*words, "--force").status == 0


@pytest.mark.parametrize(
    ("text", "words", "named"),
    [
        ("gdim", (), "--compare: there is no sampler 'gdim'; did you mean 'gddim'?"),
        (",", (), "--compare: name at least one sampler"),
        ("gddim:9", (), "--compare gddim:order: 9: expected"),
        ("gddim:colour=red", (), "'colour=red': expected an order, or a setting as key=value"),
        ("gddim:2:order=1", (), "'order=1': expected an order"),
        ("gddim:preset=papre", (), "--preset: there is no preset 'papre'; did you mean 'paper'"),
        ("gddim:3:preset=paper", (), "--order 3: the preset paper has 2"),
        (
            "gddim",
            ("--preset", "paper"),
            "--preset: with --compare, write the preset after a sampler's name, as in gddim:preset=paper",
        ),
        ("gddim,gddim", (), "--compare: gDDIM order 2, x0 is listed twice"),
        ("em:2", (), "--order: unsupported by em"),
        ("em", ("--nfe", "5,x"), "--nfe: 'x': expected a whole number"),
        ("em", ("--sampler", "gddim"), "--sampler: --compare names the samplers"),
        ("em", ("--num", "65"), "a sheet has at most 64 images"),
        ("em", ("--num", "0"), "--num: 0: expected a whole number from 1"),
        ("em", ("--trajectory", "a.gif"), "--trajectory: unsupported by --compare"),
        ("em", ("--format", "npz"), "--format: unsupported by --compare"),
        ("em", ("--batch-size", "auto"), "--batch-size auto: unsupported by --compare"),
    ],
)
def test_bad_comparisons_are_refused(compare, tmp_path: Path, text: str, words: tuple[str, ...], named: str) -> None:
    done = compare(text, "--nfe", "4", "--num", "1", *words)
    assert (done.status, named in done.err) == (2, True), done.err
    assert not (tmp_path / "sheet.png").exists()


def test_the_sheet_needs_a_png(gddim, tiny: Path, tmp_path: Path) -> None:
    done = gddim("sample", "--compare", "em", "--nfe", "4", "--checkpoint", tiny, "--out", tmp_path / "sheet.jpg")
    assert (done.status, "sheet.jpg does not end in .png" in done.err) == (2, True)
