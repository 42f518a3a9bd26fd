"""Turns tables into sheets of pictures, into charts with a line for each row, and into sections of the report page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.tables import Entry, Table
from gddim_cli.images.sheet import Entry as Pictures
from gddim_cli.images.sheet import Sheet
from gddim_cli.pages.chart import Chart, Mark, Point, Series
from gddim_cli.pages.page import Cell, Section
from gddim_cli.runtime.text import printed, signed

Results = Mapping[str, Result]


def sheet_of(table: Table, results: Results, plan: BenchPlan, folder: Folder) -> Sheet | None:
    """The picture sheet of a table, with images from the same noises in every entry; None if no pictures are kept."""
    rows = {label: [picture(entry, results, plan, folder) for entry in row] for label, row in table.rows.items()}
    if all(entry.images is None for row in rows.values() for entry in row):
        return None
    noises = f"All entries start from the same noises (seed {plan.cells[0].request.seed})."
    return Sheet(table.header[1:], rows, f"{noises} Below each: {table.heading}.")


def picture(entry: Entry | None, results: Results, plan: BenchPlan, folder: Folder) -> Pictures:
    """The kept images of a table's entry, with its value as the caption."""
    for result in (results[key] for key in entry.keys) if entry else ():
        if entry and (images := folder.samples(plan, result).read()) is not None:
            caption = entry.text if result.has_metric else entry.bare_text
            return Pictures(images, caption + entry.made * entry.overspent)
    return Pictures(None)


def section(stem: str, table: Table, results: Results, plan: BenchPlan, folder: Folder) -> Section:
    """The page section of a table: charts, pictures, and the full result of each cell. `stem` is the name of the plot."""
    rest, charts, pictures = stem[stem.index("_vs_nfe") :], {}, {}
    if table.has_metric:
        charts[stem] = chart(table, "mean")
    if any(entry.solver_error is not None for entry in table.entries):
        charts[f"error{rest}"] = chart(table, "solver_error")
    if sheet := sheet_of(table, results, plan, folder):
        alt = f"{sheet.caption} Rows: {', '.join(sheet.rows)}."
        pictures[f"samples{rest.removeprefix('_vs_nfe')}.png"] = sheet.png(), alt
    rows = [(label, [cell(table, entry) for entry in row]) for label, row in table.rows.items()]
    keys = [(label, key) for label, _, entry in table.places() for key in entry.keys]
    records = [{"row": label, **msgspec.to_builtins(results[key])} for label, key in keys]
    return Section(table.title, f"{table.heading}.", table.header, rows, table.notes(), charts, pictures, records)


def cell(table: Table, entry: Entry | None) -> Cell:
    """The page cell of an entry: its value, with the solver error and the published number below."""
    if entry is None:
        return Cell("")
    if not table.has_metric:
        return Cell(entry.bare_text, entry.solver_error)
    lines = [f"solver error {entry.error_text}"] if entry.error_text else []
    if entry.published is not None:
        difference = signed(entry.difference, entry.mean)
        lines.append(f"published {printed(entry.published)}{f' ({difference})' if difference else ''}")
    return Cell(entry.text, None if entry.overspent else entry.mean, lines)


def chart(table: Table, name: str) -> Chart:
    """A chart of `name` (`mean` or `solver_error`) against the NFE made or lambda, with a line for each row."""
    ylabel, heading, lines = table.measured, table.heading, []
    if name == "solver_error":
        ylabel, budget = "solver error (RMS, images in [-1, 1])", f", NFE {table.nfe}" if table.nfe else ""
        heading = f"distance to the converged solution from the same noise{budget}"
    for label, row in table.rows.items():
        places = [(column, entry) for column, entry in zip(table.columns, row, strict=True) if entry]
        points = [point(table, label, column, entry, name) for column, entry in places if getattr(entry, name)]
        numbers = [(column, entry.published) for column, entry in places if entry.published is not None]
        marks = [Mark(column, float(str(number).lstrip(">")), isinstance(number, str)) for column, number in numbers]
        lines.append(Series(label, [one for one in points if one], marks if name == "mean" else []))
    by_nfe = table.axis == "nfe"
    xlabel = "NFE, network evaluations per image" if by_nfe else "λ, the noise of the reverse process"
    return Chart(table.title, heading, xlabel, ylabel, table.columns, by_nfe, lines)


def point(table: Table, label: str, column: float, entry: Entry, name: str) -> Point | None:
    """An entry as a point of a chart; None if the entry exceeded its budget of evaluations."""
    if entry.overspent:
        return None
    at = column if table.axis == "lambda" else entry.nfe or entry.asked
    means = name == "mean"
    text = f"{label}, {'λ' if table.axis == 'lambda' else 'NFE'} {at:g}: {entry.text if means else entry.error_text}"
    return Point(at, getattr(entry, name), entry.standard_error if means else None, text)
