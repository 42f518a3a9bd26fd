"""The numbers of the paper's tables, beside which measured ones stand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from gddim_cli.files import read_yaml

FILE = Path(__file__).parent / "published.yaml"
PROTOCOL = "gddim-paper"
CHECKPOINTS = {
    "table1": "cld-cifar10",
    "table2": "cld-cifar10",
    "ddpm": "vp-cifar10",
    "bdm": "bdm-cifar10",
    "cld": "cld-cifar10",
}

Number = float | str
"""`>100` is kept as printed."""


@cache
def tables() -> dict[str, Any]:
    return read_yaml(FILE)["gddim_paper"]


def number(reference: str | None, cell: dict[str, Any]) -> Number | None:
    """The published number of a cell, or None: only the paper's checkpoint under the paper's protocol has one.

    Args:
        reference: a row of a table, as `table1.R` or `table3.cld.em`.
        cell: a plan's words.
    """
    if reference is None or cell.get("protocol") != PROTOCOL:
        return None
    names = reference.split(".")
    if cell["checkpoint"] not in {CHECKPOINTS.get(name) for name in names}:
        return None
    table = tables()[names[0]]
    row = table
    for name in names[1:]:
        row = row[name]
    axis = "lambda" if "lambda" in table else "nfe"
    where = cell.get(axis, 0.0)
    return row[table[axis].index(where)] if where in table[axis] else None


def known(reference: str) -> bool:
    """Whether there is such a row."""
    row: Any = tables()
    names = reference.split(".")
    for name in names:
        row = row.get(name) if isinstance(row, dict) else None
    return isinstance(row, list) and names[0].startswith("table") and names[-1] not in ("nfe", "lambda")
