"""Cells as tables: rows are samplers, columns evaluations (or lambda), entries means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gddim_cli.bench import labels, published
from gddim_cli.bench.folder import Asked, Folder, Result, SolverError
from gddim_cli.evaluation.protocols import FULL


class Shown(msgspec.Struct, kw_only=True):
    """One cell as `results.json` has it.

    Attributes:
        table: the title of its table.
        cell: the plan's words for it.
        published: in the paper, where it has this cell; `>100` as printed.
        difference: measured less published, where that is a number.
    """

    table: str
    cell: dict[str, Any]
    result: Result
    solver_error: SolverError | None
    published: float | str | None
    difference: float | None

    @property
    def key(self) -> str:
        return self.result.key

    @property
    def solver_failed(self) -> str | None:
        """Why it has no solver error, where one was tried."""
        return self.solver_error.failed if self.solver_error else None


class Entry(msgspec.Struct, kw_only=True):
    """What stands at one place of a table.

    Attributes:
        asked: evaluations; nfe: evaluations made, the mean over seeds.
        seeds: cells that have a distance; mean: over them; std: their sample standard deviation, where they are several.
        solver_error: the root mean square over the seeds' errors.
        failed: why cells have none; missing: how many are still to come.
        solver_failed: why cells have no solver error.
        overspent: whether RK45, tuned to the budget, spends over 5 % (and one evaluation) more: tables and plots leave
            such a number out.
    """

    asked: int
    nfe: float | None
    seeds: int
    mean: float | None
    std: float | None
    solver_error: float | None
    published: float | str | None
    difference: float | None
    failed: list[str]
    missing: int
    solver_failed: list[str] = []
    overspent: bool = False


class Row(msgspec.Struct, kw_only=True):
    """A sampler; `entries` has None where the plan has no cell for a column."""

    label: str
    entries: list[Entry | None]
    keys: list[list[str]]


class Sheet(msgspec.Struct, kw_only=True):
    """Cells that one judge measured on one number of images, quantised in one way.

    Attributes:
        axis: what the columns are, `NFE` or `lambda`; with the latter all are of one NFE, `nfe`.
        apart: in what it differs from tables that would have the same heading.
    """

    title: str
    metric: str
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
        """The metric, with the number of images where it is not the one that FID is quoted of: `FID@5000`."""
        return self.metric if self.images >= FULL else f"{self.metric}@{self.images}"

    @property
    def heading(self) -> str:
        """What the numbers are, in a line."""
        reference = f"to {self.reference}"
        protocol = f", protocol {self.protocol}" if self.protocol else ""
        budget = f", NFE {self.nfe}" if self.nfe else ""
        apart = f", {self.apart}" if self.apart else ""
        return f"{self.name} {reference}{protocol}, {self.images} images a cell{budget}{apart}"


@dataclass
class _Group:
    cells: list[Shown] = field(default_factory=list)


def collect(asked: Asked, folder: Folder) -> list[Shown]:
    """Every cell of a plan with what is kept of it."""
    waiting = {result.key: result for result in asked.cells}
    kept = {key: folder.result(key) or plain for key, plain in waiting.items()}
    errors = {key: folder.error(key, asked.solver_error) if asked.solver_error else None for key in waiting}
    found = []
    for one in asked.placed:
        printed = published.number(one.published, one.cell, kept[one.key].settings)
        measured = kept[one.key].distance
        both = isinstance(printed, (int, float)) and measured is not None
        found.append(
            Shown(
                table=one.table,
                cell=one.cell,
                result=kept[one.key],
                solver_error=errors[one.key],
                published=printed,
                difference=measured - float(printed) if both else None,  # type: ignore[operator, arg-type]
            )
        )
    return found


def sheets(cells: Sequence[Shown]) -> list[Sheet]:
    """The tables: one for each title, judge, number of images and quantisation, in the plan's order."""
    groups: dict[bytes, list[Shown]] = {}
    for cell in cells:
        result = cell.result
        key = (cell.table, result.judge, result.num, result.settings["quantize"])
        groups.setdefault(msgspec.json.encode(key, order="sorted"), []).append(cell)
    found = [
        (sheet(group), {**group[0].result.judge, "quantize": group[0].result.settings["quantize"]})
        for group in groups.values()
    ]
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one, judge in found:
        alike.setdefault((one.title, one.heading), []).append(judge)
    return [msgspec.structs.replace(one, apart=_apart(judge, alike[one.title, one.heading])) for one, judge in found]


