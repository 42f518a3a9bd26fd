"""What a benchmark writes: `results.json`, `table.md`, `table.csv`, `table.tex`, plots, `samples.png`, `report.html`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

import msgspec

from gddim_cli import __version__
from gddim_cli.bench.page import section
from gddim_cli.bench.results import RESULTS, BenchPlan, Folder, Result
from gddim_cli.bench.tables import SOLVER_ERROR, Table, tables
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.pages.page import Page
from gddim_cli.runtime.grids import Grid, latex_grid, markdown_grid
from gddim_cli.runtime.json_files import write_json
from gddim_cli.runtime.text import counted

PAGE = "report.html"


class Report(msgspec.Struct):
    """What `results.json` holds, the same however often the run was interrupted; `complete` if all values are there."""

    gddim: str
    source: str
    complete: bool
    notes: list[str]
    tables: list[Table]
    results: list[Result]


def report(plan: BenchPlan, folder: Folder) -> Report:
    """A plan with what is kept of its results."""
    pairs = folder.pairs(plan)
    results = list({result.key: result for _, result in pairs}.values())
    complete = not any(result.missing or result.failure for result in results)
    return Report(__version__, plan.source, complete, plan.notes, tables(pairs), results)


def write(plan: BenchPlan, folder: Folder, command: str) -> Report:
    """Writes all files and removes plots that an earlier plan left; raises OutputError where one cannot be written.

    `command` is what makes the same folder again.
    """
    found = report(plan, folder)
    write_json(folder.path / RESULTS, found)
    files = {"table.md": markdown(found), "table.csv": table_csv(found), "table.tex": tex(found)}
    results = {result.key: result for result in found.results}
    named = zip(stems(found.tables), found.tables, strict=True)
    sections = [section(stem, table, results, plan, folder) for stem, table in named]
    checkpoints = ", ".join(dict.fromkeys(str(result.request.checkpoint) for result in found.results))
    summary = f"gddim {found.gddim}, {counted(len(found.results), 'cell')}, {found.source}"
    attached = {RESULTS: (folder.path / RESULTS).read_bytes(), **{name: text.encode() for name, text in files.items()}}
    page = Page(f"gddim bench: {checkpoints}", summary, command, sections, found.notes, attached)
    page.write(
        folder.path / PAGE, re.compile(rf"(({'|'.join(METRICS)}|error)_vs_nfe|samples)(-[a-z0-9-]+)?\.(png|svg)")
    )
    return found


def stems(found: Sequence[Table]) -> list[str]:
    """The names of the tables' plots: `fid_vs_nfe` for the first, with `-title` or `-2` for others of its metric."""
    names: list[str] = []
    for number, table in enumerate(found, start=1):
        word = re.sub(r"[^a-z0-9]+", "-", f"-{table.title}".lower()).rstrip("-") if number > 1 else ""
        name = f"{table.evaluator.get('metric_name', 'fid')}_vs_nfe{word}"
        names.append(f"{name}-{number}" if name in names else name)
    return names


def blocks(tables: Sequence[Table]) -> Iterator[tuple[str, str, Grid, list[str]]]:
    """Every table and, below it, its solver errors, which other metrics share: a title, a heading, the texts and notes."""
    shown: list[Grid] = []
    for table in tables:
        yield table.title, table.heading, table.grid(), table.notes()
        if (solver := table.error_grid()) and solver not in shown:
            shown.append(solver)
            yield "", f"Solver error: {SOLVER_ERROR}", solver, []


def markdown(found: Report) -> str:
    """The tables in Markdown."""
    parts = []
    for title, heading, grid, notes in blocks(found.tables):
        parts += [*([f"### {title}\n"] if title else []), f"{heading}.\n", markdown_grid(grid)]
        parts += [f"{note}\n" for note in notes]
    return "\n".join([*parts, *(f"{note}\n" for note in found.notes)])


def table_csv(found: Report) -> str:
    """One line for each entry of each table, numbers in full."""
    names = [
        "asked",
        "lambda",
        "nfe",
        "seeds",
        "mean",
        "std",
        "standard_error",
        "solver_error",
        "published",
        "difference",
    ]
    names, shown = [*names, "failed"], {"asked": "nfe", "nfe": "nfe_made"}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ("table", "metric", "reference", "protocol", "images", "quantize", "sampler")
    writer.writerow([*head, *(shown.get(name, name) for name in names)])
    for table in found.tables:
        own = [table.title, *(table.evaluator[name] for name in head[1:4]), table.images, table.quantize]
        for label, row in table.rows.items():
            for column, entry in zip(table.columns, row, strict=True):
                if entry:
                    numbers = {**msgspec.structs.asdict(entry), "failed": "; ".join(entry.failed)}
                    numbers["lambda"] = column if table.axis == "lambda" else ""
                    writer.writerow([*own, label, *(numbers[name] for name in names)])
    return file.getvalue()


def tex(found: Report) -> str:
    """The tables for LaTeX."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for title, heading, grid, notes in blocks(found.tables):
        parts.append(latex_grid(grid, " ".join([*([f"{title}."] if title else []), f"{heading}.", *notes])))
    return "\n".join(parts)
