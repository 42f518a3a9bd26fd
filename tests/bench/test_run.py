"""Running: kept, interrupted, failed and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gddim_cli.errors import NumericsError
from gddim_cli.images.quantize import quantize
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runtime.arrays import read_member
from gddim_cli.runtime.files import locked

from .conftest import stand_in

WORDS = (
    "--sampler",
    "gddim,em",
    "--order",
    "0,2",
    "--nfe",
    "4,6",
    "--num",
    "10",
    "--batch-size",
    "4",
    "--seeds",
    "0,1",
)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def numbers(folder: Path) -> list[float]:
    return [result["value"] for result in results(folder)["results"]]


def files(folder: Path) -> dict[str, bytes]:
    """All that a run leaves but the record of calls."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("sessions.json", ".lock")
    }


def test_a_run_measures_what_sample_and_fid_measure(bench, gddim, small: Path, tmp_path: Path) -> None:
    """The same images as `gddim sample`, the same number as `gddim fid`."""
    result = bench("--nfe", "6", "--num", "20", "--seeds", "3", "--keep-images", "--json")
    assert result.status == 0, result.err
    (cell,) = json.loads(result.out)["results"]
    kept = tmp_path / "out" / "images" / cell["features"]
    made = tmp_path / "imgs"
    shared = ("--checkpoint", small, "--nfe", "6", "--num", "20", "--seed", "3", "--preset", "paper", "--format", "npz")
    words = (*shared, "--out", made)
    assert gddim("sample", *words).status == 0
    shard = "images-000000-000019.npz"
    np.testing.assert_array_equal(read_member(kept / shard, "images"), read_member(made / shard, "images"))
    fid = json.loads(gddim("fid", kept, "--ref", "mnist", "--json").out)
    assert cell["value"] == pytest.approx(fid["value"], rel=1e-6)
    assert cell["request"]["checkpoint_sha256"]
    assert cell["evaluator"]["metric"] == "FD(lenet-mnist)"
    assert gddim("sample", *words[:-1], kept).err.startswith("all 20 images are already in")


