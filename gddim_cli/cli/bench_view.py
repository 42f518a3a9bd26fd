"""What `gddim bench` shows: progress, tables, the plan, the status of a folder, and a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from rich.table import Table as RichTable

from gddim_cli.bench.compare import compare
from gddim_cli.bench.report import PAGE, blocks, report, write
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.run import Runner, costs
from gddim_cli.bench.tables import Table, tables
from gddim_cli.cli.progress import Display, TimeLeft, duration, grid_table, say, show_json, show_table
from gddim_cli.runs.request_labels import short_label
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.files import locked, refuse_strangers, writing
from gddim_cli.runtime.text import counted, figure, rounded, signed


class View(Display):
    """Progress on stderr, with the time left. On a terminal: tables that fill in; otherwise: plain lines."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(self._line, lambda: drawn(tables(runner.folder.pairs(runner.plan))))
        self.costs = costs(runner.plan, runner.resources, runner.folder, strict=False)
        self.left = TimeLeft(sum(seconds for _, seconds in self.costs.values()), world().size)
        self.done, self.ended, self.made, self.count = 0.0, 0, 0, counted(len(runner.plan.results), "cell")
        self.current: Sequence[Result] = ()
        runner.on_begin, runner.on_evaluations, runner.on_end = self.begin, self.advance, self.end

    def __enter__(self) -> Self:
        super().__enter__()
        self.update([self._line()] if self.left.total else [])
        return self

    def begin(self, group: Sequence[Result]) -> None:
        """Shows that work on these results begins."""
        self.made = self.made if self.current else 0
        self.current = group

    def advance(self, evaluations: int) -> None:
        """Counts evaluations that have been made."""
        self.made += evaluations
        self.tick()

    def end(self, group: Sequence[Result]) -> None:
        """Shows these results as done."""
        measured, self.current = bool(self.current), ()
        self.done += self.costs[group[0].features][1]
        self.ended += len(group)
        self.update([f"{described(result)} ({self._line()})" for result in group if measured])

    def _line(self) -> str:
        evaluations, seconds = self.costs[self.current[0].features] if self.current else (0, 0.0)
        share = min(1.0, self.made / max(evaluations, 1))
        now = f", {described(self.current[0])}: {100 * share:.0f} %" if self.current else ""
        return f"{self.ended} of {self.count}{now}{self.left.text(self.done + share * seconds)}"


def drawn(found: Sequence[Table]) -> list[RichTable]:
    """The tables as rich draws them, each followed by a table of its solver errors."""
    titled = [(": ".join(filter(None, (of.title, of.heading))), of) for of in blocks(found)]
    return [grid_table(of.grid, title, of.notes, ("published", "difference")) for title, of in titled]


def described(result: Result) -> str:
    """A cell in one line, with its result or its failure."""
    request = result.request
    cell = f"{short_label(request, [request], 'nfe')}, NFE {request.nfe}, seed {request.seed}"
    if result.missing:
        return f"{cell}: failed: {result.failure}" if result.failure else cell
    shown = figure if result.has_metric else rounded
    number = "pictures" if result.number is None else f"{result.evaluator['metric']} {shown(result.number)}"
    made = f" at NFE {result.nfe:g}" if result.nfe != request.nfe else ""
    return f"{cell}: {number}{made}{f'; {result.failure}' if result.failure else ''}"


def execute(plan: BenchPlan, resources: Resources, path: Path, keep_images: bool, json: bool, command: str) -> bool:
    """Measures the missing cells, writes the report and prints the tables; returns whether a cell failed."""
    processes, folder = world().join(), Folder(path)
    with locked(path, "gddim bench") if processes.main else nullcontext():
        if processes.main:
            refuse_strangers(path, "cells", "benchmark")
            with writing(path):
                (path / "cells").mkdir(exist_ok=True)
        runner = Runner(plan, resources, folder, keep_images)
        with View(runner):
            results = runner.run()
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
    """Prints `value` as JSON on stdout if `json` is true, otherwise the tables."""
    if json:
        show_json(value)
    for table in () if json else drawn(found):
        show_table(table)


def show_plan(plan: BenchPlan, resources: Resources, path: Path, json: bool) -> None:
    """`--print-plan`: prints the tables, the number of cells done, and an estimate of the time for the rest."""
    folder = Folder(path)
    cost = costs(plan, resources, folder)
    evaluations, seconds = (sum(values) for values in zip(*cost.values(), strict=True))
    done = [result.key for result in plan.results if not cost[result.features][0]]
    found = {"plan": plan, "done": done, "evaluations": evaluations, "seconds": seconds}
    show(found, tables(folder.pairs(plan)), json)
    count, before = counted(len(plan.results), "cell"), f" ({len(done)} done)" if done else ""
    images, per = sum(group[0].num for group in plan.groups()), "evaluations to make (summed over images)"
    say(f"{count}{before}, {images} images, {evaluations} {per}: about {duration(seconds)} on {resources.device}")


def show_status(path: Path, json: bool) -> None:
    """`--status FOLDER`: prints the tables, and how many cells are done, missing or failed."""
    folder = Folder(path)
    plan = folder.plan()
    found = report(plan, folder)
    failed = {result.key: result.failure for result in found.results if result.failure}
    done = [result.key for result in found.results if not result.missing and result.key not in failed]
    rest = [result for result in found.results if result.key not in {*done, *failed}]
    missing = {one.key: {"images": folder.rows(one.features).done(one.num), "of": one.num} for one in rest}
    counts = {"source": plan.source, "cells": len(found.results)}
    show({**counts, "done": done, "missing": missing, "failed": failed}, found.tables, json)
    count = counted(len(found.results), "cell")
    say(f"{path}: {len(done)} of {count} done, {len(missing)} missing, {len(failed)} failed")
    for result in rest:
        if made := missing[result.key]["images"]:
            say(f"{described(result)}: {made} of {result.num} images")


def show_comparison(first: Path, second: Path, json: bool) -> None:
    """`compare A B`: prints a table with a line for each cell, then how many cells are in both runs or in only one."""
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
