"""Numbers as tables print them."""

from __future__ import annotations

from gddim_cli.bench.sheets import Entry, Sheet
from gddim_cli.evaluation.protocols import FULL


def decimals(value: float) -> int:
    """Digits after the point that a value is printed with: four digits in all, about, at least two below 100."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4


def figure(value: float) -> str:
    return f"{value:.{decimals(value)}f}"


def with_spread(entry: Entry) -> str:
    """`3.31 ± 0.04 (9)`: mean, sample standard deviation, and the evaluations made where they are not those asked."""
    if entry.mean is None:
        return "failed" if entry.failed else "…"
    if entry.overspent:
        return DASH
    digits = decimals(entry.mean)
    text = f"{entry.mean:.{digits}f}"
    if entry.std is not None:
        spread = f"{entry.std:.{digits}f}"
        text += f" ± {spread if float(spread) or not entry.std else figure(entry.std)}"
    return text + in_brackets(entry) + (" *" if entry.failed or entry.missing else "")


def spent(entry: Entry) -> str | None:
    """The evaluations made, to a tenth, where they are not those asked."""
    made = None if entry.nfe is None else f"{entry.nfe:.1f}".removesuffix(".0")
    return None if made == str(entry.asked) else made


def in_brackets(entry: Entry) -> str:
    """The same as tables show it."""
    made = spent(entry)
    return f" ({made})" if made else ""


def printed(value: float | str | None) -> str:
    """A published number as it was printed."""
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def signed(value: float | None, beside: float | None) -> str:
    """A difference, to as many digits as the number that it is of."""
    return "" if value is None or beside is None else f"{value:+.{decimals(beside)}f}"


def small(value: float | None) -> str:
    """A solver error, two digits."""
    return (
        "" if value is None else f"{value:.1e}" if value < 0.01 else f"{value:#.2g}" if value < 10 else f"{value:.0f}"
    )


def error_of(entry: Entry) -> str:
    """A solver error as its table shows it, the evaluations made in brackets."""
    if entry.solver_error is None:
        return "failed" if entry.solver_failed else ""
    if entry.overspent:
        return DASH
    return small(entry.solver_error) + in_brackets(entry) + (" *" if entry.solver_failed else "")


DASH = "—"
"""In place of a number that is of another budget."""
Grid = list[list[str]]


def distances(sheet: Sheet) -> Grid:
    """The table of distances: a header, a row a sampler, and below it the published numbers and the differences."""
    grid = [["sampler", *column_names(sheet)]]
    for row in sheet.rows:
        grid.append([row.label, *("" if entry is None else with_spread(entry) for entry in row.entries)])
        if any(entry and entry.published is not None for entry in row.entries):
            grid.append(["published", *(printed(entry.published) if entry else "" for entry in row.entries)])
            shown = [entry if entry and not entry.overspent else None for entry in row.entries]
            grid.append(["difference", *(signed(entry.difference, entry.mean) if entry else "" for entry in shown)])
    return grid


def errors(sheet: Sheet) -> Grid | None:
    """The table of solver errors, or None where there is none."""
    rows = [row for row in sheet.rows if any(entry and error_of(entry) for entry in row.entries)]
    if not rows:
        return None
    body = [[row.label, *(error_of(entry) if entry else "" for entry in row.entries)] for row in rows]
    return [["sampler", *column_names(sheet)], *body]


def column_names(sheet: Sheet) -> list[str]:
    word = "NFE" if sheet.axis == "NFE" else "λ ="
    return [f"{word} {column:g}" for column in sheet.columns]


def notes(sheet: Sheet) -> list[str]:
    """What a reader of the table has to know, a sentence each."""
    entries = [entry for row in sheet.rows for entry in row.entries if entry]
    found = []
    if any(entry.std is not None for entry in entries):
        seeds = sorted({entry.seeds for entry in entries if entry.std is not None})
        found.append(f"±: the sample standard deviation over {' or '.join(map(str, seeds))} seeds.")
    if any(spent(entry) and not entry.overspent for entry in entries):
        found.append("In brackets the evaluations made, where the budget could not be spent exactly.")
    for row in sheet.rows:
        over = [entry for entry in row.entries if entry and entry.overspent]
        if over:
            budgets = ", ".join(f"{spent(entry)} for NFE {entry.asked}" for entry in over)
            found.append(f"{DASH}: {row.label} cannot make so few evaluations here ({budgets}).")
    if any(entry.published is not None for entry in entries):
        full = "" if sheet.images >= FULL else f"; of {sheet.images} images the distance is larger by its bias"
        found.append(f"Published: arXiv 2206.05564, 50 000 images{full}.")
    reasons = dict.fromkeys(
        f"{row.label}: {why}"
        for row in sheet.rows
        for entry in row.entries
        if entry
        for why in (*entry.failed, *(f"solver error: {reason}" for reason in entry.solver_failed))
    )
    found += [f"Failed: {reason}." for reason in reasons]
    missing = sum(entry.missing for entry in entries)
    return [*found, f"{missing} cells are still to come (…, *)."] if missing else found
