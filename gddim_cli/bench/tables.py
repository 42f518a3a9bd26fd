"""Results as tables: a row for each sampler, a column for each NFE (or lambda), and means over seeds as entries."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gddim_cli.bench import published
from gddim_cli.bench.cell import Cell
from gddim_cli.bench.results import WITHOUT_METRIC, Result
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.protocols import FULL
from gddim_cli.runs.request_labels import labels
from gddim_cli.runtime.grids import Grid
from gddim_cli.runtime.text import counted, printed, rounded, signed, with_error

DASH = "—"
"""Printed in place of a value that took more evaluations than its budget."""
PICTURES = "pictures"
"""Printed for a cell with neither a metric nor a solver error."""
VARY = "that is, how much it would vary if other images were drawn from the same model"
SOLVER_ERROR = "RMS of x - x* over pixels and images, x* the converged solution from the same noise, images in [-1, 1]"
Pair = tuple[Cell, Result]


class Entry(msgspec.Struct, kw_only=True):
    """One entry of a table, for results that differ in the seed only.

    `keys` are the keys of these results, and `seeds` is the number of results that have a value. `standard_error` is that
    of the mean over seeds or, with one seed, that of the metric, estimated from the images. `asked` and `nfe` are the
    network evaluations asked for and made. `failed` lists reasons for missing values; `missing` counts the values that
    are not measured yet. An entry is `overspent` if RK45 with a calibrated tolerance exceeds the budget by more than 5 %
    and by more than one evaluation. Tables and plots leave out the value of such an entry.
    """

    keys: list[str]
    asked: int
    seeds: int
    nfe: float | None
    mean: float | None
    std: float | None
    standard_error: float | None = None
    solver_error: float | None
    published: published.Number | None
    difference: float | None
    failed: list[str]
    solver_failed: list[str]
    missing: int
    overspent: bool

    @property
    def made(self) -> str:
        """` (9)`: the evaluations made, to a tenth, if they differ from those asked for."""
        text = str(self.asked) if self.nfe is None else f"{self.nfe:.1f}".removesuffix(".0")
        return "" if text == str(self.asked) else f" ({text})"

    @property
    def text(self) -> str:
        """`3.31 ± 0.04 (9)`: mean, standard error and evaluations made; `*` if a cell is missing or failed."""
        if self.mean is None or self.overspent:
            return DASH if self.overspent else "failed" if self.failed else "…"
        mark = " *" if self.failed or self.missing else ""
        return f"{with_error(self.mean, self.standard_error)}{self.made}{mark}"

    @property
    def error_text(self) -> str:
        """The solver error, to two digits, and the evaluations made."""
        value = self.solver_error
        if value is None or self.overspent:
            return "" if value is None and not self.solver_failed else DASH if self.overspent else "failed"
        return rounded(value) + self.made + " *" * bool(self.solver_failed)

    @property
    def bare_text(self) -> str:
        """The text of the entry in a table without a metric."""
        return self.error_text or ("failed" if self.failed else "…" if self.missing else PICTURES + self.made)


class Table(msgspec.Struct, kw_only=True):
    """Values of one metric, reference, number of images and quantization, by row label and column."""

    title: str
    evaluator: dict[str, Any]
    images: int
    quantize: str | None
    axis: str  # The setting that the columns show: `nfe`, or `lambda` if the cells vary in lambda but not in NFE.
    nfe: int | None
    columns: list[float]
    rows: dict[str, list[Entry | None]]
    apart: str = ""  # How the table differs from others with the same heading.

    @property
    def has_metric(self) -> bool:
        """Whether the table has values of a metric; otherwise it has solver errors only."""
        return self.evaluator != WITHOUT_METRIC

    @property
    def metric(self) -> str:
        """The metric's name, with the number of images if it is below `FULL` and affects the value: `FID@5000`."""
        spec, name = METRICS.get(self.evaluator.get("metric_name", "fid")), self.evaluator["metric"]
        return name if self.images >= FULL or (spec and not spec.depends_on_count) else f"{name}@{self.images}"

    @property
    def measured(self) -> str:
        """The metric and its reference, `FID@5000 against mnist`; the metric alone if it needs no reference."""
        reference = self.evaluator["reference"]
        return f"{self.metric} against {reference}" if reference else self.metric

    @property
    def heading(self) -> str:
        """A description of the values, in one line."""
        protocol = self.evaluator["protocol"]
        what = self.measured if self.has_metric else f"Solver error: {SOLVER_ERROR}"
        parts = [what, f"protocol {protocol}" if protocol else ""]
        parts += [f"{self.images} images per cell", f"NFE {self.nfe}" if self.nfe else "", self.apart]
        return ", ".join(filter(None, parts))

    @property
    def header(self) -> list[str]:
        """The heads of the columns."""
        return ["sampler", *(f"{'NFE' if self.axis == 'nfe' else 'λ ='} {column:g}" for column in self.columns)]

    def places(self) -> Iterator[tuple[str, float, Entry]]:
        """Every entry with its row and its column."""
        for label, row in self.rows.items():
            yield from ((label, column, entry) for column, entry in zip(self.columns, row, strict=True) if entry)

    @property
    def entries(self) -> list[Entry]:
        """Every entry."""
        return [entry for _, _, entry in self.places()]

    def grid(self) -> Grid:
        """The values as text: a header, and for each row a line, followed by any published numbers and differences."""
        found = [self.header]
        for label, row in self.rows.items():
            texts = [(entry.text if self.has_metric else entry.bare_text) if entry else "" for entry in row]
            found.append([label, *texts])
            numbers = [entry.published if entry else None for entry in row]
            if any(number is not None for number in numbers):
                differences = [signed(entry.difference, entry.mean) if entry else "" for entry in row]
                found += [["published", *map(printed, numbers)], ["difference", *differences]]
        return found

    def error_grid(self) -> Grid:
        """The solver errors as text; empty if there are none, or if `grid` shows them because there is no metric."""
        if not self.has_metric:
            return []
        lines = [[label, *(entry.error_text if entry else "" for entry in row)] for label, row in self.rows.items()]
        lines = [line for line in lines if any(line[1:])]
        return [self.header, *lines] if lines else []

    def notes(self) -> list[str]:
        """Notes for the reader of the table, one sentence each."""
        found, entries, images = [], self.entries, self.images
        if seeds := sorted({entry.seeds for entry in entries if entry.std is not None}):
            found.append(f"±: the standard error of the mean over {' or '.join(map(str, seeds))} seeds.")
        if any(entry.std is None and entry.standard_error is not None for entry in entries):
            alone = " with one seed" if seeds else ""
            found.append(f"±{alone}: the standard error of the metric, {VARY}.")
        if not self.has_metric and any(entry.bare_text.startswith(PICTURES) for entry in entries):
            found.append(f"{PICTURES}: no solver error (only deterministic samplers have one); see samples.png.")
        if any(entry.made and not entry.overspent for entry in entries):
            found.append("In brackets: the number of network evaluations made, where it differs from the budget.")
        reasons = []
        for label, row in self.rows.items():
            of = [entry for entry in row if entry]
            if over := [f"{one.made.strip(' ()')} evaluations for NFE {one.asked}" for one in of if one.overspent]:
                found.append(f"{DASH}: {label} exceeds the budget by more than 5 % ({', '.join(over)}).")
            reasons += [f"Failed: {label}: {why}." for entry in of for why in entry.failed]
            reasons += [f"Failed: {label}: solver error: {why}." for entry in of for why in entry.solver_failed]
        if any(entry.published is not None for entry in entries):
            bias = "" if images >= FULL else f"; with {images} images the bias of the distance is larger"
            found.append(f"Published: arXiv 2206.05564, 50 000 images{bias}.")
        if missing := sum(entry.missing for entry in entries):
            reasons.append(f"{counted(missing, 'cell')} not measured yet (…, *).")
        return [*found, *dict.fromkeys(reasons)]


