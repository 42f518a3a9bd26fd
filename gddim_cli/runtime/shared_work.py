"""Work that may fail on one of several processes. The failure is raised on all of them, so that they stay in step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from gddim_cli.errors import GddimError, OutputError, PeerError
from gddim_cli.runtime.distributed import World

T = TypeVar("T")


class WorkError(GddimError):
    """A failure on one of the processes, raised on all of them."""


@dataclass(frozen=True)
class SharedWork:
    """Runs work on the processes of a world.

    Attributes:
        around: returns a context in which work runs.
        on_wait: called repeatedly while processes wait for each other.
    """

    world: World
    around: Callable[[], AbstractContextManager[None]]
    on_wait: Callable[[], object]

    def attempt(self, work: Callable[[], T]) -> tuple[Any, str | None]:
        """The work's result and None, or None and the reason for a failure. OutputError and PeerError are raised."""
        try:
            with self.around():
                return work(), None
        except (OutputError, PeerError):
            raise
        except GddimError as error:
            return None, str(error)

    def on_main(self, work: Callable[[], T]) -> T:
        """Runs the work on rank 0 and returns its result on all ranks. If it fails, raises WorkError on all ranks."""
        found: tuple[Any, str | None] = self.attempt(work) if self.world.main else (None, None)
        value, reason = self.world.broadcast(found)
        if reason:
            raise WorkError(reason)
        return value

    def together(self, work: Callable[[], T]) -> T:
        """Runs the work on every rank; returns this rank's result when all have finished.

        Raises:
            WorkError: the work has failed on one of the ranks; raised on all of them.
        """
        value, reason = self.attempt(work)
        self.world.barrier(self.on_wait)
        reason = self.world.broadcast(next((why for why in self.world.gather(reason) if why), None))
        if reason:
            raise WorkError(reason)
        return value
