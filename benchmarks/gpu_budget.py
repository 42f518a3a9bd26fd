"""The time limit of benchmarks/gpu.py. A measurement that does not fit in the time left is not made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gddim_cli.cli.progress import duration, say
from gddim_cli.errors import GddimError


@dataclass
class Budget:
    """A time limit, which starts when the object is created.

    Attributes:
        seconds: the limit.
        reserved: the seconds that are kept for the final work. `left` does not count them.
    """

    seconds: float
    reserved: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """The seconds left, without the reserved ones."""
        return self.seconds - self.reserved - (time.monotonic() - self.started)

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Whether this number of seconds is left. If not, prints a note on stderr that `what` is left out."""
        enough = self.left() >= seconds
        if not enough:
            say(f"{what}: left out, since only {duration(max(self.left(), 0.0))} are left")
        return enough

    def lines(self, what: str, work: Callable[[], list[str]], seconds: float = 0.0) -> list[str]:
        """The lines that `work` returns; if `work` fails or no time is left, one line that says so."""
        if not self.allows(what, seconds):
            return [f"- {what}: **not measured**, no time left"]
        say(what)
        try:
            return work()
        except (GddimError, RuntimeError, OSError) as error:
            return [f"- {what}: **failed**: {str(error).strip().partition(chr(10))[0]}"]
