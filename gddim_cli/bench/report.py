"""What a benchmark leaves: `results.json`, `table.md`, `table.csv`, `table.tex`, and the plots."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gddim_cli import __version__
from gddim_cli.bench import figures, plot
from gddim_cli.bench.folder import RESULTS, Asked, Folder
from gddim_cli.bench.sheets import Sheet, Shown, collect, sheets
from gddim_cli.runtime.files import replacing, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = re.compile(r"(fid|error)_vs_nfe(-[a-z0-9-]+)?\.(png|svg)")
"""Plots as this command names them."""
SOLVER_ERROR = "RMS of x - x* over pixels and images, x* the converged solution from the same noise, images in [-1, 1]"


class Results(msgspec.Struct, kw_only=True):
    """What `results.json` holds: nothing in it depends on how often the run was cut.

    Attributes:
        complete: whether every cell has its number, and no solver error has failed.
        tables: the cells as tables, whose numbers `table.md`, `.csv` and `.tex` print.
        cells: each with all that its number depends on.
    """

    gddim: str
    source: str
    complete: bool
    notes: list[str]
    spread: str
    solver_error: str
    tables: list[Sheet]
    cells: list[Shown]


def results(asked: Asked, folder: Folder) -> Results:
    """A plan with what is kept of its cells."""
    cells = collect(asked, folder)
    return Results(
        gddim=__version__,
        source=asked.source,
        complete=all(cell.result.distance is not None and not cell.solver_failed for cell in cells),
        notes=asked.notes,
        spread="sample standard deviation over seeds",
        solver_error=SOLVER_ERROR,
        tables=sheets(cells),
        cells=cells,
    )


def write(asked: Asked, folder: Folder) -> Results:
    """Writes all files; plots that an earlier plan left in the folder go.

    Raises:
        OutputError: one cannot be written.
    """
    found = results(asked, folder)
    folder.write(RESULTS, found)
    texts = {"table.md": markdown(found), "table.csv": table_csv(found), "table.tex": tex(found)}
    for name, text in texts.items():
        with replacing(folder.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    plots: dict[str, Callable[[], Figure]] = {}
    for name, sheet in zip(slugs(found.tables), found.tables, strict=True):
        plots[f"fid_vs_nfe{name}"] = partial(plot.distances, sheet)
        if any(entry and entry.solver_error is not None for row in sheet.rows for entry in row.entries):
            plots[f"error_vs_nfe{name}"] = partial(plot.errors, sheet)
    with writing(folder.path):
        for old in folder.path.iterdir():
            if PLOT.fullmatch(old.name) and old.stem not in plots:
                old.unlink()
    for name, draw in plots.items():
        plot.save(draw(), folder.path / name)
    return found


def slugs(tables: Sequence[Sheet]) -> list[str]:
    """What tells the plots of several tables apart: nothing for the first, `-title` or `-2` for others."""
    names = [""]
    for number, sheet in enumerate(tables[1:], start=2):
        word = re.sub(r"[^a-z0-9]+", "-", sheet.title.lower()).strip("-")
        name = f"-{word}" if word else f"-{number}"
        names.append(name if name not in names else f"{name}-{number}")
    return names[: len(tables)]


def markdown(found: Results) -> str:
    """The tables in Markdown, distances and, where they were measured, solver errors."""
    parts = []
    for sheet in found.tables:
        parts.append(f"### {sheet.title}\n" if sheet.title else "")
        parts.append(f"{sheet.heading}.\n")
        parts.append(_markdown(figures.distances(sheet)))
        parts += [f"{note}\n" for note in figures.notes(sheet)]
        solver = figures.errors(sheet)
        if solver:
            parts += [f"Solver error: {SOLVER_ERROR}.\n", _markdown(solver)]
    parts += [f"Left out: {note}\n" for note in found.notes]
    return "\n".join(part for part in parts if part)


def _markdown(grid: figures.Grid) -> str:
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in grid)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


COLUMNS = (
    "table", "metric", "reference", "protocol", "images", "quantize", "sampler", "nfe", "lambda", "nfe_made", "seeds",
    "mean", "std", "solver_error", "published", "difference", "failed",
)  # fmt: skip


def table_csv(found: Results) -> str:
    """One line for each place of each table, numbers in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sheet in found.tables:
        for row in sheet.rows:
            for column, entry in zip(sheet.columns, row.entries, strict=True):
                if entry is None:
                    continue
                made = (
                    entry.nfe,
                    entry.seeds,
                    entry.mean,
                    entry.std,
                    entry.solver_error,
                    entry.published,
                    entry.difference,
                )
                place = (
                    sheet.title,
                    sheet.metric,
                    sheet.reference,
                    sheet.protocol,
                    sheet.images,
                    sheet.quantize,
                    row.label,
                )
                noise = column if sheet.axis == "lambda" else ""
                writer.writerow([*place, entry.asked, noise, *made, "; ".join(entry.failed)])
    return file.getvalue()


def tex(found: Results) -> str:
    """The tables for LaTeX, with booktabs."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for sheet in found.tables:
        caption = " ".join([*([f"{sheet.title}."] if sheet.title else []), f"{sheet.heading}.", *figures.notes(sheet)])
        parts.append(_tex(figures.distances(sheet), caption))
        solver = figures.errors(sheet)
        if solver:
            parts.append(_tex(solver, f"Solver error: {SOLVER_ERROR}."))
    return "\n".join(parts)


def _tex(grid: figures.Grid, caption: str) -> str:
    head, *body = ([escape(cell) for cell in row] for row in grid)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(caption)}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        f"{' & '.join(head)} \\\\",
        "\\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "λ": r"$\lambda$", "η": r"$\eta$",
    ">": "$>$", "<": "$<$", "…": r"\dots{}", "—": "---",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)
