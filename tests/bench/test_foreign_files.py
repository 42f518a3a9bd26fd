"""A benchmark's folder: files of others are left alone, and stored results are believed only if they are unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def bench(gddim: Callable, tiny: Path, tmp_path: Path) -> Callable:
    def run(*words: object):
        plan = ("--checkpoint", tiny, "--ref", "none", "--nfe", 2, "--sampler", "gddim", "--out", tmp_path / "b")
        return gddim("bench", *plan, *words)

    return run


@pytest.mark.parametrize("plan", ['{"my": "plan"}', None])
def test_a_folder_with_a_file_called_plan_is_not_a_benchmarks(bench, tmp_path: Path, plan: str | None) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "table.md").write_text("mine")
    (folder / "plan.json").write_text(plan) if plan else (folder / "plan.json").symlink_to("nowhere")
    result = bench()
    assert (result.status, "holds plan.json and 1 more, but no cells of a benchmark" in result.err) == (2, True)
    assert (folder / "table.md").read_text() == "mine"


def test_only_plots_of_an_earlier_plan_are_removed(bench, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    assert bench().status == 0
    own = {path.name for path in folder.glob("*.png")}
    assert own
    mine = ("samples-holiday.png", "fid_vs_nfe-paper.svg", "kid_vs_nfe.png")
    for name in mine:
        (folder / name).write_text("mine")
    results = json.loads((folder / "results.json").read_text())
    assert own <= {*results["files"]}
    results["files"].append("error_vs_nfe-old.png")
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "error_vs_nfe-old.png").write_text("of an earlier plan")
    assert bench().status == 0
    assert all((folder / name).read_text() == "mine" for name in mine)
    assert not (folder / "error_vs_nfe-old.png").exists()


@pytest.mark.parametrize(
    "change", [{"nfe": 3.0}, {"features": "../x"}, {"device": "my own"}, {"tolerance": 0.1}, {"checksum": "0"}]
)
def test_an_edited_result_is_not_believed(bench, tmp_path: Path, change: dict) -> None:
    assert bench().status == 0
    (path,) = (tmp_path / "b" / "cells").glob("*.json")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | change))
    result = bench()
    assert (result.status, f"{path}: damaged, edited, or of another cell; remove it" in result.err) == (1, True)
    path.unlink()
    assert bench().status == 0
    assert json.loads(path.read_text())["nfe"] == whole["nfe"]
