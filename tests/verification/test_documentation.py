"""The files and commands of docs/diffusions.md, as a reader would save and type them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from gddim_cli.diffusions.vp import VP
from gddim_cli.verification.checks import CHECKS, Subject

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "diffusions.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, in which commands run."""
    (tmp_path / "mine.py").write_text(blocks("python")[0])
    (tmp_path / "fast.yaml").write_text(blocks("yaml")[0])
    shutil.copytree(DOCS / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(gddim, folder: Path, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "gddim"
    result = gddim(*words)
    assert result.status == 0, result.err
    if words[0] == "sample":
        count = int(words[words.index("--num") + 1])
        assert len(list((folder / words[words.index("--out") + 1]).glob("0*.png"))) == count


def test_every_check_is_on_the_page() -> None:
    assert {command.split()[1] for command in COMMANDS} == {"check", "sample"}
    subject = Subject(VP())
    for check in CHECKS[:-4]:
        assert f"| {check(subject).check} |" in PAGE
