"""Sheets of pictures, and the page that has the tables, charts, sheets and settings of a benchmark in one file."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gddim_cli.bench import plot
from gddim_cli.bench.results import BenchPlan, Folder, Result
from gddim_cli.bench.tables import Entry, Table
from gddim_cli.images.sheet import Entry as Pictures
from gddim_cli.images.sheet import Sheet
from gddim_cli.pages.page import Cell, Section
from gddim_cli.runtime.text import printed, signed

Results = Mapping[str, Result]


def sheet_of(table: Table, results: Results, plan: BenchPlan, folder: Folder) -> Sheet | None:
    """The sheet of a table: the same images for each row and column; None if no pictures are kept."""
    rows = {label: [picture(entry, results, plan, folder) for entry in row] for label, row in table.rows.items()}
    if all(entry.images is None for row in rows.values() for entry in row):
        return None
    seed = plan.cells[0].request.seed
    return Sheet(table.header[1:], rows, f"The same noises throughout, of seed {seed}. Below: {table.heading}.")


def picture(entry: Entry | None, results: Results, plan: BenchPlan, folder: Folder) -> Pictures:
    """The kept images of an entry, with its value below."""
    for result in (results[key] for key in entry.keys) if entry else ():
        if entry and (images := folder.samples(plan, result).read()) is not None:
            caption = entry.text if result.has_metric else entry.bare_text
            return Pictures(images, caption + entry.made * entry.overspent)
    return Pictures(None)


def section(stem: str, table: Table, results: Results, plan: BenchPlan, folder: Folder) -> Section:
    """A table with its charts and pictures, and what each of its cells depends on; `stem` names its plot."""
    rest, charts, pictures = stem[stem.index("_vs_nfe") :], {}, {}
    if table.has_metric:
        charts[stem] = plot.values(table)
    if any(entry.solver_error is not None for entry in table.entries):
        charts[f"error{rest}"] = plot.errors(table)
    if sheet := sheet_of(table, results, plan, folder):
        alt = f"{sheet.caption} Rows: {', '.join(sheet.rows)}."
        pictures[f"samples{rest.removeprefix('_vs_nfe')}.png"] = sheet.png(), alt
    rows = [(label, [cell(table, entry) for entry in row]) for label, row in table.rows.items()]
    keys = [(label, key) for label, _, entry in table.places() for key in entry.keys]
    records = [{"row": label, **msgspec.to_builtins(results[key])} for label, key in keys]
    return Section(table.title, f"{table.heading}.", table.header, rows, table.notes(), charts, pictures, records)


def cell(table: Table, entry: Entry | None) -> Cell:
    """An entry with its solver error and the published number below."""
    if entry is None:
        return Cell("")
    if not table.has_metric:
        return Cell(entry.bare_text, entry.solver_error)
    lines = [f"solver error {entry.error_text}"] if entry.error_text else []
    if entry.published is not None:
        difference = signed(entry.difference, entry.mean)
        lines.append(f"published {printed(entry.published)}{f' ({difference})' if difference else ''}")
    return Cell(entry.text, None if entry.overspent else entry.mean, lines)
