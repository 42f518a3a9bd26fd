"""Closed, full and abandoned streams, characters that they lack, a folder that is gone, Ctrl-C at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m gddim_cli"
SAMPLE = "sample --nfe 2 --num 2 --threads 1"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@pytest.fixture
def shell(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a shell command in an empty folder; `gddim` is the program and `tiny` the small checkpoint."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    monkeypatch.setenv("TINY", str(tiny))
    here = tmp_path / "here"
    here.mkdir()

    def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-c", f'gddim() {{ {PROGRAM} "$@"; }}\n{command}'],
            cwd=here,
            env={**os.environ, **environment},
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        return done

    return run


@pytest.mark.parametrize("words", ["samplers", "--help", "--version", "samplers --json", "sample --help"])
@pytest.mark.parametrize(
    ("stream", "reason"),
    [(">&-", "the stream is closed"), pytest.param("> /dev/full", "No space left on device", marks=FULL)],
)
def test_data_that_cannot_be_written_is_an_error(shell, words: str, stream: str, reason: str) -> None:
    done = shell(f"gddim {words} {stream}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gddim: standard output cannot be written: {reason}\n"


@pytest.mark.parametrize("stream", ["2>&-", pytest.param("2> /dev/full", marks=FULL), ">&- 2>&- <&-", "2> >(true)"])
def test_messages_that_cannot_be_written_stop_nothing(shell, tmp_path: Path, stream: str) -> None:
    done = shell(f'gddim {SAMPLE} --checkpoint "$TINY" --out imgs {stream}')
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "here" / "imgs").glob("0*.png"))) == 2
    assert not [file for file in (tmp_path / "here" / "imgs").iterdir() if b"images/s" in file.read_bytes()]
    done = shell(f'gddim {SAMPLE} --checkpoint "$TINY" --out imgs --nfe 3 {stream}')
    assert done.returncode == 2


def test_a_reader_that_has_seen_enough(shell) -> None:
    done = shell("gddim samplers | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout.splitlines()[-1] in "01"
    assert done.stderr == ""


def test_characters_that_a_stream_lacks(shell) -> None:
    done = shell(
        "gddim samplers && gddim sample --help && gddim fid größe; gddim fid $'\\xff'", PYTHONIOENCODING="ascii"
    )
    assert done.stdout.isascii()
    assert r"gddim: gr\xf6\xdfe: no such file" in done.stderr
    assert r"gddim: \xff: no such file" in done.stderr


def test_a_folder_that_is_gone(shell) -> None:
    done = shell(f"mkdir x; cd x; rmdir ../x; gddim samplers; gddim {SAMPLE} --out /tmp/nowhere")
    assert done.returncode == 1
    assert done.stderr == "gddim: the current folder has been removed; change to another one\n" * 2


@pytest.mark.slow
def test_an_interrupt_at_any_moment(tmp_path: Path, tiny: Path) -> None:
    """Also while torch is imported: 130, and one line or none."""
    words = [*SAMPLE.split(), "--checkpoint", str(tiny)]
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "gddim_cli", *words, "--out", tmp_path / "whole"], check=True, capture_output=True
    )
    took = time.monotonic() - started
    statuses = []
    for part in range(3, 15):  # before, Python itself is starting
        call = [sys.executable, "-m", "gddim_cli", *words, "--out", str(tmp_path / str(part))]
        process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
        time.sleep(took * part / 15)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
        # Python itself ends by the signal where it arrives in the last moments; to a shell that is 130 too.
        statuses.append(process.returncode)
        assert process.returncode in (0, 130, -signal.SIGINT), errors
        assert "Traceback" not in errors
    assert 130 in statuses


def test_an_interrupt_while_torch_is_imported_ends_the_process_at_once(tmp_path: Path, tiny: Path) -> None:
    """Even where an exception would be lost: here the import drops every exception and goes on."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\n"
        "for _ in range(300):\n    try:\n        time.sleep(0.1)\n    except BaseException:\n        pass\n"
    )
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    words = [*SAMPLE.split(), "--checkpoint", str(tiny), "--out", str(tmp_path / "imgs")]
    call = [sys.executable, "-m", "gddim_cli", *words]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        assert process.stderr.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=10)[1]
    assert (process.returncode, errors.count("\n"), errors.startswith("gddim: interrupted; ")) == (130, 1, True), errors
