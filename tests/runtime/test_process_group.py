"""Processes of one group on the CPU: ones that never start, die or stop in the middle, and two groups on one machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gddim_cli

SCRIPT = """
import os, signal, sys
from datetime import timedelta
from gddim_cli.errors import GddimError
from gddim_cli.runtime import distributed
distributed.TIMEOUT = distributed.COLLECTIVE = timedelta(seconds=3)
world = distributed.world()
try:
    world.join()
    arrive, ends = world.barrier, {"dies": lambda: os._exit(9), "stops": lambda: os.kill(os.getpid(), signal.SIGSTOP)}
    def barrier(*_):  # in the middle: after all ranks have arrived, before the collective
        arrive()
        if world.rank == 1 and sys.argv[1] in ends:
            ends[sys.argv[1]]()
    world.barrier = barrier
    print(world.gather(sys.argv[2] + str(world.rank)), flush=True)
    world.leave()
except GddimError as error:
    print(type(error).__name__, error, flush=True)
"""

pytestmark = pytest.mark.slow
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(rank, port, action, name)`: one of two processes, as torchrun starts them."""
    started: list[subprocess.Popen] = []

    def begin(rank: int, port: int, action: str = "", name: str = "from ") -> subprocess.Popen:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(gddim_cli.__file__).parent.parent),
            "TORCHELASTIC_RUN_ID": "none",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        command = [sys.executable, "-c", SCRIPT, action, name]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def said(process: subprocess.Popen) -> str:
    return process.communicate(timeout=60)[0].strip()


def test_a_process_that_never_starts_ends_the_others_after_the_time_out(start: Start) -> None:
    told = said(start(0, free_port()))
    assert told.startswith("GddimError the 2 processes cannot reach each other ("), told
    assert "choose one, for example GLOO_SOCKET_IFNAME=eth0" in told


@pytest.mark.parametrize("action", ["dies", "stops"])
def test_a_rank_that_ends_in_the_middle_of_a_collective_ends_the_others(start: Start, action: str) -> None:
    port = free_port()
    first, _ = start(0, port, action), start(1, port, action)
    told = said(first)
    assert told.startswith("PeerError another process has ended ("), told


def test_two_groups_on_one_machine_with_different_ports_do_not_meet(start: Start) -> None:
    ports = {name: free_port() for name in ("a", "b")}
    processes = {name: [start(rank, port, "", name) for rank in (0, 1)] for name, port in ports.items()}
    for name, (first, second) in processes.items():
        assert said(first) == f"['{name}0', '{name}1']"
        assert said(second) == "[]"


def test_a_second_process_that_is_late_is_awaited(start: Start) -> None:
    port = free_port()
    first = start(0, port)
    time.sleep(1)
    assert said(start(1, port)) == "[]"
    assert said(first) == "['from 0', 'from 1']"
