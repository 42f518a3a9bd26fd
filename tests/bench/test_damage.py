"""Files that are damaged, memory that runs out, folders with other files: the cell fails, or starts again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gddim_cli.bench import run
from gddim_cli.bench.results import Folder
from gddim_cli.errors import NumericsError
from gddim_cli.runs import solver_error
from gddim_cli.runs.batch_size import BatchSizeProbe
from gddim_cli.runtime.row_file import PartialRows

ONE = ("--nfe", "4", "--num", "6", "--batch-size", "4")


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.mark.parametrize("shape", [None, (), (6,), (6, 0), (6, 3), (7, 3), (6, 1, 1)], ids=str)
def test_a_damaged_partial_is_started_again(bench, tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    """Garbage, or an array of another shape."""
    assert bench(*ONE, out="good").status == 0
    (cell,) = results(tmp_path / "good")
    key, features = cell["key"], cell["features"]
    assert bench(*ONE).status == 0
    (tmp_path / "out" / "cells" / f"{key}.json").unlink()
    path = tmp_path / "out" / "partial" / f"features.npy.{features}.partial"
    path.write_bytes(b"garbage")
    if shape is not None:
        with path.open("wb") as file:
            np.save(file, np.zeros(shape, np.float32))
    status = bench("--status", tmp_path / "out", "--json")
    assert status.status == 0, status.err
    result = bench(*ONE)
    assert result.status == 0, result.err
    assert results(tmp_path / "out") == results(tmp_path / "good")


def test_a_damaged_row_of_a_partial_is_measured_again(bench, tmp_path: Path, monkeypatch) -> None:
    """One changed number among the features of an unfinished cell."""
    assert bench(*ONE, out="good").status == 0
    (cell,) = results(tmp_path / "good")
    with monkeypatch.context() as patch:
        patch.setattr(PartialRows, "forget", lambda _: None)
        assert bench(*ONE).status == 0
    folder = tmp_path / "out"
    (folder / "cells" / f"{cell['key']}.json").unlink()

    def rows_left() -> int:
        return json.loads(bench("--status", folder, "--json").out)["missing"][cell["key"]]["images"]

    assert rows_left() == 6
    rows = np.load(folder / "partial" / f"features.npy.{cell['features']}.partial", mmap_mode="r+")
    rows[1, 3] += 1
    rows.flush()
    assert rows_left() == 5
    assert bench(*ONE).status == 0
    assert results(folder) == results(tmp_path / "good")


def test_a_damaged_run_of_images_fails_its_cell_only(bench, tmp_path: Path) -> None:
    words = ("--nfe", "4,5", "--num", "6", "--batch-size", "4", "--keep-images")
    assert bench(*words).status == 0
    first, second = (cell["features"] for cell in results(tmp_path / "out"))
    (tmp_path / "out" / "images" / first / "run.json").write_text("{}")
    result = bench(*words)
    assert result.status == 1
    assert "1 of 2 cells failed" in result.err
    bad, good = results(tmp_path / "out")
    assert "run.json: cannot be read" in bad["failed"]
    assert (good["features"], good.get("failed")) == (second, None)


def test_a_solver_error_that_fails_is_reported_in_its_place_and_tried_again(bench, tmp_path: Path, monkeypatch) -> None:
    words = (*ONE, "--solver-error", "--solver-error-images", "2")
    with monkeypatch.context() as patch:
        patch.setattr(solver_error, "solve", lambda *_: (_ for _ in ()).throw(NumericsError("it left the numbers")))
        assert bench(*words).status == 1
    made = json.loads((tmp_path / "out" / "results.json").read_text())
    (cell,) = made["results"]
    assert cell["value"] is not None
    assert (cell["solver_error"]["rms"], cell["solver_error"]["failed"]) == (None, "it left the numbers")
    assert not made["complete"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| gDDIM order 2 | failed |" in table
    assert "Failed: gDDIM order 2: solver error: it left the numbers." in table
    status = json.loads(bench("--status", tmp_path / "out", "--json").out)
    assert (status["done"], list(status["failed"].values())) == ([], ["solver error: it left the numbers"])
    assert bench(*words).status == 0
    assert results(tmp_path / "out")[0]["solver_error"]["rms"] > 0


def out_of_memory(*_words: object, **_named: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("owner", "name", "words"),
    [
        (solver_error, "solve", (*ONE, "--solver-error")),
        (run.Runner, "_begin", ONE),
        (BatchSizeProbe, "mean_seconds", (*ONE, "--print-plan")),
    ],
    ids=["solver error", "model", "estimate"],
)
def test_memory_that_runs_out_is_a_line(bench, monkeypatch: pytest.MonkeyPatch, owner, name: str, words) -> None:
    monkeypatch.setattr(owner, name, out_of_memory)
    result = bench(*words)
    assert result.status == 1
    assert "4 images at once do not fit in the memory of cpu; give a smaller --batch-size" in result.err
    assert "Traceback" not in result.err


def test_only_plots_of_its_own_are_removed(bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bench(*ONE, "--solver-error", "--solver-error-images", "2").status == 0
    assert (out / "error_vs_nfe.svg").exists()
    mine = [out / name for name in ("my_fid_vs_nfe.png", "fid_vs_nfe.csv", "time_vs_nfe.svg", "fid_vs_nfe (copy).png")]
    for path in (
        *mine,
        out / "fid_vs_nfe-old.png",
    ):  # The name of the last is like that of a plot, but it is not listed.
        path.write_text("x")
    assert bench(*ONE).status == 0
    assert all(path.exists() for path in mine)
    assert {path.name for path in out.glob("*_vs_nfe*")} - {path.name for path in mine} == {
        "fid_vs_nfe.png",
        "fid_vs_nfe.svg",
        "fid_vs_nfe-old.png",
    }


@pytest.mark.parametrize("part", ["request", "evaluator", "bytes", "type"])
def test_kept_files_that_none_of_ours_wrote_are_named(bench, gddim, tmp_path: Path, part: str) -> None:
    assert bench(*ONE).status == 0
    (path,) = (tmp_path / "out" / "cells").iterdir()
    found = json.loads(path.read_text())
    if part == "bytes":
        path.write_bytes(path.read_bytes().replace(b"cpu", b"\xff\xff\xff"))
    else:
        name, value = {"request": ("quantize", None), "evaluator": ("metric", None), "type": ("nfe", "ten")}[part]
        mapping = found["evaluator" if part == "evaluator" else "request"]
        del mapping[name]
        if value:
            mapping[name] = value
        path.write_text(json.dumps(found))
    for result in (
        bench(*ONE),
        bench("--status", tmp_path / "out"),
        gddim("bench", "compare", tmp_path / "out", tmp_path / "out"),
    ):
        assert result.status == 1
        assert f"{path}: cannot be read" in result.err, result.err


def test_an_interrupted_run_compares_by_its_plan(bench, gddim, tmp_path: Path) -> None:
    words = ("--nfe", "4,5", "--num", "6")
    assert bench(*words, out="a").status == bench(*words, out="b").status == 0
    cut = Folder(tmp_path / "b")
    (cut.path / "results.json").unlink()
    (cut.path / "cells" / f"{results(tmp_path / 'a')[1]['key']}.json").unlink()
    result = gddim("bench", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert result.status == 0, result.err
    assert [(pair["nfe"], pair["in_b"], pair["b"] is None) for pair in json.loads(result.out)] == [
        (4, True, False), (5, True, True),
    ]  # fmt: skip


def test_a_folder_of_a_users_own_files_is_refused(bench, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table.md").write_text("mine")
    result = bench(*ONE)
    assert result.status == 2
    assert "out holds table.md, but no cells of a benchmark; choose a new or an empty folder" in result.err
    assert (tmp_path / "out" / "table.md").read_text() == "mine"
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {"table.md", ".lock"}
