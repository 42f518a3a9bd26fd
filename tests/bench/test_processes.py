"""`gddim bench` under torchrun: the bytes of one process, also where a file of the work is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gddim_cli

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(gddim_cli.__file__).parent.parent)}


def run(*words: object, small: Path, out: Path) -> subprocess.CompletedProcess[str]:
    plan = ["--sampler", "gddim,em", "--nfe", "4", "--num", "10", "--batch-size", "4", "--solver-error-images", "3"]
    own = ["--solver-error", "--keep-images", "--checkpoint", str(small), "--ref", "mnist", "--out", str(out)]
    command = [*map(str, words), "bench", *plan, *own]
    return subprocess.run(command, capture_output=True, text=True, env=ALONE, timeout=120)


def files(folder: Path) -> dict[str, bytes]:
    kept = [folder / "results.json", folder / "table.md", *(folder / "cells").iterdir()]
    return {path.name: path.read_bytes() for path in kept}


@pytest.mark.slow
def test_two_processes_leave_the_files_of_one(small: Path, tmp_path: Path) -> None:
    """On the way a partial file and a folder of images are garbage: rank 0 alone sees that, and nobody waits for it."""
    one, two = tmp_path / "one", tmp_path / "two"
    done = run(sys.executable, "-m", "gddim_cli", small=small, out=one)
    assert done.returncode == 0, done.stderr
    keys = sorted(result["features"] for result in json.loads((one / "results.json").read_text())["results"])
    (two / "cells").mkdir(parents=True)
    (two / "partial").mkdir()
    (two / "plan.json").write_bytes((one / "plan.json").read_bytes())
    (two / "partial" / f"features.npy.{keys[0]}.partial").write_bytes(b"garbage")
    (two / "images" / keys[1]).mkdir(parents=True)
    (two / "images" / keys[1] / "run.json").write_text("{}")
    torchrun = [*TORCHRUN, "-m", "--", "gddim_cli"]
    done = run(*torchrun, small=small, out=two)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 cells failed" in done.stderr
    (two / "images" / keys[1] / "run.json").unlink()
    done = run(*torchrun, small=small, out=two)
    assert done.returncode == 0, done.stderr
    assert files(two) == files(one)
