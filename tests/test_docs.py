"""The Python examples of docs/ run, each page from top to bottom in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gddim_cli

ROOT = Path(__file__).parent.parent
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    environment = {**os.environ, "PYTHONPATH": str(Path(gddim_cli.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    for comment in re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE):
        shown = comment.split(":")[0] if comment.startswith("(") else comment
        assert shown in done.stdout, comment
    for command in re.findall(r"^gddim (sample .*\.py.*) --out imgs/$", text, re.MULTILINE):
        words = [sys.executable, "-m", "gddim_cli", *command.split(), "--num", "2", "--overwrite", "--out", "imgs"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stderr


def test_the_python_page_is_among_them() -> None:
    assert "python.md" in [page.name for page in PAGES]
