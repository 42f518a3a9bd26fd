"""Results as tables: rows are samplers, columns network evaluations (or lambda), entries means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec

from gddim_cli.bench import published
from gddim_cli.bench.cell import Cell
from gddim_cli.bench.labels import labels, row_key
from gddim_cli.bench.results import Result
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.protocols import FULL

DASH = "—"
"""In place of a value that belongs to another budget."""
Grid = list[list[str]]
Pair = tuple[Cell, Result]


class Entry(msgspec.Struct, kw_only=True):
    """One place of a table: the cells that differ in the seed only.

    Attributes:
        keys: of their results; seeds: how many have a value.
        asked, nfe: network evaluations asked for, and made on average.
        mean, std: of the values; std is the sample standard deviation, of several.
        solver_error: root mean square over the seeds.
        published, difference: the paper's number, and how much larger the mean is.
        failed, solver_failed: why values are missing; missing: cells that have not been measured.
        overspent: whether RK45, calibrated to the budget, spent over 5 % (and over one evaluation) more: tables and plots
            leave such values out.
    """

    keys: list[str]
    seeds: int
    asked: int
    nfe: float | None
    mean: float | None
    std: float | None
    solver_error: float | None
    published: published.Number | None
    difference: float | None
    failed: list[str]
    solver_failed: list[str]
    missing: int
    overspent: bool

    @property
    def made(self) -> str:
        """` (9)`: the evaluations made, to a tenth, where they are not those asked for."""
        text = str(self.asked) if self.nfe is None else f"{self.nfe:.1f}".removesuffix(".0")
        return "" if text == str(self.asked) else f" ({text})"

    @property
    def text(self) -> str:
        """`3.31 ± 0.04 (9)`: mean, spread and evaluations made; `*` where cells are missing."""
        if self.mean is None:
            return "failed" if self.failed else "…"
        if self.overspent:
            return DASH
        spread = "" if self.std is None else f"{self.std:.{decimals(self.mean)}f}"
        if self.std and not float(spread):
            spread = figure(self.std)
        plus = f" ± {spread}" if spread else ""
        return figure(self.mean) + plus + self.made + (" *" if self.failed or self.missing else "")

    @property
    def error_text(self) -> str:
        """The solver error, two digits, and the evaluations made."""
        value = self.solver_error
        if value is None:
            return "failed" if self.solver_failed else ""
        if self.overspent:
            return DASH
        text = f"{value:.1e}" if value < 0.01 else f"{value:#.2g}" if value < 10 else f"{value:.0f}"
        return text + self.made + (" *" if self.solver_failed else "")


class Row(msgspec.Struct, kw_only=True):
    """A sampler; an entry is None where the plan has no cell for its column."""

    label: str
    entries: list[Entry | None]


class Table(msgspec.Struct, kw_only=True):
    """Values that compare: of one metric and evaluator, one number of images and one quantisation.

    Attributes:
        metric: what it is called in tables; metric_name: in plans.
        axis: what the columns are, `nfe` or `lambda`; with `lambda` all cells have one NFE, `nfe`.
        apart: in what it differs from other tables with its heading.
    """

    title: str
    metric: str
    metric_name: str
    reference: str
    protocol: str | None
    images: int
    quantize: str
    axis: str
    nfe: int | None
    columns: list[float]
    rows: list[Row]
    apart: str = ""

    @property
    def name(self) -> str:
        """The metric, with the number of images where it depends on that: `FID@5000`."""
        spec = METRICS.get(self.metric_name)
        return (
            self.metric
            if self.images >= FULL or (spec and not spec.depends_on_count)
            else f"{self.metric}@{self.images}"
        )

    @property
    def heading(self) -> str:
        """What the values are, in one line."""
        parts = [f"{self.name} to {self.reference}", f"protocol {self.protocol}" if self.protocol else ""]
        parts += [f"{self.images} images per cell", f"NFE {self.nfe}" if self.nfe else "", self.apart]
        return ", ".join(filter(None, parts))

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [f"{'NFE' if self.axis == 'nfe' else 'λ ='} {column:g}" for column in self.columns]

    @property
    def entries(self) -> list[Entry]:
        """Every entry."""
        return [entry for row in self.rows for entry in row.entries if entry]

    def grid(self) -> Grid:
        """The values as text: a header, a line for each row, and below it the paper's numbers and the differences."""
        found = [["sampler", *self.names]]
        for row in self.rows:
            found.append([row.label, *(entry.text if entry else "" for entry in row.entries)])
            if any(entry and entry.published is not None for entry in row.entries):
                found.append(["published", *(printed(entry.published if entry else None) for entry in row.entries)])
                found.append(
                    [
                        "difference",
                        *(signed(e.difference, e.mean) if e and not e.overspent else "" for e in row.entries),
                    ]
                )
        return found

    def error_grid(self) -> Grid:
        """The solver errors as text, or nothing."""
        lines = [[row.label, *(entry.error_text if entry else "" for entry in row.entries)] for row in self.rows]
        lines = [line for line in lines if any(line[1:])]
        return [["sampler", *self.names], *lines] if lines else []

    def notes(self) -> list[str]:
        """What a reader of the table has to know, a sentence each."""
        found, entries = [], self.entries
        seeds = sorted({entry.seeds for entry in entries if entry.std is not None})
        if seeds:
            found.append(f"±: the sample standard deviation over {' or '.join(map(str, seeds))} seeds.")
        if any(entry.made and not entry.overspent for entry in entries):
            found.append("In brackets: the network evaluations made, where the budget cannot be spent exactly.")
        for row in self.rows:
            over = [f"{e.made.strip(' ()')} for NFE {e.asked}" for e in row.entries if e and e.overspent]
            if over:
                found.append(f"{DASH}: {row.label} needs more evaluations than the budget ({', '.join(over)}).")
        if any(entry.published is not None for entry in entries):
            full = "" if self.images >= FULL else f"; with {self.images} images the bias of the distance is larger"
            found.append(f"Published: arXiv 2206.05564, 50 000 images{full}.")
        why = [(row.label, reason) for row in self.rows for e in row.entries if e for reason in e.failed]
        why += [
            (r.label, f"solver error: {reason}")
            for r in self.rows
            for e in r.entries
            if e
            for reason in e.solver_failed
        ]
        found += dict.fromkeys(f"Failed: {label}: {reason}." for label, reason in why)
        missing = sum(entry.missing for entry in entries)
        return found + ([f"{cells(missing)} not measured yet (…, *)."] if missing else [])


