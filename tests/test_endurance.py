"""A bounded subset of benchmarks/endurance.py, where the full counts are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def endurance(monkeypatch: pytest.MonkeyPatch):
    specification = importlib.util.spec_from_file_location("endurance", ROOT / "benchmarks" / "endurance.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "endurance", module)
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmark looks into /proc")
def test_runs_killed_at_random_moments_end_whole(endurance, tiny: Path) -> None:
    words = ("--checkpoint", tiny, "--nfe", 40, "--batch-size", 4)
    trials = endurance.kills(40, 3, words, teams=(1,), formats=("tar",))
    assert [trial.faults for trial in trials] == [[], [], []], trials
    assert any(trial.there < 40 for trial in trials)
