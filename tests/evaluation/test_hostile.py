"""Statistics files, run records and kept features that are damaged: a message, or the right number; nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import damaged, folder_of, pictures, refusals

from gddim_cli.errors import GddimError
from gddim_cli.evaluation import features as feature_files
from gddim_cli.evaluation.extractors.lenet import load_lenet
from gddim_cli.evaluation.factory import open_evaluator
from gddim_cli.runs.images import open_images

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("cases", [60, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["own", "mean", "features"])
def test_damaged_statistics(gddim: Callable, tmp_path: Path, kind: str, cases: int) -> None:
    path = tmp_path / "stats.npz"
    if kind == "own":
        assert gddim("fid", "stats", folder_of(tmp_path / "a", pictures(90, 28, 1)), path).status == 0
    else:
        features = load_lenet(CPU)(pictures(90, 28, 1))
        moments = {"mu": features.mean(axis=0), "sigma": np.cov(features.T)}
        np.savez(path, **(moments if kind == "mean" else {"pool_3": features}))
    words = (str(path), None, "lenet", None, CPU, (28, 28, 1))
    assert refusals(path, lambda: open_evaluator(*words), cases) > cases / 4


@pytest.mark.parametrize("name", ["run.json", "manifest.json"])
def test_a_damaged_record_of_a_run(gddim: Callable, tiny: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    assert gddim("sample", "--checkpoint", tiny, "--nfe", 2, "--num", 4, "--out", run).status == 0
    assert refusals(run / name, lambda: open_images(run), 300) > 100
    for text in (
        "[" * 100_000,
        '{"num": 1e400}',
        '{"format": "png", "settings": {"quantize": "floor"}, "num": -5}',
        "\xff",
    ):
        (run / "run.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(GddimError, match=r"run.json: not the record of a run"):
            open_images(run)


@pytest.mark.parametrize("partial", [False, True])
def test_damaged_features_make_the_same_number(gddim: Callable, tmp_path: Path, home: Path, partial: bool) -> None:
    digits = folder_of(tmp_path / "digits", pictures(20, 28, 1))
    first = json.loads(gddim("fid", digits, "--json").out)["value"]
    (path,) = (home / "features").glob("*.npy")
    whole = path.read_bytes()
    lenet, source = load_lenet(CPU), open_images(digits)
    exact = np.array(feature_files.features_of(source, lenet, home / "features", 64, lambda _: None))
    for content in damaged(whole, 40, seed=5):
        path.unlink(missing_ok=True)
        (path.with_name(f"{path.name}.features.partial") if partial else path).write_bytes(content)
        found = feature_files.features_of(source, lenet, home / "features", 64, lambda _: None)
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    assert json.loads(gddim("fid", digits, "--json").out)["value"] == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize(("name", "change"), [("run.json", {"num": 2}), ("manifest.json", {"files": []})])
def test_a_record_and_a_manifest_that_disagree(
    gddim: Callable, tiny: Path, tmp_path: Path, name: str, change: dict
) -> None:
    run = tmp_path / "run"
    assert gddim("sample", "--checkpoint", tiny, "--nfe", 2, "--num", 4, "--out", run).status == 0
    found = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(found | change))
    with pytest.raises(GddimError, match=r"manifest.json: does not match run.json; remove it and rerun"):
        open_images(run)