def tables(pairs: Sequence[Pair]) -> list[Table]:
    """The tables: one for each title, evaluator, number of images and quantisation, in the plan's order."""
    groups: dict[bytes, list[Pair]] = {}
    for cell, result in pairs:
        key = (cell.table, result.evaluator, result.num, result.request.quantize)
        groups.setdefault(msgspec.json.encode(key, order="sorted"), []).append((cell, result))
    made = [table(group) for group in groups.values()]
    judged = [{**of[0][1].evaluator, "quantize": of[0][1].request.quantize} for of in groups.values()]
    headings = [(one.title, one.heading) for one in made]
    for one, heading, own in zip(made, headings, judged, strict=True):
        kin = [other for other, same in zip(judged, headings, strict=True) if same == heading]
        differ = [name for name in own if len({repr(other.get(name)) for other in kin}) > 1]
        one.apart = ", ".join(f"{name.replace('_', ' ')} {str(own[name])[:12]}" for name in differ)
    return made


def table(pairs: Sequence[Pair]) -> Table:
    """One table of cells that may share one."""
    requests = [result.request for _, result in pairs]
    budgets = {request.nfe for request in requests}
    noises = {(request.sampler, request.options.get("lambda")) for request in requests}
    varied = len(noises) > len({sampler for sampler, _ in noises}) and all(noise is not None for _, noise in noises)
    axis = "lambda" if len(budgets) == 1 and varied else "nfe"
    at: list[Any] = [request.flat()[axis] for request in requests]
    columns = sorted(set(at))
    rows: dict[bytes, tuple[str, list[list[Pair]]]] = {}
    for pair, request, column, label in zip(pairs, requests, at, labels(requests, axis), strict=True):
        _, places = rows.setdefault(row_key(request, axis), (label, [[] for _ in columns]))
        places[columns.index(column)].append(pair)
    cell, result = pairs[0]
    return Table(
        title=cell.table,
        metric=result.evaluator["metric"],
        metric_name=result.evaluator.get("metric_name", "fid"),
        reference=result.evaluator["reference"],
        protocol=result.evaluator["protocol"],
        images=result.num,
        quantize=str(result.request.quantize),
        axis=axis,
        nfe=result.request.nfe if axis == "lambda" else None,
        columns=columns,
        rows=[
            Row(label=label, entries=[entry(of) if of else None for of in places]) for label, places in rows.values()
        ],
    )


def entry(pairs: Sequence[Pair]) -> Entry:
    """Mean and spread over the seeds of one place."""
    results = [result for _, result in pairs]
    done = [result for result in results if result.value is not None]
    values = [result.value for result in done if result.value is not None]
    solved = [result.solver_error for result in results if result.solver_error]
    errors = [error.rms for error in solved if error.rms is not None]
    mean = statistics.fmean(values) if values else None
    request, number = results[0].request, published.number(pairs[0][0], results[0].request)
    nfe = statistics.fmean(result.nfe or 0.0 for result in done) if done else None
    given = request.options.get("rtol") or request.options.get("atol")
    return Entry(
        keys=[result.key for result in results],
        seeds=len(values),
        asked=request.nfe,
        nfe=nfe,
        mean=mean,
        std=statistics.stdev(values) if len(values) > 1 else None,
        solver_error=statistics.fmean(rms**2 for rms in errors) ** 0.5 if errors else None,
        published=number,
        difference=None if mean is None or number is None or isinstance(number, str) else mean - number,
        failed=[result.failed for result in results if result.failed],
        solver_failed=[error.failed for error in solved if error.failed],
        missing=sum(result.value is None and not result.failed for result in results),
        overspent=not given and nfe is not None and nfe > max(1.05 * request.nfe, request.nfe + 1),
    )


def decimals(value: float) -> int:
    """Digits after the point: about four in all, at least two below 100."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4


def figure(value: float) -> str:
    """A value as tables print it."""
    return f"{value:.{decimals(value)}f}"


def printed(value: published.Number | None) -> str:
    """A published number as it was printed."""
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def signed(value: float | None, beside: float | None) -> str:
    """A difference, with as many digits as the value beside it."""
    return "" if value is None or beside is None else f"{value:+.{decimals(beside)}f}"


def cells(count: int) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} cell{'s' * (count != 1)}"
