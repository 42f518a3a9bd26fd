"""`gddim bench` at work: a table whose cells fill in, or lines, and the tables at the end."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from shutil import get_terminal_size
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gddim_cli.bench.listener import Listener
from gddim_cli.cli.bench_tables import grid_table, sheet_table
from gddim_cli.cli.progress import SECONDS_BETWEEN_LINES, duration, say, show_table
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from gddim_cli.bench.folder import Asked, Folder, Result
    from gddim_cli.bench.jobs import Job, Program
    from gddim_cli.bench.report import Results
    from gddim_cli.bench.sheets import Sheet
    from gddim_cli.bench.tools import Bench


class View(Listener):
    """The work on stderr: on a terminal a table whose cells fill in, with the time left; elsewhere a line a cell."""

    def __init__(self, program: Program, asked: Asked, folder: Folder) -> None:
        self.asked, self.folder = asked, folder
        self.total = evaluations(program, folder)
        self.count, self.ended = len(program.jobs), 0
        self.made = self.skipped = 0.0
        self.current: Job | None = None
        self.inside = 0.0
        self.live: Live | None = None

    def __enter__(self) -> Self:
        self.began = self.told = time.monotonic()
        if sys.stderr.isatty() and world().main:
            from rich.console import Console
            from rich.live import Live

            self.sheets = self._sheets()
            self.live = Live(
                console=Console(stderr=True), get_renderable=self._picture, refresh_per_second=4, transient=True
            )
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def begin(self, job: Job) -> None:
        self.current, self.inside = job, 0.0

    def advance(self, evaluations: float) -> None:
        self.made += evaluations
        self.inside += evaluations
        if not self.live and time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            say(self._line())

    def skip(self, evaluations: float) -> None:
        self.skipped += evaluations
        self.inside += evaluations

    def end(self, job: Job, result: Result) -> None:
        self.ended += 1
        if self.live:
            self.sheets = self._sheets()
        elif self.current is job or result.failed:
            say(f"{told(result)} ({self._line()})")
        self.current = None

    def _line(self) -> str:
        spent = time.monotonic() - self.began
        left = max(0.0, self.total - self.made - self.skipped)
        after = f", {duration(left * spent / self.made)} left" if self.made and left else ""
        return f"{self.ended} of {self.count} cells{after}"

    def _sheets(self) -> list[Sheet]:
        from gddim_cli.bench.sheets import collect, sheets

        return sheets(collect(self.asked, self.folder))

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        job = self.current
        percent = min(99, round(100 * self.inside / (job.nfe * job.num))) if job else 0
        current = (job.key, f"{percent} %") if job else None
        return Group(Text(self._line()), *(sheet_table(sheet, current) for sheet in self._fitting()))

    def _fitting(self) -> list[Sheet]:
        """All tables, or, where the terminal is too low for them, those of the cell at work."""
        if sum(len(sheet.rows) + 9 for sheet in self.sheets) < get_terminal_size().lines or self.current is None:
            return self.sheets
        key = self.current.key
        return [sheet for sheet in self.sheets if any(key in keys for row in sheet.rows for keys in row.keys)]


def evaluations(program: Program, folder: Folder) -> int:
    """All that a program makes for an image, what is there already and what an adaptive sampler will make about."""
    from gddim_cli.bench import solutions

    exact = program.solver_error
    solved = [job for job in program.jobs if job.deterministic] if exact else []
    cells = sum(job.nfe * job.num for job in program.jobs) + sum(job.nfe * exact for job in solved)
    return cells + solutions.cost(solved, folder, exact)


def told(result: Result) -> str:
    """A finished cell in a line."""
    from gddim_cli.bench.figures import figure
    from gddim_cli.bench.labels import method

    cell = f"{method(result.settings, 'NFE')}, NFE {result.settings['nfe']}, seed {result.settings['seed']}"
    if result.failed:
        return f"{cell}: failed: {result.failed}"
    spent = f" at NFE {result.nfe:g}" if result.nfe not in (None, result.settings["nfe"]) else ""
    return f"{cell}: {result.judge['metric']} {figure(result.distance or 0.0)}{spent}"


def execute(program: Program, tools: Bench, folder: Folder, keep_images: bool, show: bool) -> bool:
    """Measures what is missing, writes the reports and shows the tables; returns whether a cell failed.

    Raises:
        OutputError: the folder cannot be written, or another program works there.
    """
    from gddim_cli.bench import report
    from gddim_cli.bench.jobs import describe
    from gddim_cli.bench.runner import Runner

    for note in program.notes:
        say(f"left out: {note}")
    asked = describe(program)
    team = world().join()
    with folder.locked() if team.main else nullcontext():
        with View(program, asked, folder) as view:
            results = Runner(program, tools, folder, view, keep_images).run()
        if not team.main:
            return False
        found = report.write(asked, folder)
    if show:
        show_results(found)
    failed = [result for result in results if result.failed]
    say(f"{len(results)} cells in {folder.path} (see {folder.path / 'table.md'}, {folder.path / 'fid_vs_nfe.png'})")
    if failed:
        say(f"gddim: {len(failed)} of {len(results)} cells failed; the same command tries them again")
    return bool(failed)


def show_results(found: Results) -> None:
    """The tables on stdout, distances and solver errors, with their notes."""
    from gddim_cli.bench import figures

    for sheet in found.tables:
        show_table(sheet_table(sheet, None))
        solver = figures.errors(sheet)
        if solver:
            show_table(grid_table(solver, "solver error (RMS to the converged solution, images in [-1, 1])"))