def tables(pairs: Sequence[Pair]) -> list[Table]:
    """The tables: one for each title, evaluator, number of images and quantization, in the plan's order."""
    groups: dict[bytes, list[Pair]] = {}
    for cell, result in pairs:
        key = (cell.table, result.evaluator, result.num, result.request.quantize)
        groups.setdefault(msgspec.json.encode(key, order="sorted"), []).append((cell, result))
    made = [table(group) for group in groups.values()]
    owns = [((one.title, one.heading), {**one.evaluator, "quantize": one.quantize}) for one in made]
    for one, (heading, own) in zip(made, owns, strict=True):
        kin = [other for same, other in owns if same == heading]
        differ = [name for name in own if len({repr(other.get(name)) for other in kin}) > 1]
        one.apart = ", ".join(f"{name.replace('_', ' ')} {str(own[name])[:12]}" for name in differ)
    return made


def table(pairs: Sequence[Pair]) -> Table:
    """Arranges cells with the same title, evaluator, number of images and quantization in one table."""
    requests, (cell, result) = [result.request for _, result in pairs], pairs[0]
    noises = {(request.sampler, request.options.get("lambda")) for request in requests}
    varied = len(noises) > len({sampler for sampler, _ in noises}) and all(noise is not None for _, noise in noises)
    axis = "lambda" if varied and len({request.nfe for request in requests}) == 1 else "nfe"
    at: list[Any] = [request.flat()[axis] for request in requests]
    columns = sorted(set(at))
    places: dict[str, list[list[Pair]]] = {}
    for pair, column, label in zip(pairs, at, labels(requests, axis), strict=True):
        places.setdefault(label, [[] for _ in columns])[columns.index(column)].append(pair)
    rows = {label: [entry(of) if of else None for of in row] for label, row in places.items()}
    own: dict[str, Any] = {"evaluator": result.evaluator, "images": result.num, "quantize": result.request.quantize}
    nfe = result.request.nfe if axis == "lambda" else None
    return Table(title=cell.table, **own, axis=axis, nfe=nfe, columns=columns, rows=rows)


def entry(pairs: Sequence[Pair]) -> Entry:
    """The entry for results that differ in the seed only."""
    results, request = [result for _, result in pairs], pairs[0][1].request
    values = [result.value for result in results if result.value is not None]
    made = [result.nfe or 0.0 for result in results if not result.missing]
    solved = [result.solver_error for result in results if result.solver_error]
    squares = [error.rms**2 for error in solved if error.rms is not None]
    mean, nfe = statistics.fmean(values) if values else None, statistics.fmean(made) if made else None
    std = statistics.stdev(values) if len(values) > 1 else None
    number = published.number(pairs[0][0], request)
    calibrated = not request.options.get("rtol") and not request.options.get("atol")
    overspent = calibrated and nfe is not None and nfe > max(1.05 * request.nfe, request.nfe + 1)
    comparable = mean is not None and isinstance(number, int | float) and not overspent
    return Entry(
        keys=[result.key for result in results],
        asked=request.nfe,
        seeds=len(values),
        nfe=nfe,
        mean=mean,
        std=std,
        standard_error=std / len(values) ** 0.5 if std is not None else results[0].standard_error,
        solver_error=statistics.fmean(squares) ** 0.5 if squares else None,
        published=number,
        difference=mean - number if comparable else None,  # type: ignore[operator]
        failed=[result.failed for result in results if result.failed],
        solver_failed=[error.failed for error in solved if error.failed],
        missing=sum(result.missing and not result.failure for result in results),
        overspent=overspent,
    )
