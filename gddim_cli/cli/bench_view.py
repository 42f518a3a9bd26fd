"""What `gddim bench` shows: progress, tables, the plan, the status of a folder, two runs beside each other."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from gddim_cli.bench.compare import compare
from gddim_cli.bench.report import PAGE, blocks, report, write
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.run import BenchCallback, Runner, costs
from gddim_cli.bench.tables import Table, tables
from gddim_cli.cli import progress
from gddim_cli.cli.progress import SECONDS_BETWEEN_LINES, TimeLeft, duration, grid_table, say, show_json, show_table
from gddim_cli.runs.request_labels import short_label
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.files import locked
from gddim_cli.runtime.text import counted, figure, rounded, signed


class View(BenchCallback):
    """Progress on stderr: on a terminal tables that fill in, elsewhere lines; with the time left."""

    def __init__(self, plan: BenchPlan, resources: Resources, folder: Folder) -> None:
        self.plan, self.folder, self.costs = plan, folder, costs(plan, resources, folder, strict=False)
        self.left = TimeLeft(sum(seconds for _, seconds in self.costs.values()), world().size)
        self.done, self.ended, self.made, self.said = 0.0, 0, 0, time.monotonic()
        self.current: Sequence[Result] = ()
        self.live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and world().main and not progress.QUIET:
            self.tables = drawn(tables(self.folder.pairs(self.plan)))
            picture, console = lambda: Group(Text(self._line()), *self.tables), Console(stderr=True)
            self.live = Live(console=console, get_renderable=picture, refresh_per_second=4, transient=True)
            self.live.start()
        elif self.left.total:
            say(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self, group: Sequence[Result]) -> None:
        self.made = self.made if self.current else 0
        self.current = group

    def advance(self, evaluations: int) -> None:
        self.made += evaluations
        if not self.live and time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            say(self._line())

    def end(self, group: Sequence[Result]) -> None:
        measured, self.current = bool(self.current), ()
        self.done += self.costs[group[0].features][1]
        self.ended += len(group)
        if self.live:
            self.tables = drawn(tables(self.folder.pairs(self.plan)))
        for result in group if measured and not self.live else ():
            say(f"{described(result)} ({self._line()})")

    def _line(self) -> str:
        evaluations, seconds = self.costs[self.current[0].features] if self.current else (0, 0.0)
        share = min(1.0, self.made / max(evaluations, 1))
        now = f", {described(self.current[0])}: {100 * share:.0f} %" if self.current else ""
        count = f"{self.ended} of {counted(len(self.plan.results), 'cell')}"
        return f"{count}{now}{self.left.text(self.done + share * seconds)}"


def drawn(found: Sequence[Table]) -> list[RichTable]:
    """Tables, each with its solver errors below it."""
    return [
        grid_table(grid, f"{title}: {heading}" if title else heading, notes, ("published", "difference"))
        for title, heading, grid, notes in blocks(found)
    ]


def described(result: Result) -> str:
    """A cell in one line, and what came of it."""
    request = result.request
    cell = f"{short_label(request, [request], 'nfe')}, NFE {request.nfe}, seed {request.seed}"
    if result.missing:
        return f"{cell}: failed: {result.failure}" if result.failure else cell
    shown = figure if result.has_metric else rounded
    number = "pictures" if result.number is None else f"{result.evaluator['metric']} {shown(result.number)}"
    made = f" at NFE {result.nfe:g}" if result.nfe != request.nfe else ""
    return f"{cell}: {number}{made}{f'; {result.failure}' if result.failure else ''}"


def execute(plan: BenchPlan, resources: Resources, path: Path, keep_images: bool, json: bool, command: str) -> bool:
    """Measures what is missing and reports; returns whether a cell failed. Raises OutputError where it cannot write."""
    processes, folder = world().join(), Folder(path)
    with locked(path, "gddim bench") if processes.main else nullcontext():
        with View(plan, resources, folder) as view:
            results = Runner(plan, resources, folder, view, keep_images).run()
        if not processes.main:
            return False
        found = write(plan, folder, command)
    show(found, found.tables, json)
    failed, count = sum(bool(result.failure) for result in results), counted(len(results), "cell")
    say(f"{count} in {path} (see {path / PAGE})")
    if failed:
        say(f"gddim: {failed} of {count} failed; rerun the same command to try again")
    return bool(failed)


def show(value: Any, found: Sequence[Table], json: bool) -> None:
    """A value as JSON on stdout, or tables."""
    if json:
        show_json(value)
    for table in () if json else drawn(found):
        show_table(table)


def show_plan(plan: BenchPlan, resources: Resources, path: Path, json: bool) -> None:
    """`--print-plan`: the tables, what is done of them, and the time for the rest, measured on two batches."""
    folder = Folder(path)
    cost = costs(plan, resources, folder)
    evaluations, seconds = (sum(values) for values in zip(*cost.values(), strict=True))
    done = [result.key for result in plan.results if not cost[result.features][0]]
    found = {"plan": plan, "done": done, "evaluations": evaluations, "seconds": seconds}
    show(found, tables(folder.pairs(plan)), json)
    count, before = counted(len(plan.results), "cell"), f" ({len(done)} done)" if done else ""
    images, per = sum(group[0].num for group in plan.groups()), "evaluations to make, counted per image"
    say(f"{count}{before}, {images} images, {evaluations} {per}: about {duration(seconds)} on {resources.device}")


def show_status(path: Path, json: bool) -> None:
    """`--status FOLDER`: what is done, what is missing, what failed."""
    folder = Folder(path)
    plan = folder.plan()
    found = report(plan, folder)
    failed = {result.key: result.failure for result in found.results if result.failure}
    done = [result.key for result in found.results if not result.missing and result.key not in failed]
    rest = [result for result in found.results if result.key not in {*done, *failed}]
    missing = {result.key: {"images": folder.rows_done(result.features), "of": result.num} for result in rest}
    counts = {"source": plan.source, "cells": len(found.results)}
    show({**counts, "done": done, "missing": missing, "failed": failed}, found.tables, json)
    count = counted(len(found.results), "cell")
    say(f"{path}: {len(done)} of {count} done, {len(missing)} missing, {len(failed)} failed")
    for result in rest:
        if made := missing[result.key]["images"]:
            say(f"{described(result)}: {made} of {result.num} images")


def show_comparison(first: Path, second: Path, json: bool) -> None:
    """`compare A B`: a line for each cell, then how many only one run has."""
    pairs = compare(first, second)
    if json:
        show_json(pairs)
        return
    grid = [["sampler", "NFE", "seed", "images", "metric", "A", "B", "B - A", "B / A - 1"]]
    for pair in pairs:
        both = [(pair["a"], pair["in_a"]), (pair["b"], pair["in_b"])]
        values = ["absent" if not there else "no value" if value is None else figure(value) for value, there in both]
        change = "" if pair["ratio"] is None else f"{100 * pair['ratio']:+.2f} %"
        own = [str(pair[name]) for name in ("sampler", "nfe", "seed", "images", "metric")]
        grid.append([*own, *values, signed(pair["difference"], pair["a"]), change])
    show_table(grid_table(grid, f"A: {first}, B: {second}"))
    there = [(pair["in_a"], pair["in_b"]) for pair in pairs]
    shared, a, b = (there.count(of) for of in ((True, True), (True, False), (False, True)))
    say(f"{counted(shared, 'cell')} in both, {a} only in {first}, {b} only in {second}")
