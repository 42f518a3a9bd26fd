"""Several gloo processes under torchrun: the bytes of one process, one end for all, and a restart with another number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gddim_cli
from gddim_cli.runtime.distributed import World, world

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# an older Python's torchrun refuses --num as ambiguous, unless it comes after a --
OURS = ["-m", "--", "gddim_cli", "sample"]
# the package that is under test, wherever the script is
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(gddim_cli.__file__).parent.parent)}

APART = ("run.json", "manifest.json", ".lock")

# What every rank runs: the world's own promises, two runs of the command, and a third in which rank 1 sees another folder.
TEAM = """
import os, sys
import numpy as np
from gddim_cli.cli import app, main as cli
from gddim_cli.runtime.distributed import world

tiny, out = sys.argv[1:]
team = world().join()
assert (team.size, team.main) == (2, team.rank == 0)
assert team.share(range(7)) == ([0, 2, 4, 6] if team.main else [1, 3, 5])
assert team.broadcast({"from": team.rank}) == {"from": 0}
assert team.gather(np.full(2, team.rank)).__len__() == (2 if team.main else 0)
shared_counter = team.shared_counter()
shared_counter.add(1 + team.rank)
seen = team.count(5)
team.barrier()
shared_counter.add()
assert shared_counter.total == 3
assert seen + team.count(at_once=True) == 10

def run(*words):
    # as the command does, but for leaving the group
    app.app(["sample", "--checkpoint", tiny, *words], prog_name="gddim", standalone_mode=False)

run("--out", f"{out}/png", "--nfe", "4", "-n", "120", "--batch-size", "9",
    "--save-raw", f"{out}/r.npy", "--trajectory", f"{out}/t.gif")
