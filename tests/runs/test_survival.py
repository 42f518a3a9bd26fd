"""What may befall a run: a full disk, a folder that goes, memory that runs out, a clock that jumps. A clear end, a resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import gddim_cli.cli.sample
from gddim_cli.errors import PeerError
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.storage.registry import FORMATS, open_storage
from gddim_cli.runtime.distributed import World


@pytest.fixture
def sample(gddim, tiny: Path, tmp_path: Path):
    def run(*words: object, out: object = "imgs", num: int = 48):
        return gddim(
            "sample", "--checkpoint", tiny, "--nfe", 3, "--batch-size", 4, "-n", num, "--out", tmp_path / out, *words
        )

    return run


@pytest.fixture
def at_batch(monkeypatch: pytest.MonkeyPatch):
    """Lets something happen when the sampler begins its n-th batch."""

    def arrange(n: int, happening) -> None:
        real, begun = PreparedRun.run, []

        def run(self: PreparedRun, *arguments):
            begun.append(1)
            if len(begun) == n:
                happening()
            return real(self, *arguments)

        monkeypatch.setattr(PreparedRun, "run", run)

    return arrange


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 80 kB, and what makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80k", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
    subprocess.run(["umount", disk], check=True)


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def one_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("gddim: ")]
    assert "Traceback" not in err
    return line


def same(folder: Path, other: Path, format: str, num: int) -> bool:
    return np.array_equal(open_storage(folder, format).read(range(num)), open_storage(other, format).read(range(num)))


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_is_full(sample, small_disk, tmp_path: Path, format: str) -> None:
    disk, enlarge = small_disk
    words, num = ("--format", format), 120
    result = sample(*words, out=disk / "imgs", num=num)
    assert result.status == 1
    assert "cannot be written: the disk is full; free some space and rerun the same command" in one_line(result.err)
    storage = open_storage(disk / "imgs", format)
    there = storage.done(num)
    assert 0 < len(there) < num
    assert [file.name for file in (disk / "imgs").glob(".*")] == [".lock"]
    storage.read(there)
    enlarge()
    result = sample(*words, out=disk / "imgs", num=num)
    assert result.status == 0
    assert f"{len(there)} of {num} images exist" in result.err
    sample(*words, out="whole", num=num)
    assert same(disk / "imgs", tmp_path / "whole", format, num)


def test_a_full_disk_is_noticed_within_a_batch_or_two(sample, monkeypatch, at_batch) -> None:
    """The error of the writer's thread stops the computing, however much there is still to do."""
    later = []
    at_batch(6, lambda: later.append(1))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(
        "gddim_cli.images.render.as_picture", lambda _: type("Full", (), {"save": lambda *_, **__: full()})()
    )
    assert "the disk is full" in one_line(sample(num=400).err)
    assert not later


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_is_removed(sample, at_batch, tmp_path: Path, format: str) -> None:
    words = ("--format", format)
    at_batch(5, lambda: shutil.rmtree((tmp_path / "imgs").rename(tmp_path / "bin")))  # at one stroke, beside a writer
    result = sample(*words)
    assert result.status == 1
    assert "cannot be written: its folder has been removed; rerun the same command" in one_line(result.err)
    assert not (tmp_path / "imgs").exists()
    assert sample(*words).status == 0
    sample(*words, out="whole")
    assert same(tmp_path / "imgs", tmp_path / "whole", format, 48)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_another_run_has_made_anew(sample, at_batch, tmp_path: Path, format: str) -> None:
    """The first run ends, and leaves all files of the second alone."""
    folder, begun = tmp_path / "imgs", {".lock": b"", "run.json": b"another run's"}

    def replace() -> None:
        shutil.rmtree(folder.rename(tmp_path / "bin"))
        folder.mkdir()
        for name, content in begun.items():
            (folder / name).write_bytes(content)

    at_batch(5, replace)
    result = sample("--format", format)
    assert result.status == 1
    # The second message is of a file that was being written at that moment.
    ends = ("imgs: was removed, and another run has begun in its place; rerun", "its folder has been removed; rerun")
    assert any(end in one_line(result.err) for end in ends)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == begun


def test_an_image_that_is_removed_meanwhile(sample, at_batch, tmp_path: Path) -> None:
    at_batch(8, (tmp_path / "imgs" / "000002.png").unlink)
    result = sample()
    assert result.status == 1
    assert "image 2 has disappeared since it was made; rerun the same command" in one_line(result.err)
    assert record(tmp_path / "imgs")["complete"] is False
    again = sample()
    assert (again.status, "47 of 48 images exist, 1 to make" in again.err) == (0, True)
    assert record(tmp_path / "imgs")["complete"] is True


def no_gpu_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def no_memory() -> None:
    torch.empty(2**58)


def no_memory_for_numpy() -> None:
    np.empty(2**58)


@pytest.mark.parametrize("happening", [no_gpu_memory, no_memory, no_memory_for_numpy])
def test_memory_that_runs_out(sample, at_batch, tmp_path: Path, happening) -> None:
    """Of a GPU, as torch says it; on the CPU by asking for 2^60 bytes."""
    at_batch(3, happening)
    result = sample()
    assert result.status == 1
    message = one_line(result.err)
    assert "4 images at once do not fit in the memory of cpu" in message
    assert "rerun the same command with a smaller --batch-size" in message
    assert len(list((tmp_path / "imgs").glob("0*.png"))) == 8
    again = sample("--batch-size", 2)
    assert (again.status, "8 of 48 images exist" in again.err) == (0, True)


