"""The writer's thread: order, a bounded queue, errors that come out at once, and nothing lost at the end."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from gddim_cli.errors import OutputError
from gddim_cli.runtime.background_writer import DEPTH, Writer, to_host


def test_results_come_back_in_order_on_the_calling_thread() -> None:
    here, done = threading.get_ident(), []
    workers = set()

    def work(n: int) -> int:
        workers.add(threading.get_ident())
        return 2 * n

    writer = Writer(work, lambda n: done.append((n, threading.get_ident())))
    for n in range(20):
        writer.put(n)
    writer.finish()
    assert done == [(2 * n, here) for n in range(20)]
    assert len(workers) == 1
    assert here not in workers


def test_at_most_so_many_are_under_way() -> None:
    """However slow the disk, what waits to be written is bounded."""
    gate, handed, finished = threading.Semaphore(0), [], []

    def feed() -> None:
        for n in range(10):
            writer.put(n)
            handed.append(n)
        writer.finish()

    writer = Writer(lambda n: (gate.acquire(), n)[1], finished.append)
    feeder = threading.Thread(target=feed)
    feeder.start()
    for released in range(8):
        deadline = time.monotonic() + 5
        while len(handed) < DEPTH + released and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(handed) == DEPTH + released
        gate.release()
    for _ in range(2):
        gate.release()
    feeder.join(5)
    assert finished == list(range(10))


def test_an_error_comes_out_at_the_next_check() -> None:
    begun = threading.Event()

    def work(n: int) -> int:
        begun.set()
        if n == 1:
            raise OutputError("the disk is full")
        return n

    done: list[int] = []
    writer = Writer(work, done.append)
    writer.put(0)
    writer.put(1)
    deadline = time.monotonic() + 5
    with pytest.raises(OutputError, match="the disk is full"):  # noqa: PT012
        while time.monotonic() < deadline:
            writer.check()
    writer.stop()
    assert done == [0]


def test_what_was_handed_over_before_a_stop_is_still_done() -> None:
    done: list[int] = []
    writer = Writer(lambda n: (time.sleep(0.05), n)[1], done.append)
    writer.put(0)
    writer.put(1)
    writer.stop()
    assert done == [0, 1]


def test_tensors_come_over_as_they_were() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(64, 3, 8, 8, device=device)
    waits = [to_host(x + k) for k in range(4)]
    for k, wait in enumerate(waits):
        assert (wait() == (x + k).cpu().numpy()).all()
