"""Long work on stderr: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """One line of talk, on stderr."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Counts `unit`s towards `total`; a context manager.

    Attributes:
        done: so far, from `start` of earlier calls; may be fractional.
    """

    def __init__(self, total: int, unit: str, start: float = 0.0) -> None:
        self.total, self.unit, self.start, self.done = total, unit, start, start
        self.note = ""
        self._rich: RichProgress | None = None

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = (BarColumn(), TextColumn("{task.description}"))
            self._rich = RichProgress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._task = self._rich.add_task(self._line(), total=self.total, completed=int(self.start))
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, amount: float, note: str = "") -> None:
        """Counts `amount` more; `note` (a loss, say) is shown beside the rate."""
        self.done = min(self.total, self.done + amount)
        self.note = note
        if self._rich:
            self._rich.update(self._task, completed=self.done, description=self._line())
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(self._line())

    def say(self, text: str) -> None:
        """A line, or several, above the bar."""
        if self._rich:
            from rich.text import Text

            self._rich.console.print(Text.from_ansi(text))
        else:
            say(text)

    def _line(self) -> str:
        spent = time.monotonic() - self._began
        rate = (self.done - self.start) / spent if spent > 0 else 0.0
        parts = [f"{int(self.done)}/{self.total} {self.unit}"]
        if rate:
            parts += [f"{rate:.3g} {self.unit}/s", f"{duration((self.total - self.done) / rate)} left"]
        return ", ".join([*parts, self.note] if self.note else parts)


def duration(seconds: float) -> str:
    """`1:02:03`, `2:03` or `4.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