@pytest.mark.parametrize("format", FORMATS)
def test_a_clock_that_jumps(sample, at_batch, tmp_path: Path, monkeypatch, format: str) -> None:
    """To 1970, the next century, back by an hour: durations, order and images are as they were."""
    words = ("--format", format)
    at_batch(4, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample(*words)
    for index, file in enumerate(sorted((tmp_path / "imgs").iterdir())):
        os.utime(file, (0, (0, 4e9, 1e9)[index % 3]))
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return (0.0, 4e9, real() - 3600)[len(calls) % 3]

    monkeypatch.setattr(time, "time", jumping)
    began = time.monotonic()
    assert sample(*words).status == 0
    took = time.monotonic() - began
    monkeypatch.setattr(time, "time", real)
    run = record(tmp_path / "imgs")
    assert 0 < run["sessions"][-1]["seconds"] <= took
    sample(*words, out="whole")
    assert same(tmp_path / "imgs", tmp_path / "whole", format, 48)
    assert (tmp_path / "imgs" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


def test_what_a_killed_process_left_half_written_is_swept_away(sample, tmp_path: Path) -> None:
    sample(num=4)
    folder = tmp_path / "imgs"
    ours = (".000002.png.ab12cd_3.tmp", ".images-000000-000003.tar.abcdefgh.tmp", ".run.json.abcdefgh.tmp")
    others = (".notes.txt.abcdefgh.tmp", ".000002.png.swp", ".hidden")
    for name in (*ours, *others):
        (folder / name).write_text("half")
    sample(num=5)
    assert sorted(path.name for path in folder.glob(".*")) == sorted((".lock", *others))


HOLDER = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"


@pytest.fixture
def busy(tmp_path: Path):
    """Another program in the run's folder; the returned function ends it."""
    (tmp_path / "imgs").mkdir()
    program = [sys.executable, "-c", HOLDER, tmp_path / "imgs" / ".lock"]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    yield process.kill
    process.kill()
    process.communicate()


def test_a_folder_in_which_another_is_at_work(sample, busy, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gddim_cli.runs.folder.GRACE", 0.2)
    result = sample()
    assert result.status == 1
    assert "another gddim sample is running in this folder; wait for it to finish, or choose another --out" in one_line(
        result.err
    )
    assert [path.name for path in (tmp_path / "imgs").iterdir()] == [".lock"]
    busy()
    assert sample().status == 0


def test_another_program_that_ends_is_waited_for(sample, busy, monkeypatch) -> None:
    real = gddim_cli.cli.sample.waiting
    monkeypatch.setattr("gddim_cli.cli.sample.waiting", lambda out: (real(out), threading.Timer(0.3, busy).start()))
    result = sample()
    assert (result.status, "waiting up to 10 s for it to finish" in result.err) == (0, True), result.err


@pytest.mark.slow
def test_a_run_that_was_stopped_keeps_its_folder(sample, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """Ctrl-Z, the same command beside it, fg: one of them makes the run, and its record tells what is there."""
    out = tmp_path / "imgs"
    words = [
        "sample",
        "--checkpoint",
        tiny,
        "--nfe",
        "3",
        "--batch-size",
        "4",
        "-n",
        "600",
        "--format",
        "npz",
        "--out",
        out,
    ]
    first = subprocess.Popen([sys.executable, "-m", "gddim_cli", *words], stderr=subprocess.PIPE, text=True)
    while not list(out.glob("images-*")) and first.poll() is None:
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("gddim_cli.runs.folder.GRACE", 0.2)
    result = sample("--format", "npz", num=600)
    first.send_signal(signal.SIGCONT)
    assert result.status == 1
    assert "another gddim sample is running in this folder" in one_line(result.err)
    assert (first.wait(60), first.communicate()[1].count("images/s")) == (0, 1)
    assert (record(out)["complete"], len(record(out)["sessions"])) == (True, 1)
    assert [file.name for file in out.glob("images-*")] == ["images-000000-000599.npz"]


def test_nothing_is_stored_once_the_others_have_ended(sample, tmp_path: Path, monkeypatch) -> None:
    checks = []

    def check(self: World) -> None:
        checks.append(1)
        if len(checks) > 2:
            raise PeerError("rank 1 has ended")

    monkeypatch.setattr(World, "check", check)
    assert "rank 1 has ended" in one_line(sample().err)
    assert len(list((tmp_path / "imgs").glob("0*.png"))) == 8


def test_images_that_a_crash_emptied_are_made_again(sample, tmp_path: Path) -> None:
    sample("--overwrite")
    before = (tmp_path / "imgs" / "manifest.json").read_bytes()
    for name in ("000003.png", "000047.png"):
        (tmp_path / "imgs" / name).write_bytes(b"")
    result = sample()
    assert (result.status, "46 of 48 images exist, 2 to make" in result.err) == (0, True), result.err
    assert (tmp_path / "imgs" / "manifest.json").read_bytes() == before
