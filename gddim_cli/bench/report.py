"""Writes the report of a benchmark: `results.json`, `table.md`, `table.csv`, `table.tex`, plots, `samples.png`, `report.html`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gddim_cli import __version__
from gddim_cli.bench.page import section
from gddim_cli.bench.results import RESULTS, BenchPlan, Folder, Result
from gddim_cli.bench.tables import SOLVER_ERROR, Table, tables
from gddim_cli.pages.page import Page
from gddim_cli.pages.text import Block, csv_text, markdown, tex
from gddim_cli.runtime.json_files import json_bytes, read_json
from gddim_cli.runtime.text import counted

PAGE = "report.html"
CELL = ["table", "metric", "reference", "protocol", "images", "quantize", "sampler"]
STATISTICS = ["mean", "std", "standard_error", "solver_error", "published", "difference", "failed"]
VALUES = ["asked", "lambda", "nfe", "seeds", *STATISTICS]
"""The columns of `table.csv`: first the settings of a cell, then its values."""


class Report(msgspec.Struct):
    """`results.json`, equal after interruptions. `complete`: no value is missing; `files`: the plots and pictures."""

    gddim: str
    source: str
    complete: bool
    notes: list[str]
    tables: list[Table]
    results: list[Result]
    files: list[str] = []


def report(plan: BenchPlan, folder: Folder) -> Report:
    """The report of a plan, from the results in its folder."""
    pairs = folder.pairs(plan)
    results = list({result.key: result for _, result in pairs}.values())
    complete = not any(result.missing or result.failure for result in results)
    return Report(__version__, plan.source, complete, plan.notes, tables(pairs), results)


def write(plan: BenchPlan, folder: Folder, command: str) -> Report:
    """Writes all files, and removes an earlier plan's plots. `command` reproduces the files. Raises OutputError."""
    found, earlier = report(plan, folder), read_json(folder.path / RESULTS, Report)
    shown = blocks(found.tables)
    files = {"table.md": markdown(shown, found.notes), "table.csv": csv_text(csv_lines(found)), "table.tex": tex(shown)}
    results = {result.key: result for result in found.results}
    named = zip(stems(found.tables), found.tables, strict=True)
    sections = [section(stem, table, results, plan, folder) for stem, table in named]
    checkpoints = ", ".join(dict.fromkeys(str(result.request.checkpoint) for result in found.results))
    summary = f"gddim {found.gddim}, {counted(len(found.results), 'cell')}, {found.source}"
    attached = {name: text.encode() for name, text in files.items()}
    page = Page(f"gddim bench: {checkpoints}", summary, command, sections, found.notes, attached)
    found.files = page.files
    attached[RESULTS] = json_bytes(found)
    page.write(folder.path / PAGE, earlier.files if earlier else [])
    return found


def stems(found: Sequence[Table]) -> list[str]:
    """The names of the tables' plots, such as `fid_vs_nfe`. All but the first end in the title and, if needed, a number."""
    names: list[str] = []
    for number, table in enumerate(found, start=1):
        word = re.sub(r"[^a-z0-9]+", "-", f"-{table.title}".lower()).rstrip("-") if number > 1 else ""
        name = f"{table.evaluator.get('metric_name', 'fid')}_vs_nfe{word}"
        names.append(f"{name}-{number}" if name in names else name)
    return names


def blocks(tables: Sequence[Table]) -> list[Block]:
    """Every table, followed by its solver errors. Solver errors that an earlier block has are not repeated."""
    found: list[Block] = []
    for table in tables:
        found.append(Block(table.title, table.heading, table.grid(), table.notes()))
        if (solver := table.error_grid()) and solver not in [block.grid for block in found]:
            found.append(Block("", f"Solver error: {SOLVER_ERROR}", solver, []))
    return found


def csv_lines(found: Report) -> Iterator[list[Any]]:
    """A header, then a line for each entry of each table, with unrounded numbers."""
    yield [*CELL, *({"asked": "nfe", "nfe": "nfe_made"}.get(name, name) for name in VALUES)]
    for table in found.tables:
        own = [table.title, *(table.evaluator[name] for name in CELL[1:4]), table.images, table.quantize]
        for label, column, entry in table.places():
            numbers = {**msgspec.structs.asdict(entry), "failed": "; ".join(entry.failed)}
            numbers["lambda"] = column if table.axis == "lambda" else ""
            yield [*own, label, *(numbers[name] for name in VALUES)]
