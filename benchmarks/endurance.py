"""Tests `gddim sample` under kills and in a long run: docs/endurance.md. Needs Linux, because it reads /proc.

python benchmarks/endurance.py kills     # SIGKILL at twenty random moments, with one process and with two
python benchmarks/endurance.py soak      # 10 000 images on two processes: memory, file handles, progress
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gddim_cli.runs.storage.manifest import MANIFEST
from gddim_cli.runs.storage.registry import open_storage
from gddim_cli.runs.storage.shards import Shards
from gddim_cli.runtime.files import LOCK

FORMATS = ("png", "npz", "tar")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(processes: int, *words: object) -> list[str]:
    """The command line of `gddim sample WORDS` on these processes; `--` keeps torchrun from parsing gddim's options."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "--"]
    return [sys.executable, *(torchrun if processes > 1 else ["-m"]), "gddim_cli", "sample", *map(str, words)]


def children(parent: int) -> list[int]:
    """The ids of the processes that `parent` started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.name))
    return sorted(found)


def hashes(folder: Path, format: str, num: int) -> list[str]:
    """SHA-256 of every image's pixels."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in open_storage(folder, format).read(range(num))]


def copies(folder: Path, format: str, num: int) -> Counter[int]:
    """The number of copies of each image in the folder."""
    storage = open_storage(folder, format)
    if isinstance(storage, Shards):
        return Counter(index for file in storage.files(num) for index in storage.index(file))
    return Counter(storage.done(num))


@dataclass
class Trial:
    """A run that was killed and then resumed.

    Attributes:
        victim: which process was killed.
        there: number of images in the folder after the kill.
        again: number of processes that resumed the run.
        faults: what is wrong with the resumed run; empty if nothing is.
    """

    processes: int
    format: str
    victim: str
    there: int
    again: int
    faults: list[str] = field(default_factory=list)


@dataclass
class Killer:
    """Kills runs of `num` images, resumes them, and compares them with uninterrupted runs.

    Attributes:
        folder: the parent folder of the runs' folders.
        words: the arguments of the command, except --num, --format and --out.
        dice: the generator of random moments and victims.
        whole: the hashes of an uninterrupted run's images, by format.
    """

    folder: Path
    num: int
    words: tuple[object, ...]
    dice: random.Random
    whole: dict[str, list[str]] = field(default_factory=dict)

    def reference(self, format: str) -> Path:
        """The folder of an uninterrupted run on one process, which is made at the first call."""
        folder = self.folder / f"whole-{format}"
        if format not in self.whole:
            self.run(1, format, folder)
            self.whole[format] = hashes(folder, format, self.num)
        return folder

    def run(self, processes: int, format: str, out: Path) -> None:
        """Runs the command to its end; raises SystemExit if it fails."""
        status = self.start(processes, format, out).wait()
        if status != 0:
            raise SystemExit(f"a run on {processes} processes ended with status {status}")

    def start(self, processes: int, format: str, out: Path) -> subprocess.Popen[bytes]:
        words = (*self.words, "--num", self.num, "--format", format, "--out", out)
        return subprocess.Popen(command(processes, *words), stderr=subprocess.DEVNULL, env=ALONE)

    def trial(self, processes: int, format: str, again: int, number: int) -> Trial:
        """Kills a run up to 0.2 s after a random number of images, resumes it on `again` processes, and checks it."""
        self.reference(format)
        out, target = self.folder / f"{processes}-{format}-{number}", self.dice.randrange(self.num)
        process, storage = self.start(processes, format, out), open_storage(out, format)
        while process.poll() is None and not (out.exists() and len(storage.done(self.num)) >= target):
            time.sleep(0.01)
        time.sleep(self.dice.uniform(0, 0.2))
        trial = Trial(processes, format, self.kill(process, processes), len(storage.done(self.num)), again)
        process.wait()
        self.run(again, format, out)
        trial.faults = self.faults(out, format)
        return trial

    def kill(self, process: subprocess.Popen[bytes], processes: int) -> str:
        """Sends SIGKILL to the only process; with several, to one rank, the launcher or all. Returns who was killed."""
        ranks = children(process.pid) if processes > 1 else []
        choices: dict[str, list[int]] = {"all": [process.pid, *ranks]}
        if processes > 1:
            choices |= {
                "a rank": ranks[self.dice.randrange(len(ranks)) :][:1] if ranks else [],
                "launcher": [process.pid],
            }
        victim = self.dice.choice(sorted(choices))
        for pid in choices[victim]:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        return victim

    def faults(self, out: Path, format: str) -> list[str]:
        """The differences from an uninterrupted run."""
        reference, found = self.reference(format), []
        counted = copies(out, format, 10 * self.num)
        if sorted(counted) != list(range(self.num)):
            found.append(f"{len(counted)} images")
        if set(counted.values()) != {1}:
            found.append("duplicate images")
        if not found and hashes(out, format, self.num) != self.whole[format]:
            found.append("changed images")
        if (out / MANIFEST).read_bytes() != (reference / MANIFEST).read_bytes():
            found.append("a different manifest")
        if any(file.name.startswith(".") and file.name != LOCK for file in out.iterdir()):
            found.append("half-written files")
        return found


