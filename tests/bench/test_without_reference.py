"""Benchmarks without a reference: solver errors and pictures, for checkpoints of any shape, offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import pictures

from gddim_cli.bench.compare import read
from gddim_cli.runs.prepared_run import PreparedRun

WORDS = ("--sampler", "gddim,em", "--order", "0,2", "--nfe", "4,6", "--solver-error-images", "3")
MADE = {"results.json", "table.md", "table.csv", "table.tex", "report.html", "samples.png"}
MADE |= {"error_vs_nfe.png", "error_vs_nfe.svg", "plan.json", "sessions.json"}


@pytest.fixture
def alone(gddim, small: Path, tmp_path: Path):
    """Runs `gddim bench WORDS --ref none` on the small checkpoint."""
    return lambda *words, out="out": gddim(
        "bench", *words, "--checkpoint", small, "--ref", "none", "--out", tmp_path / out
    )


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["results"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} - {".lock"}


def test_solver_errors_are_those_measured_beside_a_metric(alone, bench, tmp_path: Path) -> None:
    assert alone(*WORDS).status == 0
    assert bench(*WORDS, "--num", "6", out="beside").status == 0
    errors, beside = (
        {(r["request"]["sampler"], r["request"]["nfe"], str(r["request"]["options"])): r["solver_error"] for r in run}
        for run in (results(tmp_path / "out"), results(tmp_path / "beside"))
    )
    assert errors == beside
    assert sum(error is None for error in errors.values()) == 2  # Euler-Maruyama is stochastic
    for result in results(tmp_path / "out"):
        assert (result["value"], result["nfe"], result["evaluator"]["reference"]) == (None, result["planned"], None)


def test_it_leaves_a_table_a_plot_a_sheet_and_a_page(alone, tmp_path: Path) -> None:
    done = alone(*WORDS)
    assert names(tmp_path / "out") == MADE
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.startswith("Solver error: RMS of x - x*")
    assert "3 images per cell" in table
    assert "| Euler-Maruyama | pictures | pictures |" in table
    assert "pictures: no solver error" in table
    assert "FID" not in table + done.out
    assert "Euler-Maruyama, NFE 4, seed 0: pictures" in done.err
    report = read(tmp_path / "out")
    assert report.complete


def test_what_is_kept_is_not_made_again(alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alone(*WORDS).status == 0
    before = {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.name != ".lock" and path.is_file()
    }
    status = json.loads(alone("--status", tmp_path / "out", "--json").out)
    assert (len(status["done"]), status["missing"], status["failed"]) == (6, {}, {})
    monkeypatch.setattr(PreparedRun, "run", lambda *_: pytest.fail("a cell was made again"))
    assert alone(*WORDS).status == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def test_pictures_are_the_images_that_sample_makes(alone, gddim, small: Path, tmp_path: Path) -> None:
    assert alone("--sampler", "em", "--nfe", "5", "--no-solver-error", "--seeds", "3").status == 0
    (result,) = results(tmp_path / "out")
    words = ("--checkpoint", small, "--sampler", "em", "--nfe", "5", "--seed", "3", "--num", "8")
    assert gddim("sample", *words, "--out", tmp_path / "imgs").status == 0
    for index in range(8):
        kept, made = tmp_path / "out" / "samples" / result["features"], tmp_path / "imgs"
        with Image.open(kept / f"{index}.png") as a, Image.open(made / f"{index:06d}.png") as b:
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert not list((tmp_path / "out").glob("*_vs_nfe.*"))


def test_the_evaluations_of_a_calibration_are_not_counted(alone, gddim, small: Path, tmp_path: Path) -> None:
    assert alone("--sampler", "rk45", "--nfe", "10", "--solver-error-images", "2", "--batch-size", "2").status == 0
    (result,) = results(tmp_path / "out")
    words = ("--checkpoint", small, "--sampler", "rk45", "--nfe", "10", "--num", "2", "--batch-size", "2")
    assert gddim("sample", *words, "--out", tmp_path / "imgs").status == 0
    assert result["nfe"] == json.loads((tmp_path / "imgs" / "run.json").read_text())["nfe"]


def test_pictures_of_a_finished_benchmark_can_be_made_later(bench, tmp_path: Path) -> None:
    """A folder that has its values but not its pictures makes only these."""
    words = ("--sampler", "gddim,em", "--nfe", "4", "--num", "10")
    assert bench(*words).status == 0
    sheet, value = (tmp_path / "out" / "samples.png").read_bytes(), results(tmp_path / "out")
    for path in (tmp_path / "out" / "samples").rglob("*.png"):
        path.unlink()
    (tmp_path / "out" / "samples.png").unlink()
    assert bench(*words).status == 0
    assert (tmp_path / "out" / "samples.png").read_bytes() == sheet
    assert results(tmp_path / "out") == value


def test_a_checkpoint_of_another_shape_needs_no_reference(gddim, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """8x8: no built-in reference exists, and a note says what that means."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    words = ("--checkpoint", tiny, "--nfe", "5", "--solver-error-images", "2", "--out", tmp_path / "out")
    done = gddim("bench", *words)
    assert done.status == 0, done.err
    assert (
        "note: Without a reference, only solver errors and pictures are made: --ref: needed for images of 8x8"
        in done.err
    )
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["tables"][0]["rows"]
    assert list(rows) == ["gDDIM order 0", "gDDIM order 2", "Euler-Maruyama", "Heun", "RK45"]
    assert names(tmp_path / "out") == MADE