run("--out", f"{out}/tar", "--nfe", "30", "-n", "20", "--batch-size", "3", "--sampler", "rk45", "--format", "tar")
sys.argv = ["gddim", "sample", "--checkpoint", tiny, "--out", f"{out}/apart{team.rank}"]
import gddim_cli.runs.folder
gddim_cli.runs.folder.PATIENCE = 0.5
cli.main()
"""


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in APART}


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def alive(pid: int) -> bool:
    """Whether a process runs; one that its parent has not asked for yet has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_torchrun_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other launchers' variables alone do not make a team, which would wait for ever."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    world.cache_clear()
    alone = world()
    assert (alone.rank, alone.size, alone.main) == (0, 1, True)
    assert alone.join() is alone
    assert (alone.share([1, 2, 3]), alone.gather("x"), alone.broadcast("y")) == ([1, 2, 3], ["x"], "y")
    assert (alone.count(3), alone.count()) == (3, 0)
    shared_counter = alone.shared_counter()
    shared_counter.add(2)
    shared_counter.add(3)
    assert shared_counter.total == 5
    alone.barrier()
    alone.leave()
    world.cache_clear()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_a_partition(size: int) -> None:
    parts = [World(rank, size).share(range(20)) for rank in range(size)]
    assert sorted(thing for part in parts for thing in part) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_commands_of_one_process_refuse_several(gddim, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("main", "app"):
        monkeypatch.setattr(f"gddim_cli.cli.{module}.world", lambda: World(0, 2, 0))
    result = gddim("train", "mnist")
    assert result.status == 2
    assert "gddim train runs as one process; start it without torchrun" in result.err


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_all_would_say_is_said_once(gddim, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    said = []
    for rank in range(2):
        monkeypatch.setattr("gddim_cli.cli.main.world", lambda rank=rank: World(rank, 2, rank))
        result = gddim(word)
        said.append((result.status, bool(result.out), result.err))
    assert said == [(0, True, ""), (0, False, "")]


SILENT = """
import sys, threading
from gddim_cli.runtime import heartbeat
heartbeat.BEAT, heartbeat.SILENCE = 0.02, 0.3
class Store:
    asked = 0
    def add(self, key, amount):
        self.asked += 1
        if self.asked == 100:
            print("silent from now on", flush=True)
        threading.Event().wait(None if self.asked >= 100 else 0)
        return 2
store = Store()
heartbeat.Heartbeat(store, 0, 2, int(sys.argv[1])).start()
while True:
    store.add("progress", 1)
    threading.Event().wait(0.02)
"""


@pytest.mark.parametrize(("local_rank", "lines"), [(0, 1), (1, 0)])
def test_a_store_that_falls_silent_ends_the_process(local_rank: int, lines: int) -> None:
    """As when the machine of rank 0 loses power: nobody closes the connection."""
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(local_rank)], capture_output=True, text=True, env=ALONE, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "silent from now on\n")
    silent = "gddim: rank 0: the launcher on the machine of rank 0 has not responded"
    assert done.stderr.count(silent) == lines, done.stderr
    assert done.stderr.count("\n") == lines


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks in /proc")
def test_a_launcher_that_is_stopped_ends_its_ranks(tmp_path: Path, ranks_of) -> None:
    """All of them wait in the store's client, which hears no signal."""
    script = tmp_path / "team.py"
    script.write_text(
        "from gddim_cli.runtime import distributed, heartbeat\n"
        "heartbeat.BEAT, heartbeat.SILENCE = 0.1, 1.0\n"
        "team = distributed.world().join()\n"
        "team.barrier()\n"
        "import os\n"
        "os.write(1, b'here')\n"
        "while True: team.add('progress', 1)\n"
    )
    process = subprocess.Popen(
        [*TORCHRUN, "2", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ALONE
    )
    deadline = time.monotonic() + 90
    try:
        assert process.stdout.read(8) == "herehere"
        there = ranks_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        while any(alive(pid) for pid in there.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(alive(pid) for pid in there.values())
    finally:
        process.send_signal(signal.SIGCONT)
        message = process.communicate(timeout=60)[1]
    assert message.count("has not responded for 1 s; finished work is kept") == 1, message


@pytest.mark.slow
def test_two_processes_make_what_one_makes(gddim, tiny: Path, tmp_path: Path) -> None:
    """Bytes of images, states and film; an adaptive sampler's tolerance; and a word where the folders differ."""
    script, out = tmp_path / "team.py", tmp_path / "two"
    script.write_text(TEAM)
    out.mkdir()
    done = subprocess.run([*TORCHRUN, "2", script, tiny, out], capture_output=True, text=True, env=ALONE, timeout=120)
    assert "apart1 of rank 1 on" in done.stderr, done.stderr
    assert done.stderr.count("gddim: ") == 1, done.stderr
    one = tmp_path / "one"
    words = ("sample", "--checkpoint", tiny, "--nfe", 4, "-n", 120, "--batch-size", 9, "--out", one / "png")
    assert gddim(*words, "--save-raw", one / "r.npy", "--trajectory", one / "t.gif").status == 0
    words = ("--nfe", 30, "-n", 20, "--batch-size", 3, "--sampler", "rk45", "--format", "tar", "--out", one / "tar")
    assert gddim("sample", "--checkpoint", tiny, *words).status == 0
    for name in ("png", "tar"):
        assert images(out / name) == images(one / name)
        assert (out / name / "manifest.json").read_bytes() == (one / name / "manifest.json").read_bytes()
        ours, theirs = record(out / name), record(one / name)
        assert (ours["nfe"], ours["tolerance"]) == (pytest.approx(theirs["nfe"]), theirs["tolerance"])
        assert [(s["images"], s["processes"]) for s in ours["sessions"]] == [(ours["num"], 2)]
    assert (out / "r.npy").read_bytes() == (one / "r.npy").read_bytes()
    assert (out / "t.gif").read_bytes() == (one / "t.gif").read_bytes()
    assert "120 images in" in done.stderr
    assert done.stderr.count("images/s") == 2  # one of the two processes talks


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks in /proc")
def test_a_killed_process_ends_all_and_three_go_on(gddim, ranks_of, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    words = ["--checkpoint", tiny, "--nfe", "20", "--num", "600", "--batch-size", "8", "--format", "npz", "--out", out]
    process = subprocess.Popen([*TORCHRUN, "2", *OURS, *words], stderr=subprocess.PIPE, text=True, env=ALONE)
    deadline = time.monotonic() + 60
    while len(list(out.glob("images-*.npz"))) < 12 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    found = ranks_of(process.pid)
    assert 1 in found, f"the run ended before it could be killed: {process.communicate(timeout=60)[1]}"
    os.kill(found[1], signal.SIGKILL)
    message = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert message.count("gddim: rank 0: interrupted; finished work is kept") == 1, message
    assert message.count("gddim: ") == 1
    before = record(out)
    there = sum(len(np.load(part)["index"]) for part in out.glob("images-*.npz"))
    assert before["complete"] is False
    assert 0 < before["sessions"][0]["images"] <= there < 600
    done = subprocess.run([*TORCHRUN, "3", *OURS, *words], capture_output=True, text=True, env=ALONE, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{there} of 600 images exist" in done.stderr
    assert gddim("sample", *words[:-1], tmp_path / "whole").status == 0
    (shard,) = out.glob("images-*.npz")
    with np.load(shard) as three, np.load(tmp_path / "whole" / shard.name) as one:
        np.testing.assert_array_equal(three["images"], one["images"])
        np.testing.assert_array_equal(three["index"], range(600))
    assert [session["processes"] for session in record(out)["sessions"]] == [2, 3]
    assert record(out)["sessions"][1]["images"] == 600 - there
    assert [file.name for file in out.glob(".*")] == [".lock"]
