"""Damage is never blessed: a run's damaged files are made again, to the bytes of an undamaged run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddim_cli.runs.storage import shards

NUM = 13


@pytest.fixture
def sample(gddim, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "SHARD_SIZE", 5)

    def run(out: str, format: str, num: int = NUM, *more: str):
        words = ("--checkpoint", tiny, "--nfe", 3, "--batch-size", 4, "--format", format)
        return gddim("sample", *words, "--num", num, "--out", tmp_path / out, *more)

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in (".lock", "run.json")}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def foreign(data: bytes) -> bytes:
    """A whole picture of the same size that is not the run's."""
    if not data.startswith(b"\x89PNG"):
        return b"not a shard"
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["png", "npz", "tar"])
@pytest.mark.parametrize("spoil", [cut, flipped, foreign, lambda _: b""], ids=["cut", "flipped", "foreign", "empty"])
@pytest.mark.parametrize("num", [NUM, NUM + 4])
def test_a_finished_run_heals_before_it_is_extended(sample, tmp_path: Path, format: str, spoil, num: int) -> None:
    assert sample("whole", format, num).status == 0
    assert sample("spoiled", format).status == 0
    victims = {"png": ["000003.png", "000011.png"]}.get(format, [f"images-000005-000009.{format}"])
    for name in victims:
        path = tmp_path / "spoiled" / name
        path.write_bytes(spoil(path.read_bytes()))
    kept = spoil is foreign  # It may be a person's own.
    if kept:
        refused = sample("spoiled", format, num)
        more = " and 1 more" if format == "png" else ""
        assert f"{victims[0]}{more}: not written by this run; move away" in refused.err
        assert refused.status == 2
    result = sample("spoiled", format, num, *["--force"] * kept)
    assert result.status == 0, result.err
    assert content(tmp_path / "spoiled") == content(tmp_path / "whole")
    if spoil in (cut, flipped):
        assert victims[0] in result.err
        assert "damaged" in result.err


@pytest.mark.parametrize("format", ["png", "npz", "tar"])
def test_an_interrupted_run_heals_too(sample, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample("whole", format).status == 0
    from gddim_cli.runs.prepared_run import PreparedRun

    real, calls = PreparedRun.run, []

    def run(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(PreparedRun, "run", run)
    assert sample("cut", format).status == 130
    files = sorted(file for file in (tmp_path / "cut").iterdir() if file.suffix == f".{format}")
    assert files
    files[0].write_bytes(cut(files[0].read_bytes()))
    result = sample("cut", format)
    assert result.status == 0, result.err
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["swap", "copy", "append"])
@pytest.mark.parametrize("format", ["png", "npz", "tar"])
def test_files_of_an_unfinished_run_that_are_exchanged(sample, tmp_path: Path, format: str, change: str) -> None:
    """Of a folder without a manifest: two files exchanged, one copied over another, zeros at a file's end."""
    assert sample("whole", format).status == 0
    assert sample("cut", format).status == 0
    (tmp_path / "cut" / "manifest.json").unlink()
    record = tmp_path / "cut" / "run.json"
    record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
    one, two, *_ = sorted(file for file in (tmp_path / "cut").glob(f"[0i]*.{format}"))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes({"swap": second, "copy": second, "append": first + bytes(20)}[change])
    two.write_bytes(first if change == "swap" else second)
    result = sample("cut", format)
    assert result.status == 0, result.err
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("name", ["run.json", "manifest.json"])
@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b""])
def test_a_damaged_record_is_one_line(sample, tmp_path: Path, name: str, data: bytes) -> None:
    assert sample("imgs", "png").status == 0
    (tmp_path / "imgs" / name).write_bytes(data)
    result = sample("imgs", "png")
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert f"{name}: cannot be read" in result.err