def test_every_cell_is_done_once(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench(*WORDS)
    assert first.status == 0, first.err
    before = files(tmp_path / "out")
    assert not list((tmp_path / "out" / "partial").glob("*"))
    assert not (tmp_path / "out" / "images").exists()
    monkeypatch.setattr(PreparedRun, "run", lambda *_: pytest.fail("a cell was made again"))
    assert bench(*WORDS).status == 0
    assert files(tmp_path / "out") == before
    assert len(json.loads((tmp_path / "out" / "sessions.json").read_text())) == 1


def test_a_larger_plan_resumes_a_smaller(bench, tmp_path: Path) -> None:
    bench("--nfe", "4", "--num", "6")
    result = bench("--nfe", "4,5", "--num", "6")
    assert result.status == 0
    assert len(numbers(tmp_path / "out")) == 2
    sessions = json.loads((tmp_path / "out" / "sessions.json").read_text())
    assert [len(session["cells"]) for session in sessions] == [1, 1]


def test_the_batch_size_changes_no_number(bench, tmp_path: Path) -> None:
    for size in (3, 10):
        words = ("--sampler", "gddim,em", "--nfe", "5", "--num", "10", "--batch-size", size)
        assert bench(*words, out=str(size)).status == 0
    np.testing.assert_allclose(numbers(tmp_path / "3"), numbers(tmp_path / "10"), rtol=1e-3)


def test_rk45_is_measured_at_what_it_spends(bench, tmp_path: Path) -> None:
    result = bench("--sampler", "rk45", "--nfe", "40", "--num", "6", "--batch-size", "4", "--solver-error")
    assert result.status == 0, result.err
    (cell,) = results(tmp_path / "out")["results"]
    assert cell["tolerance"] > 0
    assert cell["request"]["batch_size"] == 4
    assert abs(cell["nfe"] - 40) <= 12
    key = cell["key"]
    assert bench("--sampler", "rk45", "--nfe", "40", "--num", "6", "--batch-size", "5").status == 0
    assert results(tmp_path / "out")["results"][0]["key"] != key


def test_metrics_of_the_same_images_share_them_and_their_features(bench, tmp_path: Path, monkeypatch) -> None:
    """One pass of the network for several metrics, each with the value that it has alone, also after one has failed."""
    words = ("--nfe", "5", "--num", "12", "--batch-size", "6", "--keep-images")
    for metric in ("fid", "kid:subsets=2"):
        assert bench(*words, "--metric", metric, out=metric[:3]).status == 0
    runs, inner = [], PreparedRun.run
    monkeypatch.setattr(PreparedRun, "run", lambda self, *words: runs.append(1) or inner(self, *words))
    metrics = ("--metric", "fid,kid:subsets=2,prdc:k=3")
    with monkeypatch.context() as patch:
        patch.setattr("gddim_cli.evaluation.metrics.prdc.prdc", lambda *_: (_ for _ in ()).throw(NumericsError("no")))
        first = bench(*words, *metrics)
    assert first.status == 1
    assert "1 of 3 cells failed" in first.err
    assert len(runs) == 2
    found = results(tmp_path / "out")["results"]
    assert [one["value"] for one in found] == [*numbers(tmp_path / "fid"), *numbers(tmp_path / "kid"), None]
    assert len({one["features"] for one in found}) == len(list((tmp_path / "out" / "images").iterdir())) == 1
    assert bench(*words, *metrics).status == 0
    assert len(runs) == 2  # the features of the cell that failed were kept
    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {"fid_vs_nfe.png", "kid_vs_nfe.png", "prdc_vs_nfe.png", "samples.png"}


def test_cells_start_from_given_states(bench, gddim, tmp_path: Path) -> None:
    path = tmp_path / "u.npy"
    np.save(path, np.random.default_rng(0).standard_normal((4, 2, 1, 28, 28), dtype=np.float32))
    words = ("--nfe", "4", "--init-noise", path, "--solver-error-images", "2")
    assert bench(*words, "--num", "4", "--seeds", "0").status == 0
    (one,) = results(tmp_path / "out")["results"]
    assert one["request"]["init_noise_sha256"]
    assert one["solver_error"]["rms"] > 0
    refused = bench(*words, "--num", "5", out="other")
    assert (refused.status, "--init-noise: holds 4 states, fewer than the 5 images" in refused.err) == (2, True), (
        refused.err
    )


def test_progress_is_reported_during_solver_errors_too(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While piped: a line after each interval, with the share of the cell and the time left, whatever the network works on."""
    monkeypatch.setattr("gddim_cli.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    lines = bench("--nfe", "4", "--num", "4", "--solver-error", "--solver-error-images", "2").err.splitlines()
    assert len([line for line in lines if line.startswith("0 of 1 cell, gDDIM order 2, NFE 4, seed 0: ")]) > 600
    shares = [int(line.split(": ")[1].split(" %")[0]) for line in lines if " %" in line]
    assert shares == sorted(shares)
    assert 95 <= shares[-1] <= 100
    assert any(line.endswith(" left") for line in lines[:-3])


KILLED = """
import os, signal, sys
from gddim_cli.bench import report, run
from gddim_cli.cli.main import main
from gddim_cli.runs import solver_error
from gddim_cli.runtime.row_file import PartialRows, RowFile

def killing(owner, name, call, before):
    inner, count = getattr(owner, name), [0]
    def counted(*words, **named):
        count[0] += 1
        if count[0] == call and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*words, **named)
        if count[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, counted)

def halved(self, indices, states, inner=RowFile.store):
    half = len(indices) // 2
    inner(self, indices[:half], states[:half])
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "half a batch":
    RowFile.store = halved
elif where == "within a cell":
    killing(RowFile, "store", 5, False)
elif where == "before its number":
    killing(run.Runner, "_finish", 2, True)
elif where == "between cells":
    killing(PartialRows, "forget", 3, True)
elif where == "within a solution":
    killing(solver_error, "solve", 2, True)
elif where == "within the report":
    killing(report, "markdown", 1, True)
main()
"""
PLACES = (
    "half a batch",
    "within a solution",
    "within a cell",
    "before its number",
    "between cells",
    "within the report",
)


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_files_of_an_uninterrupted_run(bench, small: Path, tmp_path: Path) -> None:
    """SIGKILL at six places, one after another; the same command ends with the same bytes."""
    words = (*WORDS, "--solver-error", "--solver-error-images", "3")
    assert bench(*words, out="whole").status == 0
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    own = ["--checkpoint", str(small), "--ref", "mnist", "--out", str(tmp_path / "cut")]
    for place in PLACES:
        command = [sys.executable, "-c", KILLED, place, "bench", *map(str, words), *own]
        done = subprocess.run(command, capture_output=True, text=True, env=one_thread)
        assert done.returncode == -9, (place, done.stderr)
    assert bench(*words, out="cut").status == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_cell_that_fails_is_reported_in_its_place_and_tried_again(bench, tmp_path: Path, monkeypatch) -> None:
    def refuse(x, how):
        if not refuse.over and refuse.calls == 2:
            raise NumericsError("images that are not finite")
        refuse.calls += 1
        return quantize(x, how)

    refuse.calls, refuse.over = 0, False
    monkeypatch.setattr("gddim_cli.bench.run.quantize", refuse)
    words = ("--sampler", "gddim,em", "--nfe", "4", "--num", "8", "--batch-size", "4")
    result = bench(*words)
    assert result.status == 1
    assert "1 of 2 cells failed" in result.err
    good, bad = results(tmp_path / "out")["results"]
    assert good["value"] is not None
    assert (bad["value"], bad["failed"]) == (None, "images that are not finite")
    assert "| failed |" in (tmp_path / "out" / "table.md").read_text()
    assert "images that are not finite" in (tmp_path / "out" / "table.md").read_text()
    status = json.loads(bench_status(bench, tmp_path / "out"))
    assert (len(status["done"]), list(status["failed"].values())) == (1, ["images that are not finite"])
    refuse.over = True
    assert bench(*words).status == 0
    assert bench(*words, out="other").status == 0
    assert files(tmp_path / "out") == files(tmp_path / "other")


def bench_status(bench, folder: Path) -> str:
    return bench("--status", folder, "--json").out


def test_status_says_what_is_done_and_what_is_missing(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = "gddim_cli.runtime.row_file.RowFile.store", []
    inner = __import__("gddim_cli.runtime.row_file", fromlist=["RowFile"]).RowFile.store

    def stop(self, indices, states):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        inner(self, indices, states)

    monkeypatch.setattr(store, stop)
    words = ("--nfe", "4,6", "--num", "10", "--batch-size", "4")
    assert bench(*words).status == 130
    status = json.loads(bench_status(bench, tmp_path / "out"))
    assert (status["cells"], len(status["done"])) == (2, 1)
    assert list(status["missing"].values()) == [{"images": 4, "of": 10}]
    shown = bench("--status", tmp_path / "out")
    assert "1 of 2 cells done, 1 missing, 0 failed" in shown.err
    assert "4 of 10 images" in shown.err
    assert "…" in shown.out
    assert bench("--status", tmp_path / "nothing").status == 1


def test_two_at_once_in_one_folder_are_refused(bench, tmp_path: Path) -> None:
    with locked(tmp_path / "out", "gddim bench"):
        result = bench("--nfe", "4", "--num", "4")
    assert result.status == 1
    assert "another gddim bench is running in this folder" in result.err


def test_on_a_terminal_the_cells_fill_in(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys as system

    monkeypatch.setattr(system.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = bench(*WORDS)
    assert result.status == 0
    assert "of 12 cells" in result.err
    assert "…" in result.err
    assert "gDDIM order 2" in result.err


@pytest.mark.slow
def test_the_time_goes_to_the_networks(gddim, tmp_path: Path) -> None:
    """At most 10 % over the network's evaluations and the features, on the bundled checkpoint."""
    words = ("--sampler", "gddim", "--nfe", "20", "--num", "128", "--out", tmp_path / "out")
    assert gddim("bench", *words).status == 0
    (session,) = json.loads((tmp_path / "out" / "sessions.json").read_text())
    assert session["seconds"] < 1.1 * (session["network"] + session["features"])


def test_a_table_of_the_paper_with_its_numbers_beside(gddim, small: Path, tmp_path: Path, monkeypatch) -> None:
    """Small networks in place of the released ones, which no test can have: the way from the preset to the table."""
    stand_in(small, monkeypatch)
    result = gddim("bench", "--table", "1", "--num", "4", "--nfe", "20,25", "--out", tmp_path / "out")
    assert result.status == 0, result.err
    (table,) = results(tmp_path / "out")["tables"]
    entries = [
        [(entry["published"], entry["difference"], entry["mean"]) for entry in row] for row in table["rows"].values()
    ]
    assert [[published for published, *_ in row] for row in entries] == [[368, None], [3.9, None]]
    for row in entries:
        for published, difference, mean in row:
            assert difference == (None if published is None else mean - published)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| published | 368 |  |" in table
    assert "| published | 3.9 |  |" in table
    assert "protocol gddim-paper, 4 images per cell" in table
    assert "gDDIM order 2, K = L, no denoising step" in table
    result = gddim("bench", "--table", "2", "--lambda", "0,0.3", "--num", "4", "--out", tmp_path / "two")
    assert result.status == 0, result.err
    assert "| published | 5.17 | 12.13 |" in (tmp_path / "two" / "table.md").read_text()
