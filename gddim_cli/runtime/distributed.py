"""Runs in several processes, started by torchrun: ranks, communication, and ending all ranks when one fails.

`torchrun --nproc-per-node N -m gddim_cli ...` starts N processes, with ranks 0 to N - 1. They communicate through the
launcher's key-value store (counts, failures) and a gloo process group (small objects; nothing is reduced across GPUs).
While ranks wait for each other, they poll the store instead of blocking in a collective. This way, Ctrl-C works, and
the failure of one rank ends all of them. If the machine of the store is lost, the store no longer responds, and a
background thread ends the process (see `heartbeat`). Without torchrun, there is one rank and no process group.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from gddim_cli.errors import GddimError, PeerError
from gddim_cli.runtime.heartbeat import RESUME_HINT, Heartbeat

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Maximum time to wait for the other processes to start."""
COLLECTIVE = timedelta(minutes=2)
"""Maximum duration of a collective. Each collective follows a barrier, so this includes no waiting for slow ranks."""
POLL = 0.05
"""Seconds between two polls of the store while waiting."""
REPORT = 0.25
"""Seconds between two reports of a rank's progress."""


@dataclass
class World:
    """The processes of this run. Each process has a `World` of its own.

    Attributes:
        rank: the rank of this process, from 0.
        size: the number of processes.
        local_rank: the rank of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _store: Any = field(default=None, repr=False)
    _barriers: int = 0
    _counters: int = 0
    _counted: int = 0
    _seen: int = 0
    _reported: float = 0.0
    _heartbeat: Heartbeat | None = None

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which prints messages and writes the files that all ranks share."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """The rank and the machine of this process, for messages."""
        return f"rank {self.rank} on {socket.gethostname()}"

    def join(self) -> World:
        """Joins the process group of all ranks; returns this `World`. A single process has nothing to join.

        Raises:
            GddimError: the other processes cannot be reached.
        """
        if self.size == 1 or self._store is not None:
            return self
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
            own = distributed.PrefixStore("gddim", store)  # type: ignore[attr-defined]
            self._await_all(own)
            group = distributed.PrefixStore("group", store)  # type: ignore[attr-defined]
            distributed.init_process_group(
                "gloo", timeout=COLLECTIVE, world_size=self.size, rank=self.rank, store=group
            )
        except RuntimeError as error:
            raise GddimError(
                f"the {self.size} processes cannot reach each other ({first_line(error)}); "
                "if a machine has several network interfaces, choose one, for example GLOO_SOCKET_IFNAME=eth0"
            ) from error
        self._store = own
        self._heartbeat = Heartbeat(own, self.rank, self.size, self.local_rank)
        self._heartbeat.start()
        return self

    def _await_all(self, store: Any) -> None:
        """Waits until all processes have started. Raises RuntimeError if some have not started within `TIMEOUT`."""
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        store.add("started", 1)
        while (there := int(store.add("started", 0))) < self.size:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {there} have started after {TIMEOUT.total_seconds():.0f} s")
            time.sleep(POLL)

    def leave(self, failed: bool = False) -> None:
        """Leaves the process group. If `failed`, first tells the other ranks, which then end too."""
        if self._store is None:
            return
        from torch import distributed

        with suppress(RuntimeError):  # The launcher, which hosts the store, may have ended already.
            if failed:
                self._store.set("failed", self.name)
            else:
                distributed.destroy_process_group()
        self._store = None
        if self._heartbeat:
            self._heartbeat.stop()

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's share of the items: every `size`-th item, starting with item number `rank`."""
        return list(items[self.rank :: self.size])

    def check(self) -> None:
        """Raises PeerError if another rank has failed, or has not responded for too long."""
        if self._store is None:
            return
        if self._ask(lambda store: store.check(["failed"])):
            who = self._ask(lambda store: store.get("failed")).decode()
            raise PeerError(f"{who} has ended, so this process ends too; {RESUME_HINT}")
        if heartbeat := self._heartbeat:
            self._ask(lambda _: heartbeat.check())

    def barrier(self, on_wait: Callable[[], object] | None = None) -> None:
        """Waits until all ranks have reached the same barrier.

        Args:
            on_wait: called repeatedly while waiting.

        Raises:
            PeerError: another rank has failed, or does not respond.
        """
        if self.size == 1:
            return
        self._flush()
        self._barriers += 1
        key = f"barrier {self._barriers}"
        self.add(key, 1)
        while self.add(key, 0) < self.size:
            time.sleep(POLL)
            self.check()
            if on_wait:
                on_wait()

    def broadcast(self, item: T) -> T:
        """Returns on every rank the `item` that rank 0 passes. It may be any picklable object.

        Raises:
            PeerError: as in `barrier`.
        """
        if self.size == 1:
            return item
        from torch import distributed

        self.barrier()
        box = [item]
        self._collective(lambda: distributed.broadcast_object_list(box, src=0))
        return box[0]

    def gather(self, item: T) -> list[T]:
        """On rank 0, the items of all ranks in order; on the other ranks, an empty list.

        Raises:
            PeerError: as in `barrier`.
        """
        if self.size == 1:
            return [item]
        from torch import distributed

        self.barrier()
        everyone: list[Any] | None = [None] * self.size if self.main else None
        self._collective(lambda: distributed.gather_object(item, everyone, dst=0))
        return everyone or []

    def sharing(self, device: object) -> int:
        """On rank 0, the largest number of ranks that share a device; on the other ranks, 1.

        Raises:
            PeerError: as in `barrier`.
        """
        places = self.gather(f"{socket.gethostname()} {device}")
        return max(map(places.count, places), default=1)

    def count(self, amount: int = 0, at_once: bool = False) -> int:
        """Adds `amount` to the work done by this rank; returns the work of all ranks since this rank's last report.

        The rank reports to the store at most every `REPORT` seconds, or at once if `at_once`. Between reports, the
        result is 0.

        Raises:
            PeerError: another rank has failed.
        """
        if self.size == 1:
            return amount
        self._counted += amount
        if not at_once and time.monotonic() - self._reported < REPORT:
            return 0
        self.check()
        before, self._seen, self._reported = self._seen, self._flush(), time.monotonic()
        return self._seen - before

    def _flush(self) -> int:
        """Reports the work that this rank has done; returns the total work of all ranks."""
        amount, self._counted = self._counted, 0
        return self.add("progress", amount)

    def shared_counter(self) -> SharedCounter:
        """A new counter that all ranks share. Every rank must create the same counters in the same order."""
        self._counters += 1
        return SharedCounter(self, f"counter {self._counters}")

    def claim_error_report(self) -> bool:
        """Whether this rank should report why the run ends. Only the first rank to end should."""
        if self.size == 1:
            return True
        if self._store is None:  # Before `join`, all ranks of a machine meet the same error, so one of them reports it.
            return self.local_rank == 0
        try:
            return self.add("error reports", 1) == 1
        except PeerError:
            return self.main

    def add(self, key: str, amount: int) -> int:
        """Adds an amount to the number stored under `key`; returns the sum."""
        return int(self._ask(lambda store: store.add(key, amount)))

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            return question(self._store)
        except RuntimeError as error:
            raise PeerError(f"the launcher that started this process has ended ({first_line(error)})") from error

    def _collective(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:
            raise PeerError(f"another process has ended ({first_line(error)})") from error


@dataclass
class SharedCounter:
    """A counter that all ranks add to.

    Attributes:
        world: the processes.
        key: its name in the store.
        total: its value at the last call of `add`.
    """

    world: World
    key: str
    total: int = 0

    def add(self, amount: int = 0) -> None:
        """Adds an amount and updates `total`.

        Raises:
            PeerError: the launcher has ended.
        """
        self.total = self.total + amount if self.world.size == 1 else self.world.add(self.key, amount)


@functools.cache
def world() -> World:
    """The processes that torchrun has started; without torchrun, this process alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(rank, size, local_rank)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]
