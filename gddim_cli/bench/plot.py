"""Tables as charts: a line for each sampler, standard errors as a band, published values as hollow marks."""

from __future__ import annotations

from gddim_cli.bench.tables import Entry, Table
from gddim_cli.pages.chart import Chart, Mark, Point, Series


def values(table: Table) -> Chart:
    """Values against evaluations made, or against lambda, and published ones beside them."""
    return chart(table, "mean", table.measured, table.heading)


def errors(table: Table) -> Chart:
    """Solver errors against evaluations made, or against lambda."""
    budget = f", NFE {table.nfe}" if table.nfe else ""
    heading = f"distance to the converged solution from the same noise{budget}"
    return chart(table, "solver_error", "solver error (RMS, images in [-1, 1])", heading)


def chart(table: Table, name: str, ylabel: str, heading: str) -> Chart:
    """A line for each row that has values, through the evaluations that were made."""
    lines = []
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
    """An entry's place; None where it belongs to another budget."""
    if entry.overspent:
        return None
    at = column if table.axis == "lambda" else entry.nfe or entry.asked
    means = name == "mean"
    text = f"{label}, {'λ' if table.axis == 'lambda' else 'NFE'} {at:g}: {entry.text if means else entry.error_text}"
    return Point(at, getattr(entry, name), entry.standard_error if means else None, text)
