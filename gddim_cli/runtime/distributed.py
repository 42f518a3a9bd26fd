"""Several processes on one run, started by torch's own launcher: who is there, who does what, and how all end as one.

`torchrun --nproc-per-node N -m gddim_cli ...` starts N of them, ranks 0 to N - 1. They talk through the launcher's store
(counts, who has failed) and a gloo group (small objects; nothing is summed across GPUs). No wait here is inside a
collective: each polls the store, so that Ctrl-C works and the failure of one ends all. Where the store itself falls
silent, its machine lost, a thread ends the process. Without torchrun there is one rank and no group.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from gddim_cli.errors import GddimError, PeerError

T = TypeVar("T")

TIMEOUT = timedelta(hours=1)
"""Of meeting the other processes, and of a collective."""
RESUME_HINT = "finished work is kept; rerun the same command to resume"
POLL = 0.05
REPORT = 0.25
"""Seconds between two reports of a rank's progress."""
BEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without a sign of life after which a rank is taken for dead: its machine, perhaps, with its launcher; and the store."""


@dataclass
class World:
    """The processes of this run, as one of them sees them.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        local_rank: of this process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _store: Any = field(default=None, repr=False)
    _meetings: int = 0
    _tallies: int = 0
    _counted: int = 0
    _seen: int = 0
    _reported: float = 0.0
    _listened: float = 0.0
    _beats: dict[int, tuple[int, float]] = field(default_factory=dict)
    _left: threading.Event = field(default_factory=threading.Event)
    _answers: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the rank that prints, and that writes what there is one of."""
        return self.rank == 0

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"

    def join(self) -> World:
        """Meets the other processes; at once where there is one.

        Raises:
            GddimError: they cannot be reached.
        """
        if self.size == 1 or self._store is not None:
            return self
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
            group = distributed.PrefixStore("group", store)  # type: ignore[attr-defined]
            distributed.init_process_group("gloo", timeout=TIMEOUT, world_size=self.size, rank=self.rank, store=group)
        except RuntimeError as error:
            raise GddimError(
                f"the {self.size} processes cannot reach each other ({first_line(error)}); "
                "where a machine has several networks, name one: GLOO_SOCKET_IFNAME=eth0"
            ) from error
        self._store = distributed.PrefixStore("gddim", store)  # type: ignore[attr-defined]
        self.listen()
        return self

    def listen(self) -> None:
        """Begins to give signs of life, and to watch for the store's."""
        self._left.clear()
        threading.Thread(target=self._beat, args=(self._store,), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _beat(self, store: Any) -> None:
        """Gives signs of life, on a thread of its own."""
        with suppress(RuntimeError):  # the launcher has ended: who asks next is told
            while not self._left.wait(BEAT):
                store.add(f"beat {self.rank}", 1)
                self._answers += 1
        self._left.set()

    def _watch(self) -> None:
        """Ends the process where the store is silent: who waits for its answer hears no signal. Files are whole all the same.

        It counts waits, not time, since a process that was stopped for a while (Ctrl-Z) has missed its beats too.
        """
        answers, waits = -1, 0
        while not self._left.wait(BEAT):
            answers, waits = self._answers, waits + 1 if self._answers == answers else 0
            if waits * BEAT > SILENCE:
                silent = f"the machine of the first launcher has been silent for {SILENCE:.0f} s; {RESUME_HINT}\n"
                os.write(2, f"gddim: rank {self.rank}: {silent}".encode() if self.local_rank == 0 else b"")
                os._exit(1)

    def _listen(self) -> None:
        """Raises PeerError where a rank has been silent for too long."""
        now = time.monotonic()
        if now - self._listened < BEAT:
            return
        self._listened = now
        for rank in range(self.size):
            beat = self.add(f"beat {rank}", 0)
            last, since = self._beats.get(rank, (-1, now))
            self._beats[rank] = (beat, since if beat == last else now)
            if now - self._beats[rank][1] > SILENCE:
                raise PeerError(f"rank {rank} has been silent for {SILENCE:.0f} s; {RESUME_HINT}")

    def leave(self, failed: bool = False) -> None:
        """Parts from the others; where this rank failed, they end too."""
        if self._store is None:
            return
        from torch import distributed

        with suppress(RuntimeError):  # the launcher may have ended, and its store with it
            if failed:
                self._store.set("failed", self.name)
            else:
                distributed.destroy_process_group()
        self._store = None
        self._left.set()

    def share(self, things: Sequence[T]) -> list[T]:
        """This rank's part of the work: every `size`-th thing."""
        return list(things[self.rank :: self.size])

    def check(self) -> None:
        """Raises PeerError where another rank has failed, or has been silent for too long."""
        if self._store is None:
            return
        if self._ask(lambda store: store.check(["failed"])):
            who = self._ask(lambda store: store.get("failed")).decode()
            raise PeerError(f"{who} has ended, so this process ends too; {RESUME_HINT}")
        self._listen()

    def barrier(self, on_wait: Callable[[], object] | None = None) -> None:
        """Waits until every rank is here.

        Args:
            on_wait: called now and then.

        Raises:
            PeerError: another rank has failed, or is silent.
        """
        if self.size == 1:
            return
        self._flush()
        self._meetings += 1
        key = f"meeting {self._meetings}"
        self.add(key, 1)
        while self.add(key, 0) < self.size:
            time.sleep(POLL)
            self.check()
            if on_wait:
                on_wait()

    def broadcast(self, thing: T) -> T:
        """Rank 0's `thing`, on every rank: any picklable object. Raises PeerError as `barrier`."""
        if self.size == 1:
            return thing
        from torch import distributed

        self.barrier()
        box = [thing]
        self._collective(lambda: distributed.broadcast_object_list(box, src=0))
        return box[0]

    def gather(self, thing: T) -> list[T]:
        """Every rank's `thing`, in their order, on rank 0; an empty list on the others. Raises PeerError as `barrier`."""
        if self.size == 1:
            return [thing]
        from torch import distributed

        self.barrier()
        everyone: list[Any] | None = [None] * self.size if self.main else None
        self._collective(lambda: distributed.gather_object(thing, everyone, dst=0))
        return everyone or []

    def sharing(self, device: object) -> int:
        """How many ranks use one device of one machine, at most; rank 0 is told. Raises PeerError as `barrier`."""
        places = self.gather(f"{socket.gethostname()} {device}")
        return max(map(places.count, places), default=1)

    def count(self, amount: int = 0, at_once: bool = False) -> int:
        """Counts what this rank has done; returns how much has newly become known of what all have done.

        The others are asked at most every `REPORT` seconds, unless `at_once`; between, what it returns is 0.

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
        """Tells the others what this rank has counted; returns what all have."""
        amount, self._counted = self._counted, 0
        return self.add("progress", amount)

    def shared_counter(self) -> SharedCounter:
        """A new count that all ranks keep together; each makes the same ones in the same order."""
        self._tallies += 1
        return SharedCounter(self, f"shared_counter {self._tallies}")

    def claim_error_report(self) -> bool:
        """Whether a last word is this rank's to say: that of the first to end, since the others end because of it."""
        if self.size == 1:
            return True
        if self._store is None:  # too early to ask: all of a machine have met the same
            return self.local_rank == 0
        try:
            return self.add("last word", 1) == 1
        except PeerError:
            return self.main

    def add(self, key: str, amount: int) -> int:
        """Adds to a number in the store, and returns it."""
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
    """A count that all ranks add to.

    Attributes:
        total: as last known.
    """

    world: World
    key: str
    total: int = 0

    def add(self, amount: int = 0) -> None:
        """Adds to it and looks what it is.

        Raises:
            PeerError: the launcher has ended.
        """
        self.total = self.total + amount if self.world.size == 1 else self.world.add(self.key, amount)


@functools.cache
def world() -> World:
    """The world that torchrun put this process in; without torchrun, of this process alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(rank, size, local_rank)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
