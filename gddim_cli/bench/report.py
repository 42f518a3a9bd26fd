"""What a benchmark writes: `results.json`, `table.md`, `table.csv`, `table.tex` and the plots."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

import msgspec

from gddim_cli import __version__
from gddim_cli.bench import plot
from gddim_cli.bench.results import RESULTS, BenchPlan, Folder, Result
from gddim_cli.bench.tables import Grid, Table, tables
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.runtime.files import replacing, writing

SOLVER_ERROR = "RMS of x - x* over pixels and images, x* the converged solution from the same noise, images in [-1, 1]"


class Report(msgspec.Struct, kw_only=True):
    """What `results.json` holds: nothing in it depends on how often the run was interrupted.

    Attributes:
        complete: whether every cell has its value and nothing has failed.
        tables: the numbers that the other files print.
        results: everything that each value depends on, in the plan's order.
    """

    gddim: str
    source: str
    complete: bool
    notes: list[str]
    spread: str
    solver_error: str
    tables: list[Table]
    results: list[Result]


def report(plan: BenchPlan, folder: Folder) -> Report:
    """A plan with what is kept of its results."""
    pairs = folder.pairs(plan)
    results = list({result.key: result for _, result in pairs}.values())
    return Report(
        gddim=__version__,
        source=plan.source,
        complete=all(result.value is not None and not result.failure for result in results),
        notes=plan.notes,
        spread="sample standard deviation over seeds",
        solver_error=SOLVER_ERROR,
        tables=tables(pairs),
        results=results,
    )


def write(plan: BenchPlan, folder: Folder) -> Report:
    """Writes all files and removes plots that an earlier plan left; raises OutputError where one cannot be written."""
    found = report(plan, folder)
    folder.write(RESULTS, found)
    for name, text in (("table.md", markdown(found)), ("table.csv", table_csv(found)), ("table.tex", tex(found))):
        with replacing(folder.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    plots = {}
    for stem, table in zip(stems(found.tables), found.tables, strict=True):
        plots[stem] = plot.values(table)
        if any(entry.solver_error is not None for entry in table.entries):
            plots["error" + stem[stem.index("_vs_nfe") :]] = plot.errors(table)
    own = re.compile(rf"({'|'.join(METRICS)}|error)_vs_nfe(-[a-z0-9-]+)?\.(png|svg)")
    with writing(folder.path):
        for old in folder.path.iterdir():
            if own.fullmatch(old.name) and old.stem not in plots:
                old.unlink()
    for stem, figure in plots.items():
        plot.save(figure, folder.path / stem)
    return found


def stems(found: Sequence[Table]) -> list[str]:
    """The names of the tables' plots: `fid_vs_nfe` for the first, with `-title` or `-2` for others of its metric."""
    names: list[str] = []
    for number, table in enumerate(found, start=1):
        word = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") if number > 1 else ""
        name = f"{table.metric_name}_vs_nfe" + (f"-{word}" if word else "")
        names.append(f"{name}-{number}" if name in names else name)
    return names


def markdown(found: Report) -> str:
    """The tables in Markdown, values and solver errors."""
    parts = []
    for table in found.tables:
        parts += [f"### {table.title}\n"] if table.title else []
        parts += [f"{table.heading}.\n", markdown_grid(table.grid()), *(f"{note}\n" for note in table.notes())]
        solver = table.error_grid()
        parts += [f"Solver error: {SOLVER_ERROR}.\n", markdown_grid(solver)] if solver else []
    return "\n".join([*parts, *(f"{note}\n" for note in found.notes)])


def markdown_grid(grid: Grid) -> str:
    """A grid in Markdown."""
    head, *body = ([text.replace("|", "\\|") for text in line] for line in grid)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---", *["---:"] * (len(head) - 1)], *body])


def table_csv(found: Report) -> str:
    """One line for each entry of each table, numbers in full."""
    places = ("title", "metric", "reference", "protocol", "images", "quantize")
    numbers = ("asked", "lambda", "nfe", "seeds", "mean", "std", "solver_error", "published", "difference", "failed")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = [*places, "sampler", *numbers]
    writer.writerow([{"title": "table", "asked": "nfe", "nfe": "nfe_made"}.get(name, name) for name in head])
    for table in found.tables:
        for row in table.rows:
            for column, entry in zip(table.columns, row.entries, strict=True):
                if entry:
                    noise = column if table.axis == "lambda" else ""
                    own = {**msgspec.structs.asdict(entry), "lambda": noise, "failed": "; ".join(entry.failed)}
                    writer.writerow([*(getattr(table, p) for p in places), row.label, *(own[n] for n in numbers)])
    return file.getvalue()


def tex(found: Report) -> str:
    """The tables for LaTeX, with booktabs."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for table in found.tables:
        title = [f"{table.title}."] if table.title else []
        parts.append(tex_grid(table.grid(), " ".join([*title, f"{table.heading}.", *table.notes()])))
        solver = table.error_grid()
        parts += [tex_grid(solver, f"Solver error: {SOLVER_ERROR}.")] if solver else []
    return "\n".join(parts)


def tex_grid(grid: Grid, caption: str) -> str:
    """A grid as a LaTeX table."""
    head, *body = (" & ".join(map(escape, line)) + " \\\\\n" for line in grid)
    columns = f"l{'r' * (len(grid[0]) - 1)}"
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{escape(caption)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{head}\\midrule\n{''.join(body)}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "λ": r"$\lambda$", "η": r"$\eta$",
    ">": "$>$", "<": "$<$", "…": r"\dots{}", "—": "---",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)
