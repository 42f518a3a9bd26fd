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
    digits = decimals(entry.mean)
    text = f"{entry.mean:.{digits}f}"
    if entry.std is not None:
        text += f" ± {entry.std:.{digits}f}"
    if entry.nfe is not None and abs(entry.nfe - entry.asked) > 1e-9:
        text += f" ({entry.nfe:.3g})"
    return text + (" *" if entry.failed or entry.missing else "")


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


Grid = list[list[str]]


def distances(sheet: Sheet) -> Grid:
    """The table of distances: a header, a row a sampler, and below it the published numbers and the differences."""
    grid = [["sampler", *column_names(sheet)]]
    for row in sheet.rows:
        grid.append([row.label, *("" if entry is None else with_spread(entry) for entry in row.entries)])
        if any(entry and entry.published is not None for entry in row.entries):
            grid.append(["published", *(printed(entry.published) if entry else "" for entry in row.entries)])
            grid.append(
                ["difference", *(signed(entry.difference, entry.mean) if entry else "" for entry in row.entries)]
            )
    return grid


def errors(sheet: Sheet) -> Grid | None:
    """The table of solver errors, or None where there is none."""
    rows = [row for row in sheet.rows if any(entry and entry.solver_error is not None for entry in row.entries)]
    if not rows:
        return None
    body = [[row.label, *(small(entry.solver_error) if entry else "" for entry in row.entries)] for row in rows]
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
    if any(entry.nfe is not None and abs(entry.nfe - entry.asked) > 1e-9 for entry in entries):
        found.append("In brackets the evaluations made, where the budget could not be spent exactly.")
    if any(entry.published is not None for entry in entries):
        full = "" if sheet.images >= FULL else f"; of {sheet.images} images the distance is larger by its bias"
        found.append(f"Published: arXiv 2206.05564, 50 000 images{full}.")
    reasons = dict.fromkeys(
        f"{row.label}: {why}" for row in sheet.rows for entry in row.entries if entry for why in entry.failed
    )
    found += [f"Failed: {reason}." for reason in reasons]
    missing = sum(entry.missing for entry in entries)
    return [*found, f"{missing} cells are still to come (…, *)."] if missing else found
