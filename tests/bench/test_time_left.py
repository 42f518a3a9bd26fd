"""The time left, with a clock that only the network moves: on an idle machine, and on one with other work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace

import pytest

from gddim_cli.cli import bench_view, progress
from gddim_cli.cli.progress import TimeLeft
from gddim_cli.models.network import Counted

SECONDS = 0.01
"""Of one network evaluation of one image on the idle machine."""


@dataclass
class Machine:
    """A clock, slower by a factor that depends on the number of evaluations so far, and what was printed when."""

    slower: object
    now: float = 1000.0
    evaluations: int = 0
    lines: list[tuple[float, str]] = field(default_factory=list)

    def work(self, images: int) -> None:
        self.evaluations += 1
        self.now += SECONDS * images * self.slower(self.evaluations)


def seconds(text: str) -> float:
    """`1:02:03`, `2:03` or `4.5 s` as seconds."""
    if text.endswith(" s"):
        return float(text[:-2])
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return float(total)


def on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the machine's clock in place of the real one."""
    clock = SimpleNamespace(monotonic=lambda: machine.now, perf_counter=lambda: machine.now)
    for module in ("cli.progress", "runs.batch_size", "bench.run"):
        monkeypatch.setattr(f"gddim_cli.{module}.time", clock)
    forward = Counted.__call__

    def timed(self, x, *words, **named):
        machine.work(len(x))
        return forward(self, x, *words, **named)

    monkeypatch.setattr(Counted, "__call__", timed)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 2.0)
    for module in (progress, bench_view):
        monkeypatch.setattr(module, "say", lambda text: machine.lines.append((machine.now, text)))


@pytest.mark.parametrize(
    "slower",
    [lambda _: 1.0, lambda _: 4.0, lambda n: 1.0 if n % 7 else 15.0],
    ids=["idle", "busy", "bursts"],
)
def test_the_time_left_is_within_a_factor_of_two_of_the_truth(bench, monkeypatch: pytest.MonkeyPatch, slower) -> None:
    machine = Machine(slower)
    on(machine, monkeypatch)
    words = ("--sampler", "gddim,em,heun,rk45", "--nfe", "5,20", "--num", "24", "--batch-size", "8", "--solver-error")
    assert bench(*words, "--solver-error-images", "2").status == 0
    found = [(at, match[1]) for at, line in machine.lines if (match := re.search(r", ([\d:.]+(?: s)?) left", line))]
    assert len(found) > 10
    for at, text in found:
        truth = machine.now - at
        if truth > 1:
            assert 0.5 < seconds(text) / truth < 2, (at, text, truth)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(found)]
    longest_batch = SECONDS * 8 * max(slower(n) for n in range(1, 100))
    assert max(gaps) < progress.SECONDS_BETWEEN_LINES + 2 * longest_batch  # piped, it is never silent for long


def test_print_plan_says_what_the_run_will_take(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda _: 3.0)
    on(machine, monkeypatch)
    words = ("--sampler", "gddim,heun", "--nfe", "5,20", "--num", "40", "--batch-size", "8")
    bench(*words, "--print-plan")
    told = seconds(re.search(r"about ([\d:.]+(?: s)?) on", machine.lines[-1][1])[1])
    machine.lines.clear()
    started = machine.now
    assert bench(*words).status == 0
    assert 0.5 < told / (machine.now - started) < 2


def test_what_is_finished_corrects_an_estimate_that_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate of 100 s for 500 s of work: after a tenth of it the time left is right within a third."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr("gddim_cli.cli.progress.time", clock)
    left = TimeLeft(100.0)
    assert left.text(0.0) == ", 1:40 left"
    for done in range(10, 100, 10):
        clock.now = 5.0 * done
        assert seconds(left.text(float(done)).removeprefix(", ").removesuffix(" left")) == pytest.approx(
            5 * (100 - done), rel=1 / 3
        )
    assert left.text(100.0) == ""
