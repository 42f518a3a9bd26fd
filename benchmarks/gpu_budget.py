"""A limit on the time of benchmarks/gpu.py, so that one call of ten minutes says the most important things."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gddim_cli.cli.progress import duration, say
from gddim_cli.errors import GddimError


@dataclass
class Budget:
    """Seconds that may be spent since its creation.

    Attributes:
        seconds: the whole time.
        reserved: of it, what `left` leaves for the work that comes last.
    """

    seconds: float
    reserved: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds left, without the reserved ones."""
        return self.seconds - self.reserved - (time.monotonic() - self.started)

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Whether so many seconds are left; prints a note on stderr if not."""
        enough = self.left() >= seconds
        if not enough:
            say(f"{what}: left out, {duration(max(self.left(), 0.0))} of the time are left")
        return enough

    def lines(self, what: str, work: Callable[[], list[str]], seconds: float = 0.0) -> list[str]:
        """The lines that `work` returns; one that says why not, where it fails or the time is up."""
        if not self.allows(what, seconds):
            return [f"- {what}: **not measured**, no time left"]
        say(what)
        try:
            return work()
        except (GddimError, RuntimeError, OSError) as error:
            return [f"- {what}: **failed**: {str(error).strip().partition(chr(10))[0]}"]
