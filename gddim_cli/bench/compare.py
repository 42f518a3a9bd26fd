"""Compares two benchmarks, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.bench.report import Report, report
from gddim_cli.bench.results import PLAN, RESULTS, Folder, Result
from gddim_cli.errors import DataError, UsageError
from gddim_cli.runs.request_labels import labels
from gddim_cli.runtime.json_files import read_json

OWN = ("checkpoint", "dtype", "batch_size", "checkpoint_sha256")
"""Settings that are ignored when cells are matched, unless they are needed to tell the cells of one run apart."""


def read(path: Path) -> Report:
    """The results in a folder, even if its run was interrupted; raises DataError if there are none."""
    folder = Folder(path)
    found = report(folder.plan(), folder) if (path / PLAN).is_file() else read_json(path / RESULTS, Report)
    if found is None:
        raise DataError(f"{path}: has no {RESULTS}; give a folder in which gddim bench has run")
    return found


def compare(first: Path, second: Path) -> list[dict[str, Any]]:
    """The cells of both runs, matched by their settings; a cell without a counterpart is included, too.

    The checkpoint and the other settings in `OWN` need not match. `a` and `b` are the values in the two runs, and
    `ratio` is b / a - 1. `same` is true if all settings are equal, even those in `OWN`; then a and b should be equal.
    Raises DataError for a folder without results, UsageError if the runs have no metric and reference in common.
    """
    runs, kept = [read(path).results for path in (first, second)], list[str]()
    for name in OWN:
        if any(len({identity(r, [*kept, name]) for r in run}) > len({identity(r, kept) for r in run}) for run in runs):
            kept.append(name)
    a, b = ({identity(result, kept): result for result in run} for run in runs)
    evaluators = [[result.evaluator for result in run] for run in runs]
    if not any(own in evaluators[1] for own in evaluators[0]):
        x, y = ((own or [{}])[0] for own in evaluators)
        names = [name for name in {**x, **y} if x.get(name) != y.get(name)]
        why = "; ".join(f"{name}: {x.get(name)} and {y.get(name)}" for name in names) or "one has no cells"
        raise UsageError(f"{first} and {second} were evaluated differently ({why}); their values cannot be compared")
    both, blank = {**a, **b}, {name: None for name in OWN if name not in kept}
    names = labels([msgspec.structs.replace(result.request, **blank) for result in both.values()], "nfe")
    return [pair(name, a.get(key), b.get(key)) for name, key in zip(names, both, strict=True)]


def identity(result: Result, kept: Sequence[str]) -> bytes:
    """The settings by which cells are matched: those in `kept`, and all that are not in `OWN`."""
    settings = {name: value for name, value in result.request.flat().items() if name not in OWN or name in kept}
    return msgspec.json.encode([settings, result.num, result.evaluator], order="sorted")


def pair(name: str, a: Result | None, b: Result | None) -> dict[str, Any]:
    """One line of the comparison; a result is None if its run does not have the cell."""
    one, (x, y) = a or b, (result.number if result else None for result in (a, b))
    assert one is not None
    found = {"sampler": name, "metric": one.evaluator["metric"], "images": one.num, "nfe": one.request.nfe}
    found |= {"seed": one.request.seed, "in_a": a is not None, "in_b": b is not None, "a": x, "b": y}
    found["difference"] = y - x if x is not None and y is not None else None
    found["ratio"] = y / x - 1 if x and y is not None else None
    return {**found, "same": a is not None and b is not None and a.key == b.key}
