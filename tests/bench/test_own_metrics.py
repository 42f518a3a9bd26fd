"""Metrics without a reference, metrics and networks of one's own in a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support import folder_of, pictures

from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.runtime.user_file import LOADED

METRIC = """
import gddim_cli as gddim

def compute(features, reference, options, on_step):
    return {"value": float(features.mean())}

MEAN = gddim.MetricSpec(name="brightness", title="Brightness", lower_is_better=True, needs_reference=False, compute=compute)
"""
NETWORK = """
def build(device):
    return lambda images: images.flatten(2).mean(dim=2).repeat(1, 2)
"""


@pytest.fixture
def metric(tmp_path: Path):
    path = tmp_path / "brightness.py"
    path.write_text(METRIC)
    yield path
    METRICS.remove("brightness")
    LOADED.clear()


def test_a_plan_takes_the_score_and_a_metric_from_a_file(
    bench, gddim, small: Path, metric: Path, tmp_path: Path
) -> None:
    found = bench("--metric", f"fid,is:splits=2,{metric}", "--nfe", "2", "--num", 24)
    assert found.status == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    by_name = {result["evaluator"]["metric_name"]: result for result in results}
    assert set(by_name) == {"fid", "is", "brightness"}
    assert by_name["is"]["evaluator"]["reference"] is None
    assert by_name["is"]["evaluator"]["mode"] == "lenet-classes"
    assert by_name["is"]["value"] >= 1
    assert len(by_name["brightness"]["evaluator"]["metric_sha256"]) == 64
    assert by_name["brightness"]["features"] == by_name["fid"]["features"]  # measured once
    assert "Brightness(lenet-mnist)@24, 24 images per cell" in (tmp_path / "out" / "table.md").read_text()
    again = bench("--metric", f"fid,is:splits=2,{metric}", "--nfe", "2", "--num", 24)
    assert again.status == 0, again.err


def test_a_plan_takes_a_network_from_a_file(gddim, small: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.py"
    network.write_text(NETWORK)
    train, stats = folder_of(tmp_path / "train", pictures(30, 28, 1)), tmp_path / "train.npz"
    made = gddim("fid", "stats", train, stats, "--features", f"{network}:build")
    assert made.status == 0, made.err
    plan = {"checkpoint": str(small), "nfe": [2], "num": 12, "ref": str(stats), "features": f"{network}:build"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    found = gddim("bench", tmp_path / "plan.yaml", "--out", tmp_path / "out")
    assert found.status == 0, found.err
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert result["evaluator"]["metric"] == "FD(network.py:build)"
    wrong = gddim("bench", tmp_path / "plan.yaml", "--out", tmp_path / "other", "--features", tmp_path / "nowhere.pt")
    assert (wrong.status, "nowhere.pt: no such file" in wrong.err) == (2, True), wrong.err