def test_what_is_asked_for_is_not_replaced(gddim, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """A reference that was named, or a protocol, is needed; none of them goes with --ref none."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    words = ("bench", "--checkpoint", tiny, "--nfe", "5", "--out", tmp_path / "out")
    for own, named in (
        (("--ref", "cifar10"), "gddim download stats-cifar10"),
        (("--protocol", "gddim-paper"), "gddim download stats-cifar10-tf"),
        (("--ref", "none", "--protocol", "gddim-paper"), "measures no metric; leave out protocol"),
    ):
        done = gddim(*words, *own)
        assert (done.status, named in done.err) == (2, True), done.err
    assert not (tmp_path / "out").exists()


def test_a_failure_is_reported_in_its_place_and_tried_again(alone, tmp_path: Path, monkeypatch) -> None:
    from gddim_cli.errors import NumericsError

    words = ("--sampler", "gddim,em", "--nfe", "4", "--solver-error-images", "2")
    with monkeypatch.context() as patch:
        patch.setattr("gddim_cli.bench.run.first_images", lambda *_: (_ for _ in ()).throw(NumericsError("not finite")))
        done = alone(*words)
    assert done.status == 1
    assert "2 of 2 cells failed" in done.err
    assert "not finite" in (tmp_path / "out" / "table.md").read_text()
    assert alone(*words).status == 0
    assert alone(*words, out="other").status == 0
    for name in ("results.json", "table.md", "samples.png", "report.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_colour_model_trained_here(gddim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64x64 colour images: from a folder of pictures to table, plot, sheet and page."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    np.savez(tmp_path / "photos.npz", images=pictures(16, 64))
    recipe = "name: photos\ndata: {title: Smooth noise}\nsteps: 4\nbatch_size: 4\nwarmup: 1\ncooldown: 1\n"
    network = "network: {channels: [8, 8], blocks: 1, embedding: 16, patch: 4}\n"
    (tmp_path / "photos.yaml").write_text(recipe + network)
    words = ("train", tmp_path / "photos.yaml", "--data", tmp_path / "photos.npz", "--out", tmp_path / "run")
    trained = gddim(*words, "--device", "cpu")
    assert trained.status == 0, trained.err
    checkpoint = tmp_path / "run" / "photos.safetensors"
    done = gddim(
        "bench", "--checkpoint", checkpoint, "--nfe", "3,5", "--solver-error-images", "1", "--out", tmp_path / "out"
    )
    assert done.status == 0, done.err
    assert names(tmp_path / "out") == MADE
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 2 * 64


@pytest.mark.slow
def test_a_converted_release_from_an_empty_home(gddim, golden_file, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    checkpoint = tmp_path / "cld.safetensors"
    source = golden_file("ncsnpp_small_flax.msgpack")
    assert gddim("convert", source, checkpoint, "--card", "cld-cifar10").status == 0
    words = ("--checkpoint", checkpoint, "--nfe", "5,10,20", "--solver-error-images", "1", "--batch-size", "1")
    done = gddim("bench", *words, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert names(tmp_path / "out") == MADE
    assert len(results(tmp_path / "out")) == 15
