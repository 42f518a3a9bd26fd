"""Work of several processes that may fail on one of them: all learn why, and continue together."""

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
        around: a context that work runs in.
        on_wait: called now and then while processes wait for each other.
    """

    world: World
    around: Callable[[], AbstractContextManager[None]]
    on_wait: Callable[[], object]

    def attempt(self, work: Callable[[], T]) -> tuple[Any, str | None]:
        """The result of the work, or why it failed; OutputError and PeerError are raised."""
        try:
            with self.around():
                return work(), None
        except (OutputError, PeerError):
            raise
        except GddimError as error:
            return None, str(error)

    def on_main(self, work: Callable[[], T]) -> T:
        """The result of the work on rank 0, on all ranks; raises WorkError on all if it fails."""
        found: tuple[Any, str | None] = self.attempt(work) if self.world.main else (None, None)
        value, reason = self.world.broadcast(found)
        if reason:
            raise WorkError(reason)
        return value

    def together(self, work: Callable[[], T]) -> T:
        """The result of the work on this rank, once every rank has finished; raises WorkError on all if one fails."""
        value, reason = self.attempt(work)
        self.world.barrier(self.on_wait)
        reason = self.world.broadcast(next((why for why in self.world.gather(reason) if why), None))
        if reason:
            raise WorkError(reason)
        return value
