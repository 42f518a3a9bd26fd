"""Two benchmarks, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.bench import labels
from gddim_cli.bench.folder import PLAN, RESULTS, Folder
from gddim_cli.bench.report import Results, results
from gddim_cli.bench.sheets import Shown
from gddim_cli.errors import DataError, UsageError

OWN = ("checkpoint", "dtype", "batch_size", "checkpoint_sha256")
"""What two runs that are compared may differ in, where neither has cells that differ in nothing else."""


class Pair(msgspec.Struct, kw_only=True):
    """A cell of both runs, or of one.

    Attributes:
        a, b: distances, or None where a run has not the cell or it has none there.
        ratio: `b / a - 1`.
        same: whether both are the same cell, checkpoint and all, so that they should be equal.
    """

    sampler: str
    metric: str
    images: int
    nfe: int
    seed: int
    in_a: bool
    in_b: bool
    a: float | None
    b: float | None
    difference: float | None
    ratio: float | None
    same: bool


def read(path: Path) -> Results:
    """The results of a folder, of a cut run too: what its plan has of cells, or else its `results.json`.

    Raises:
        DataError: there are none.
    """
    folder = Folder(path)
    if (path / PLAN).is_file():
        return results(folder.asked(), folder)
    found = folder.read(RESULTS, Results)
    if found is None:
        raise DataError(f"{path}: no {RESULTS} there; a folder of gddim bench that has run is needed")
    return found


def compare(first: Path, second: Path) -> list[Pair]:
    """All cells of both runs, matched by their settings, whatever their checkpoints are.

    Raises:
        DataError: a folder without results.
        UsageError: nothing that both were measured with, so that no two numbers can be compared.
    """
    runs = [read(path).cells for path in (first, second)]
    kept = [*dict.fromkeys(name for cells in runs for name in _telling(cells))]
    a, b = (_by_identity(cells, kept) for cells in runs)
    judges = [
        {msgspec.json.encode(cell.result.judge, order="sorted"): cell.result.judge for cell in run.values()}
        for run in (a, b)
    ]
    if not judges[0].keys() & judges[1].keys():
        raise UsageError(
            f"{first} and {second} were judged differently ({_difference(*judges)}); their numbers do not compare"
        )
    together = list({**a, **b}.values())
    blank = dict.fromkeys(name for name in OWN if name not in kept)
    settings = [{**cell.result.settings, **blank} for cell in together]
    return [
        _pair(name, a.get(key), b.get(key))
        for name, key in zip(labels.labels(settings, "NFE"), {**a, **b}, strict=True)
    ]


def _identity(cell: Shown, kept: Sequence[str]) -> bytes:
    """What a cell must share with its counterpart: all but what is the run's own and not `kept`."""
    settings = {name: value for name, value in cell.result.settings.items() if name not in OWN or name in kept}
    return msgspec.json.encode([settings, cell.result.num, cell.result.judge], order="sorted")


def _by_identity(cells: Sequence[Shown], kept: Sequence[str]) -> dict[bytes, Shown]:
    """Each cell once, by that."""
    return {_identity(cell, kept): cell for cell in cells}


def _telling(cells: Sequence[Shown]) -> list[str]:
    """Of the run's own settings those without which cells of one run would be taken for each other."""
    kept: list[str] = []
    for name in OWN:
        values: dict[bytes, set[str]] = {}
        for cell in cells:
            values.setdefault(_identity(cell, kept), set()).add(repr(cell.result.settings.get(name)))
        if any(len(found) > 1 for found in values.values()):
            kept.append(name)
    return kept


def _difference(first: dict[bytes, dict[str, Any]], second: dict[bytes, dict[str, Any]]) -> str:
    """The fields in which two judges differ."""
    a, b = next(iter(first.values()), {}), next(iter(second.values()), {})
    told = [
        f"{name}: {_short(a.get(name))} and {_short(b.get(name))}" for name in {**a, **b} if a.get(name) != b.get(name)
    ]
    return "; ".join(told) or "one has no cells"


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def _pair(name: str, a: Shown | None, b: Shown | None) -> Pair:
    one = a or b
    assert one is not None
    x, y = (cell.result.distance if cell else None for cell in (a, b))
    both = x is not None and y is not None
    return Pair(
        sampler=name,
        metric=one.result.judge["metric"],
        images=one.result.num,
        nfe=one.result.settings["nfe"],
        seed=one.result.settings["seed"],
        in_a=a is not None,
        in_b=b is not None,
        a=x,
        b=y,
        difference=y - x if both else None,  # type: ignore[operator]
        ratio=y / x - 1 if both and x else None,  # type: ignore[operator]
        same=a is not None and b is not None and a.key == b.key,
    )
