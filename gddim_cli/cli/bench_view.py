"""What `gddim bench` shows: progress, tables, the plan, the status of a folder, two runs beside each other."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from shutil import get_terminal_size
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from gddim_cli.bench.compare import compare
from gddim_cli.bench.estimate import costs
from gddim_cli.bench.report import blocks, report, write
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.run import BenchCallback, Runner
from gddim_cli.bench.tables import Table, tables
from gddim_cli.cli import progress
from gddim_cli.cli.progress import SECONDS_BETWEEN_LINES, duration, grid_table, say, show_json, show_table
from gddim_cli.runs.request_labels import short_label
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.files import locked
from gddim_cli.runtime.text import counted, figure, signed

TRUSTED = 0.05
"""Part of the estimate that the measured pace is averaged with."""


class View(BenchCallback):
    """Progress on stderr: on a terminal tables that fill in, elsewhere lines; with the time left.

    That is the plan's estimate, corrected by how long the part that is done has taken.
    """

    def __init__(self, plan: BenchPlan, resources: Resources, folder: Folder) -> None:
        self.plan, self.folder, self.costs = plan, folder, costs(plan, resources, folder, strict=False)
        self.total = sum(cost.seconds for cost in self.costs.values())
        self.done, self.ended, self.made = 0.0, 0, 0
        self.current: Sequence[Result] = ()
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
        measured, self.current = bool(self.current), ()
        self.done += self.costs[group[0].features].seconds
        self.ended += len(group)
        if self.live:
            self.tables = tables(self.folder.pairs(self.plan))
        for result in group if not self.live and (measured or group[0].failed) else ():
            say(f"{described(result)} ({self._line()})")

    def _line(self) -> str:
        evaluations, seconds = self.costs[self.current[0].features] if self.current else (0, 0.0)
        share = min(1.0, self.made / max(evaluations, 1))
        done, known = self.done + share * seconds, TRUSTED * self.total
        pace = (time.monotonic() - self.began + known / world().size) / (done + known) if self.total else 0.0
        parts = [f"{self.ended} of {counted(len(self.plan.results), 'cell')}"]
        parts += [f"{described(self.current[0])} {100 * share:.0f} %"] if self.current else []
        left = (self.total - done) * pace
        return ", ".join([*parts, f"{duration(left)} left"] if left > 0 else parts)

    def _picture(self) -> Group:
        """All tables, or, where the terminal is too low for them, those of the current cells."""
        keys, shown = {result.key for result in self.current}, self.tables
        if keys and sum(len(table.rows) + 9 for table in shown) >= get_terminal_size().lines:
            shown = [table for table in shown if any(keys & {*entry.keys} for entry in table.entries)]
        return Group(Text(self._line()), *drawn(shown))


def drawn(found: Sequence[Table]) -> list[RichTable]:
    """Tables, each with its solver errors below it."""
    titled = [
        (f"{title}: {heading}" if title else heading, grid, notes) for title, heading, grid, notes in blocks(found)
    ]
    return [grid_table(grid, title, notes, ("published", "difference")) for title, grid, notes in titled]


def described(result: Result) -> str:
    """A cell in one line, and what came of it."""
    request = result.request
    cell = f"{short_label(request, [request], 'nfe')}, NFE {request.nfe}, seed {request.seed}"
    if result.value is None:
        return f"{cell}: failed: {result.failed}" if result.failed else cell
    made = f" at NFE {result.nfe:g}" if result.nfe != request.nfe else ""
    failure = f"; {result.failure}" if result.failure else ""
    return f"{cell}: {result.evaluator['metric']} {figure(result.value)}{made}{failure}"


def execute(plan: BenchPlan, resources: Resources, path: Path, keep_images: bool, json: bool) -> bool:
    """Measures what is missing, writes the reports and shows them; returns whether a cell failed.

    Raises:
        OutputError: the folder cannot be written, or another program works there.
    """
    for note in plan.notes:
        say(f"note: {note}")
    processes, folder = world().join(), Folder(path)
    with locked(path, "gddim bench") if processes.main else nullcontext():
        with View(plan, resources, folder) as view:
            results = Runner(plan, resources, folder, view, keep_images).run()
        if not processes.main:
            return False
        found = write(plan, folder)
    if json:
        show_json(found)
    for table in () if json else drawn(found.tables):
        show_table(table)
    failed = sum(bool(result.failure) for result in results)
    say(f"{counted(len(results), 'cell')} in {path} (see {path / 'table.md'}, {path / 'fid_vs_nfe.png'})")
    if failed:
        say(f"gddim: {failed} of {counted(len(results), 'cell')} failed; rerun the same command to try again")
    return bool(failed)


def show_plan(plan: BenchPlan, resources: Resources, path: Path, json: bool) -> None:
    """`--print-plan`: the tables, what is done of them, and the time for the rest, measured on two batches."""
    folder = Folder(path)
    cost = costs(plan, resources, folder)
    evaluations, seconds = (sum(values) for values in zip(*cost.values(), strict=True))
    done = [result.key for result in plan.results if not cost[result.features].evaluations]
    if json:
        show_json({"plan": plan, "done": done, "evaluations": evaluations, "seconds": seconds})
        return
    for note in plan.notes:
        say(f"note: {note}")

    for table in drawn(tables(folder.pairs(plan))):
        show_table(table)
    count, before = counted(len(plan.results), "cell"), f" ({len(done)} done)" if done else ""
    what = f"{sum(group[0].num for group in plan.groups())} images, {evaluations} evaluations to make"
    say(
        f"{count}{before}, {what}, with those for solver errors, counted per image: about {duration(seconds)} on "
        f"{resources.device}, by two batches of {resources.batch_size}"
    )


def show_status(path: Path, json: bool) -> None:
    """`--status FOLDER`: what is done, what is missing, what failed."""
    folder = Folder(path)
    plan = folder.plan()
    found = report(plan, folder)
    failed = {result.key: result.failure for result in found.results if result.failure}
    done = [result.key for result in found.results if result.value is not None and result.key not in failed]
    rest = [result for result in found.results if result.key not in {*done, *failed}]
    missing = {result.key: {"images": folder.rows_done(result.features), "of": result.num} for result in rest}
    if json:
        count = len(found.results)
        show_json({"source": plan.source, "cells": count, "done": done, "missing": missing, "failed": failed})
        return
    for table in drawn(found.tables):
        show_table(table)
    say(
        f"{path}: {len(done)} of {counted(len(found.results), 'cell')} done, {len(missing)} missing, {len(failed)} failed"
    )
    for result in rest:
        if made := missing[result.key]["images"]:
            request = result.request
            say(f"{request.sampler}, NFE {request.nfe}, seed {request.seed}: {made} of {result.num} images")


def show_comparison(first: Path, second: Path, json: bool) -> None:
    """`compare A B`: a line for each cell, then how many only one run has."""
    pairs = compare(first, second)
    if json:
        show_json(pairs)
        return
    grid = [["sampler", "NFE", "seed", "images", "metric", "A", "B", "B - A", "B / A - 1"]]
    for pair in pairs:
        both = [
            figure(value) if value is not None else "no value" if pair[f"in_{run}"] else "absent"
            for run, value in (("a", pair["a"]), ("b", pair["b"]))
        ]
        change = "" if pair["ratio"] is None else f"{100 * pair['ratio']:+.2f} %"
        own = [str(pair[name]) for name in ("sampler", "nfe", "seed", "images", "metric")]
        grid.append([*own, *both, signed(pair["difference"], pair["a"]), change])
    show_table(grid_table(grid, f"A: {first}, B: {second}"))
    there = [(pair["in_a"], pair["in_b"]) for pair in pairs]
    only = [there.count(of) for of in ((True, False), (False, True))]
    say(f"{counted(there.count((True, True)), 'cell')} in both, {only[0]} only in {first}, {only[1]} only in {second}")
