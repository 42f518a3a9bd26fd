"""Heartbeats: a rank that sends none for a minute counts as lost.

The launcher's key-value store also counts as lost if it does not respond for a minute.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gddim_cli.errors import PeerError

RESUME_HINT = "finished work is kept; rerun the same command to resume"
BEAT = 5.0
"""Seconds between two heartbeats."""
SILENCE = 60.0
"""Seconds after which a rank that sends no heartbeat, or a store that does not respond, counts as lost."""


@dataclass
class Heartbeat:
    """Sends the heartbeats of this rank, and watches the store and the heartbeats of all ranks.

    Attributes:
        store: the launcher's key-value store.
        rank, size, local_rank: as in `World`.
    """

    store: Any = field(repr=False)
    rank: int
    size: int
    local_rank: int
    _stopped: threading.Event = field(default_factory=threading.Event)
    _answers: int = 0
    _looked: float = 0.0
    _beats: dict[int, tuple[int, float]] = field(default_factory=dict)

    def start(self) -> None:
        """Starts one thread that sends heartbeats and one that watches whether the store responds."""
        threading.Thread(target=self._beat, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Ends both threads."""
        self._stopped.set()

    def check(self) -> None:
        """Raises PeerError if a rank has sent no heartbeat for too long; RuntimeError if the launcher has ended."""
        now = time.monotonic()
        if now - self._looked < BEAT:
            return
        self._looked = now
        for rank in range(self.size):
            beat = int(self.store.add(f"beat {rank}", 0))
            last, since = self._beats.get(rank, (-1, now))
            self._beats[rank] = (beat, since if beat == last else now)
            if now - self._beats[rank][1] > SILENCE:
                raise PeerError(f"rank {rank} has not responded for {SILENCE:.0f} s; {RESUME_HINT}")

    def _beat(self) -> None:
        """Sends heartbeats, on a separate thread."""
        # If the launcher has ended, the main thread raises an error at its next call to the store.
        with suppress(RuntimeError):
            while not self._stopped.wait(BEAT):
                self.store.add(f"beat {self.rank}", 1)
                self._answers += 1
        self._stopped.set()

    def _watch(self) -> None:
        """Ends the process if the store stops responding. Runs on a separate thread.

        The main thread may then be blocked in a call to the store, where Ctrl-C cannot interrupt it. Files remain
        complete, since they are written atomically. This thread measures the silence by counting its own waits, not by
        the clock. Time during which the process is suspended (Ctrl-Z) therefore does not count.
        """
        answers, waits = -1, 0
        while not self._stopped.wait(BEAT):
            answers, waits = self._answers, waits + 1 if self._answers == answers else 0
            if waits * BEAT > SILENCE:
                silent = f"the launcher on the machine of rank 0 has not responded for {SILENCE:.0f} s; {RESUME_HINT}\n"
                os.write(2, f"gddim: rank {self.rank}: {silent}".encode() if self.local_rank == 0 else b"")
                os._exit(1)
