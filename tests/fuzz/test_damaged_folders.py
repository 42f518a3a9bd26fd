"""Each file of a run, a training run or a benchmark, damaged in each way: the undamaged bytes again, or one line that names it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.corpus import Corpus
from fuzz.harness import call, faults

SAMPLE = ("sample", "--checkpoint", "tiny.safetensors", "--nfe", 2, "-n", 6)
COMMANDS = {
    "run_png": (*SAMPLE, "--format", "png", "--out", "run_png"),
    "run_npz": (*SAMPLE, "--format", "npz", "--out", "run_npz"),
    "run_tar": (*SAMPLE, "--format", "tar", "--out", "run_tar"),
    "trained": ("train", "squares.yaml", "--data", "squares.npz", "--out", "trained", "--every", 2),
    "benched": (
        *("bench", "--checkpoint", "small.safetensors", "--ref", "mnist:test", "--nfe", "3,4", "-n", 4, "--keep-images"),
        *("--sampler", "gddim", "--out", "benched"),
    ),
}  # fmt: skip
INPUTS = ("tiny.safetensors", "small.safetensors", "squares.yaml", "squares.npz")
CHANGING = ("run.json", "train.json", "plan.json", "results.json", "sessions.json", "state.pt")
"""Files with times or versions in them, which are compared by their existence only."""


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swapped(path: Path) -> None:
    """With the content of another file of the folder."""
    others = sorted(file for file in path.parent.iterdir() if file.is_file() and file.name not in (path.name, ".lock"))
    same = [file for file in others if file.suffix == path.suffix] or others
    if not same:
        pytest.skip("the only file")
    path.write_bytes(same[-1].read_bytes())


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if not content:
        pytest.skip("an empty file")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unreadable(path: Path) -> None:
    """A folder in its place, which nobody can read as a file; permissions do not stop root."""
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def removed(path: Path) -> None:
    path.unlink()


def content(folder: Path) -> dict[str, bytes | None]:
    """The bytes of all files of a folder by their names, of the changing ones only that they are there."""
    files = {
        str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"
    }
    return {
        name: None if any(word in name for word in CHANGING) or name.startswith("cells") else file.read_bytes()
        for name, file in files.items()
    }


DAMAGES = [(kind, damage) for kind in COMMANDS for damage in (zeroed, swapped, flipped, unreadable, a_pipe)]
DAMAGES += [(kind, removed) for kind in COMMANDS if kind.startswith("run")]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *((kind, truncated) for kind in COMMANDS),
        *(pytest.param(*pair, marks=[pytest.mark.slow, pytest.mark.nightly]) for pair in DAMAGES),
    ],
)
def test_a_damaged_folder(corpus: Corpus, tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    whole = content(corpus.root / kind)
    files = sorted(
        str(file.relative_to(corpus.root / kind)) for file in (corpus.root / kind).rglob("*") if file.is_file()
    )

    wrong = []
    for name in files:
        if name[:6] in ("000001", "000002", "000004") or (name.endswith(".lock") and damage is not unreadable):
            continue
        sandbox = tmp_path / "sandbox"
        place = sandbox / "work"
        place.mkdir(parents=True)
        shutil.copytree(corpus.root / "home", sandbox / "home")
        for needed in (*INPUTS, kind):
            corpus.copy(needed, place)
        damage(place / kind / name)
        outcome = call(COMMANDS[kind], sandbox, place)
        found = faults(outcome)
        if outcome.status == 0 and content(place / kind) != whole:
            now = content(place / kind)
            found.append(
                f"other bytes: {[key for key in {**whole, **now} if whole.get(key, b'') != now.get(key, b'')]}"
            )
        if outcome.status and name not in outcome.err:
            found.append("does not name the file")
        if found:
            wrong.append(f"{name}: {', '.join(found)}: {outcome.err[-600:]}")
        shutil.rmtree(sandbox)
    assert not wrong, "\n".join(wrong)
