"""Prints data on stdout and progress on stderr. Progress is a bar on a terminal, and otherwise a line every ten seconds."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.text import plain

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.table import Table

SECONDS_BETWEEN_LINES = 10.0
QUIET = False
"""Whether --quiet was given."""
DATA: list[TextIO] = []
"""The stream for data, in the context `data_only`."""


def say(text: str) -> None:
    """Prints one line on stderr, but only on rank 0 and without --quiet."""
    if world().main and not QUIET:
        print(" ".join(plain(text).split("\n")), file=sys.stderr, flush=True)


class Progress:
    """A context manager that shows the progress towards `total` units, named `unit`.

    Attributes:
        done: units finished so far, including the `start` units finished by earlier runs; may be fractional.
    """

    def __init__(self, total: int, unit: str, start: float = 0.0) -> None:
        self.total, self.unit, self.start, self.done = total, unit, start, start
        self.note = ""
        self._rich: RichProgress | None = None

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        self._talked = False
        if sys.stderr.isatty() and world().main and not QUIET:
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
        elif self._talked and kind is None:  # The last plain line shows the final count.
            say(self._line())

    def advance(self, amount: float, note: str = "") -> None:
        """Counts `amount` more; `note` (such as a loss) is shown beside the rate."""
        self.done = min(self.total, self.done + amount)
        self.note = note
        if self._rich:
            self._rich.update(self._task, completed=self.done, description=self._line())
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said, self._talked = time.monotonic(), True
            say(self._line())

    def say(self, text: str) -> None:
        """Prints lines of text above the bar."""
        if self._rich:
            from rich.text import Text

            self._rich.console.print(Text.from_ansi(text))
        else:
            for line in text.splitlines():
                say(line)

    def _line(self) -> str:
        spent = time.monotonic() - self._began
        rate = (self.done - self.start) / spent if spent > 0 else 0.0
        parts = [f"{int(self.done + 1e-6)}/{self.total} {self.unit}"]
        if rate:
            parts += [f"{rate:.3g} {self.unit}/s", f"{duration((self.total - self.done) / rate)} left"]
        return ", ".join([*parts, self.note] if self.note else parts)


class Display:
    """Progress on stderr. A terminal shows a line above tables, both kept up to date; other outputs get a line every ten seconds.

    Attributes:
        live: whether the tables are shown: on a terminal, on rank 0 and without --quiet.
    """

    def __init__(self, line: Callable[[], str], tables: Callable[[], Sequence[Table]]) -> None:
        self.line, self.tables = line, tables
        self.live = sys.stderr.isatty() and world().main and not QUIET

    def __enter__(self) -> Self:
        self._said = time.monotonic()
        if self.live:
            from rich.console import Console, Group
            from rich.live import Live
            from rich.text import Text

            self._shown = self.tables()
            whole = lambda: Group(Text(self.line()), *self._shown)  # noqa: E731
            self._rich = Live(console=Console(stderr=True), get_renderable=whole, refresh_per_second=4, transient=True)
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self._rich.stop()

    def tick(self) -> None:
        """Without a terminal, prints the line if the last one is ten seconds old."""
        if not self.live and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(self.line())

    def update(self, lines: Sequence[str]) -> None:
        """Redraws the tables on a terminal; otherwise prints these lines."""
        if self.live:
            self._shown = self.tables()
        for line in () if self.live else lines:
            say(line)


class Interrupts:
    """Defers SIGINT and SIGTERM until `check`, so that each step of the work is done completely or not at all.

    A second signal takes effect at once. A signal that is ignored (SIGINT in a script's background job) stays ignored.
    """

    def __enter__(self) -> Self:
        self._asked = False
        heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has arrived; call it between two steps."""
        if self._asked:
            raise KeyboardInterrupt


def duration(seconds: float) -> str:
    """A duration as text: `1:02:03`, `2:03` or `4.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def data_only() -> Iterator[None]:
    """In this context, only `stdout` writes to standard output. What libraries and users' files print goes to stderr."""
    DATA.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        DATA.pop()


def data_stream() -> TextIO:
    """Standard output, also in the context `data_only`."""
    return DATA[-1] if DATA else sys.stdout


@contextmanager
def stdout() -> Iterator[TextIO]:
    """A context manager that yields standard output, for data, and flushes it at the end.

    Raises:
        OutputError: stdout cannot be written, for example because the disk behind `>` is full.
    """
    out = data_stream()
    yield out
    out.flush()


def show_table(table: Table) -> None:
    """Prints a table on stdout, as wide as the terminal, or 140 characters wide if stdout is not a terminal."""
    from rich.console import Console

    with stdout() as out:
        Console(file=out, width=None if out.isatty() else 140).print(table)


class TimeLeft:
    """Estimates the time left, from an estimate of the total time and the pace so far.

    Attributes:
        total: the estimated time of the whole work on one process, in seconds.
        processes: number of processes that share the work.
    """

    TRUSTED = 0.05
    """The pace is computed as if the run had begun with extra work: this fraction of `total`, done in exactly its
    estimated time. The first measurements then do not dominate."""

    def __init__(self, total: float, processes: int = 1) -> None:
        self.total, self.processes, self.started = total, processes, time.monotonic()

    def text(self, done: float) -> str:
        """The time left as text, `, 1:30 left`; empty once all work is done.

        Args:
            done: the part of `total` that was estimated for the work finished so far, in seconds.
        """
        known = self.TRUSTED * self.total
        if done >= self.total:
            return ""
        pace = (time.monotonic() - self.started + known / self.processes) / (done + known)
        return f", {duration((self.total - done) * pace)} left"


def grid_table(
    grid: Sequence[Sequence[str]], title: str, notes: Sequence[str] = (), dim: Collection[str] = ()
) -> Table:
    """A table from rows of text, the first of which is the header. All columns but the first are right-aligned.

    Args:
        notes: lines printed below the table.
        dim: rows whose first text is among these are dimmed.
    """
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join(notes)) if notes else None
    table = Table(title=Text(title), title_justify="left", caption=caption, caption_justify="left")
    for number, name in enumerate(grid[0]):
        table.add_column(name, justify="right" if number else "left")
    for line in grid[1:]:
        style = "dim" if line[0] in dim else ""
        table.add_row(*(Text(text, style="red" if text.startswith("failed") else style) for text in line))
    return table


def show_json(value: Any) -> None:
    """Prints a value made of plain data and structs as JSON on stdout."""
    from gddim_cli.runtime.json_files import json_bytes

    with stdout() as out:
        out.write(json_bytes(value).decode())
