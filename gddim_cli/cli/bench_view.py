"""What `gddim bench` shows: progress, tables, the plan, the status of a folder, two runs beside each other."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from gddim_cli.bench.estimate import costs
from gddim_cli.bench.report import Report, report, write
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.run import BenchCallback, Runner
from gddim_cli.bench.tables import Grid, Row, Table, cells, figure, signed, tables
from gddim_cli.cli import progress
from gddim_cli.cli.progress import SECONDS_BETWEEN_LINES, duration, say, show_table, stdout
from gddim_cli.runtime.distributed import world
from gddim_cli.samplers.registry import SAMPLERS


class View(BenchCallback):
    """Progress on stderr: on a terminal tables that fill in, with the time left; elsewhere a line for each cell.

    The time left is the plan's estimate, corrected by how long the part that is done has taken.
    """

    def __init__(self, plan: BenchPlan, resources: Resources, folder: Folder) -> None:
        self.plan, self.folder = plan, folder
        self.costs = costs(plan, resources, folder, strict=False)
        self.total = sum(cost.seconds for cost in self.costs.values())
        self.done, self.ended = 0.0, 0
        self.current: Sequence[Result] = ()
        self.made = 0
        self.live: Live | None = None

    def __enter__(self) -> Self:
        self.began = self.said = time.monotonic()
        if sys.stderr.isatty() and world().main and not progress.QUIET:
            self.tables = tables(self.folder.pairs(self.plan))
            console = Console(stderr=True)
            self.live = Live(console=console, get_renderable=self._picture, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self, group: Sequence[Result]) -> None:
        self.current, self.made = group, 0

    def advance(self, evaluations: int) -> None:
        self.made += evaluations
        if not self.live and time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            say(self._line())

    def end(self, group: Sequence[Result]) -> None:
        self.done += self.costs[group[0].features].seconds
        self.ended += len(group)
        measured, self.current = bool(self.current), ()
        if self.live:
            self.tables = tables(self.folder.pairs(self.plan))
        elif measured or any(result.failure for result in group):
            for result in group:
                say(f"{described(result)} ({self._line()})")
            self.said = time.monotonic()

    def share(self) -> float:
        """How much of the current cells is done, from 0 to 1."""
        cost = self.costs[self.current[0].features] if self.current else None
        return min(1.0, self.made / cost.evaluations) if cost and cost.evaluations else 0.0

    def left(self) -> float:
        """Seconds left."""
        inside = self.costs[self.current[0].features].seconds * self.share() if self.current else 0.0
        done, trusted = self.done + inside, 0.05 * self.total / world().size
        spent = time.monotonic() - self.began
        pace = (spent + trusted) / (done + 0.05 * self.total) if self.total else 0.0
        return max(0.0, self.total - done) * pace

    def _line(self) -> str:
        left = self.left()
        return f"{self.ended} of {cells(len(self.plan.results))}" + (f", {duration(left)} left" if left else "")

    def _picture(self) -> Group:
        """All tables, or, where the terminal is too low for them, those of the current cells."""
        keys, shown = {result.key for result in self.current}, self.tables
        if sum(len(table.rows) + 9 for table in shown) >= get_terminal_size().lines and keys:
            shown = [table for table in shown if any(keys & {*entry.keys} for entry in table.entries)]
        now = f"{100 * self.share():.0f} %"
        return Group(Text(self._line()), *(rich_table(table, keys, now) for table in shown))


def rich_table(table: Table, current: set[str] = frozenset(), now: str = "") -> RichTable:  # type: ignore[assignment]
    """A table of values; `now` stands at the current cells."""
    grid = table.grid()
    for row in table.rows:
        line = next(line for line in grid if line[0] == row.label)
        for place, entry in enumerate(row.entries, start=1):
            if entry and current & {*entry.keys}:
                line[place] = f"{line[place].strip('… *')} {now}".strip()
    return grid_table(grid, titled(table), table.notes())


def titled(table: Table) -> str:
    """The heading after the title."""
    return f"{table.title}: {table.heading}" if table.title else table.heading


def grid_table(grid: Grid, title: str, notes: Sequence[str] = ()) -> RichTable:
    """A grid of texts as a table."""
    caption = Text("\n".join(notes)) if notes else None
    table = RichTable(title=Text(title), title_justify="left", caption=caption, caption_justify="left")
    for number, name in enumerate(grid[0]):
        table.add_column(name, justify="right" if number else "left")
    for line in grid[1:]:
        style = "dim" if line[0] in ("published", "difference") else ""
        table.add_row(*(Text(text, style="red" if text.startswith("failed") else style) for text in line))
    return table


def show_tables(found: Report) -> None:
    """The tables on stdout, values and solver errors, with their notes."""
    for table in found.tables:
        show_table(rich_table(table))
        if solver := table.error_grid():
            show_table(grid_table(solver, "solver error (RMS to the converged solution, images in [-1, 1])"))


def described(result: Result) -> str:
    """A finished cell in one line."""
    request, spec = result.request, SAMPLERS[result.request.sampler]
    cell = f"{spec.label(spec, request.sampler_options, None)}, NFE {request.nfe}, seed {request.seed}"
    if result.failed or result.value is None:
        return f"{cell}: failed: {result.failed}"
    made = f" at NFE {result.nfe:g}" if result.nfe not in (None, request.nfe) else ""
    failure = f"; {result.failure}" if result.failure else ""
    return f"{cell}: {result.evaluator['metric']} {figure(result.value)}{made}{failure}"


def execute(plan: BenchPlan, resources: Resources, folder: Folder, keep_images: bool, json: bool) -> bool:
    """Measures what is missing, writes the reports and shows them; returns whether a cell failed.

    Raises:
        OutputError: the folder cannot be written, or another program works there.
    """
    for note in plan.notes:
        say(f"note: {note}")
    processes = world().join()
    with folder.locked() if processes.main else nullcontext():
        with View(plan, resources, folder) as view:
            results = Runner(plan, resources, folder, view, keep_images).run()
        if not processes.main:
            return False
        found = write(plan, folder)
    if json:
        write_json(found)
    else:
        show_tables(found)
    failed = sum(bool(result.failure) for result in results)
    say(f"{cells(len(results))} in {folder.path} (see {folder.path / 'table.md'}, {folder.path / 'fid_vs_nfe.png'})")
    if failed:
        say(f"gddim: {failed} of {cells(len(results))} failed; rerun the same command to try again")
    return bool(failed)


def show_plan(plan: BenchPlan, resources: Resources, folder: Folder, json: bool) -> None:
    """`--print-plan`: every row with its network evaluations, and the time, measured on two batches."""
    cost, results = costs(plan, resources, folder), {result.key: result for result in plan.results}
    evaluations, seconds = sum(one.evaluations for one in cost.values()), sum(one.seconds for one in cost.values())
    done = [result.key for result in plan.results if cost[result.features].done]
    if json:
        write_json({"plan": plan, "done": done, "evaluations": evaluations, "seconds": seconds})
        return
    for note in plan.notes:
        say(f"note: {note}")

    def line(row: Row) -> list[str]:
        of = [[results[key] for key in entry.keys] if entry else [] for entry in row.entries]
        seeds = ", ".join(map(str, sorted({result.request.seed for place in of for result in place})))
        sums = [str(sum(result.per_image * result.num for result in place)) if place else "" for place in of]
        about = ["about " if place and place[0].planned is None else "" for place in of]
        return [row.label, seeds, *(a + s for a, s in zip(about, sums, strict=True))]

    for table in tables(folder.pairs(plan)):
        grid = [["sampler", "seeds", *table.names], *map(line, table.rows)]
        show_table(grid_table(grid, f"{titled(table)}; network evaluations, counted per image"))
    before = f" ({len(done)} done)" if done else ""
    images = sum(group[0].num for group in plan.groups())
    say(
        f"{cells(len(results))}{before}, {images} images, {evaluations} evaluations to make, with those for solver errors, "
        f"counted per image: about {duration(seconds)} on {resources.device}, by two batches of {resources.batch_size}"
    )


def show_status(path: Path, json: bool) -> None:
    """`--status FOLDER`: what is done, what is missing, what failed."""
    folder = Folder(path)
    plan = folder.plan()
    found = report(plan, folder)
    failed = {result.key: result.failure for result in found.results if result.failure}
    done = [result.key for result in found.results if result.value is not None and result.key not in failed]
    missing = {
        r.key: {"images": folder.rows_done(r.features), "of": r.num}
        for r in found.results
        if r.key not in {*done, *failed}
    }
    if json:
        write_json(
            {"source": plan.source, "cells": len(found.results), "done": done, "missing": missing, "failed": failed}
        )
        return
    for table in found.tables:
        show_table(rich_table(table))
    say(f"{path}: {len(done)} of {cells(len(found.results))} done, {len(missing)} missing, {len(failed)} failed")
    for result in found.results:
        if made := missing.get(result.key, {}).get("images"):
            request = result.request
            say(f"{request.sampler}, NFE {request.nfe}, seed {request.seed}: {made} of {result.num} images")


def show_comparison(pairs: list[dict[str, Any]], first: Path, second: Path, json: bool) -> None:
    """`compare A B`: a line for each cell, then how many only one run has."""
    if json:
        write_json(pairs)
        return
    grid = [["sampler", "NFE", "seed", "images", "metric", "A", "B", "B - A", "B / A - 1"]]
    for pair in pairs:
        of = [(pair["a"], pair["in_a"]), (pair["b"], pair["in_b"])]
        both = [figure(value) if value is not None else "no value" if there else "absent" for value, there in of]
        change = "" if pair["ratio"] is None else f"{100 * pair['ratio']:+.2f} %"
        own = [str(pair[name]) for name in ("sampler", "nfe", "seed", "images", "metric")]
        grid.append([*own, *both, signed(pair["difference"], pair["a"]), change])
    show_table(grid_table(grid, f"A: {first}, B: {second}"))
    counts = [
        sum((pair["in_a"], pair["in_b"]) == there for pair in pairs)
        for there in ((True, True), (True, False), (False, True))
    ]
    say(f"{cells(counts[0])} in both, {counts[1]} only in {first}, {counts[2]} only in {second}")


def write_json(value: Any) -> None:
    """A value as JSON on stdout."""
    with stdout() as out:
        out.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
