"""`benchmarks/cheapest.py`: which cells of a benchmark reach the goal."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "cheapest.py"
TABLE = """table,sampler,nfe,mean,standard_error
through CLD,paper,10,3.8,0.2
through CLD,paper,50,1.0,0.03
through CLD,tuned,5,1.2,0.04
through CLD,tuned,8,1.09,0.04
through CLD,tuned,20,0.9,0.04
through VP,tuned,10,,
"""


def test_the_cheapest_ways_are_those_within_the_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("cheapest", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cheapest", module)
    spec.loader.exec_module(module)
    (tmp_path / "table.csv").write_text(TABLE, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["cheapest.py", str(tmp_path)])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Goal: paper, through CLD, NFE 50: 1.00 ± 0.03"
    assert lines[4:] == [
        "| 8 | tuned, through CLD | 1.09 ± 0.04 |",
        "| 20 | tuned, through CLD | 0.90 ± 0.04 |",
        "| 50 | paper, through CLD | 1.00 ± 0.03 |",
    ]