def _apart(judge: dict[str, Any], kin: Sequence[dict[str, Any]]) -> str:
    """The fields in which a judge differs from those beside it."""
    differ = [name for name in judge if len({repr(other.get(name)) for other in kin}) > 1]
    return ", ".join(f"{name.replace('_', ' ')} {labels.brief(judge[name])}" for name in differ)


def sheet(cells: Sequence[Shown]) -> Sheet:
    """One table of cells that may share one."""
    settings = [cell.result.settings for cell in cells]
    budgets = sorted({one["nfe"] for one in settings})
    pairs = {(one["sampler"], one["lambda"]) for one in settings}
    varied = len(pairs) > len({sampler for sampler, _ in pairs})  # of one sampler: two samplers' defaults may differ
    axis = "lambda" if len(budgets) == 1 and varied and all(lam is not None for _, lam in pairs) else "NFE"
    column: Callable[[Shown], float] = lambda cell: cell.result.settings["lambda" if axis == "lambda" else "nfe"]  # noqa: E731
    columns = sorted({column(cell) for cell in cells})
    names = labels.labels(settings, axis)
    rows: dict[bytes, tuple[str, list[list[Shown]]]] = {}
    for cell, one, name in zip(cells, settings, names, strict=True):
        _, places = rows.setdefault(labels.row_key(one, axis), (name, [[] for _ in columns]))
        places[columns.index(column(cell))].append(cell)
    judge, first = cells[0].result.judge, cells[0].result
    return Sheet(
        title=cells[0].table,
        metric=judge["metric"],
        reference=judge["reference"],
        protocol=judge["protocol"],
        images=first.num,
        quantize=first.settings["quantize"],
        axis=axis,
        nfe=budgets[0] if axis == "lambda" else None,
        columns=columns,
        rows=[
            Row(label=name, entries=[entry(place) for place in places], keys=[[c.key for c in p] for p in places])
            for name, places in rows.values()
        ],
    )


def entry(cells: Sequence[Shown]) -> Entry | None:
    """Mean and spread over the seeds of one place."""
    if not cells:
        return None
    done = [cell.result for cell in cells if cell.result.distance is not None]
    values = [result.distance for result in done if result.distance is not None]
    solved = [cell.solver_error for cell in cells if cell.solver_error]
    errors = [error.rms for error in solved if error.rms is not None]
    mean = statistics.fmean(values) if values else None
    printed = cells[0].published
    difference = mean - float(printed) if mean is not None and isinstance(printed, (int, float)) else None
    settings = cells[0].result.settings
    asked, made = settings["nfe"], statistics.fmean(result.nfe or 0.0 for result in done) if done else None
    tuned = settings["rtol"] is None and settings["atol"] is None
    return Entry(
        asked=asked,
        nfe=made,
        seeds=len(values),
        mean=mean,
        std=statistics.stdev(values) if len(values) > 1 else None,
        solver_error=statistics.fmean(rms**2 for rms in errors) ** 0.5 if errors else None,
        published=printed,
        difference=difference,
        failed=[cell.result.failed for cell in cells if cell.result.failed],
        missing=sum(cell.result.distance is None and not cell.result.failed for cell in cells),
        solver_failed=[error.failed for error in solved if error.failed],
        overspent=tuned and made is not None and made > max(1.05 * asked, asked + 1),
    )