def kills(
    num: int,
    count: int,
    words: tuple[object, ...],
    seed: int = 0,
    teams: Sequence[int] = (1, 2),
    formats: Sequence[str] = FORMATS,
) -> list[Trial]:
    """Makes `count` trials for each number of processes in `teams`, cycling through the formats."""
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), num, words, random.Random(seed))
        for processes in teams:
            resumes = [1] if processes == 1 else [2, 1, 3]
            for number in range(count):
                again = resumes[number % len(resumes)]
                trials.append(killer.trial(processes, formats[number % len(formats)], again, number))
                print(f"{number + 1}/{count}: {trials[-1]}", file=sys.stderr, flush=True)
    return trials


def kills_table(trials: list[Trial], num: int) -> Iterator[str]:
    heads = ["processes", "format", "kills", "of launcher, of one rank, of all", f"images at the kill (of {num})"]
    yield f"| {' | '.join(heads)} | processes on resume | complete and identical |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for processes, kind in sorted({(t.processes, t.format) for t in trials}, key=lambda k: (k[0], FORMATS.index(k[1]))):
        group = [trial for trial in trials if (trial.processes, trial.format) == (processes, kind)]
        victims = Counter(trial.victim for trial in group)
        who = ", ".join(str(victims[name]) for name in ("launcher", "a rank", "all"))
        there = ", ".join(str(n) for n in sorted(trial.there for trial in group))
        again = ", ".join(str(n) for n in sorted({trial.again for trial in group}))
        good = sum(not trial.faults for trial in group)
        yield f"| {processes} | {kind} | {len(group)} | {who} | {there} | {again} | {good} of {len(group)} |"


@dataclass
class Watch:
    """Measurements of a rank during a run: number of images so far, resident memory in MiB, open file handles."""

    rank: int
    samples: list[tuple[int, float, int]] = field(default_factory=list)

    def look(self, pid: int, images: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            handles = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        except OSError:  # the process has ended
            return
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        if resident:
            self.samples.append((images, int(resident[1]) / 1024, handles))


def soak(num: int, words: tuple[object, ...], every: float = 1.0) -> tuple[list[Watch], list[int]]:
    """Makes a run on two processes; returns a `Watch` for each process and the image counts of the progress lines."""
    counts: list[int] = []

    def listen(stream: IO[str]) -> None:
        for line in stream:
            print(line, end="", file=sys.stderr, flush=True)
            reported = re.match(r"(\d+)/\d+ images", line)
            if reported:
                counts.append(int(reported[1]))

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "imgs"
        process = subprocess.Popen(
            command(2, *words, "--num", num, "--out", out), stderr=subprocess.PIPE, text=True, env=ALONE
        )
        assert process.stderr
        listener = threading.Thread(target=listen, args=(process.stderr,))
        listener.start()
        watches = [Watch(0), Watch(1)]
        while process.poll() is None:
            time.sleep(every)
            if (out / "run.json").exists():
                images = len(open_storage(out, "png").done(num))
                for watch, pid in zip(watches, children(process.pid), strict=False):
                    watch.look(pid, images)
        listener.join()
        if process.returncode != 0:
            raise SystemExit(f"the run ended with status {process.returncode}")
    return watches, counts


def soak_table(watches: list[Watch], counts: list[int], num: int) -> Iterator[str]:
    """The measurements at tenths of the run. Those before the first tenth are warm-up and are left out."""
    tenths = [num * k // 10 for k in range(1, 10)]
    heads = [*(f"at {n}" for n in tenths), "maximum", "last", "maximum after the last image"]
    yield f"| rank | quantity | {' | '.join(heads)} |"
    yield "| --- " * (len(tenths) + 5) + "|"
    for watch in watches:
        warm = [sample for sample in watch.samples if tenths[0] <= sample[0] < num]
        end = [sample for sample in watch.samples if sample[0] == num] or warm
        rows = [next(sample for sample in warm if sample[0] >= n) for n in tenths]
        for what, column, form in (("resident memory (MiB)", 1, ".0f"), ("open file handles", 2, "d")):
            cells = [row[column] for row in rows]
            cells += [max(sample[column] for sample in warm), warm[-1][column], max(sample[column] for sample in end)]
            yield f"| {watch.rank} | {what} | " + " | ".join(format(cell, form) for cell in cells) + " |"
    rising = all(a <= b for a, b in itertools.pairwise(counts))
    yield ""
    yield (
        f"The run printed {len(counts)} progress lines. The number of images in them rose from {counts[0]} to {counts[-1]} and "
        f"{'never fell' if rising else 'FELL'}. Memory and file handles were recorded "
        f"{' and '.join(str(len(watch.samples)) for watch in watches)} times for the two processes."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "soak"))
    parser.add_argument("--checkpoint", default="mnist")
    parser.add_argument("--nfe", type=int, default=10)
    parser.add_argument("--num", type=int, help="number of images (default: 500 for kills, 10 000 for soak)")
    parser.add_argument("--kills", type=int, default=20, help="number of kills for each number of processes")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    words = ("--checkpoint", chosen.checkpoint, "--nfe", chosen.nfe)
    if chosen.what == "kills":
        num = chosen.num or 500
        trials = kills(num, chosen.kills, (*words, "--batch-size", 16), chosen.seed)
        print("\n".join(kills_table(trials, num)))
        if any(trial.faults for trial in trials):
            raise SystemExit("some resumed runs have faults")
    else:
        num = chosen.num or 10_000
        print("\n".join(soak_table(*soak(num, words), num)))


if __name__ == "__main__":
    main()
