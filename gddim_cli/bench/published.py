"""The numbers of the paper's tables, beside which measured ones stand."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

from gddim_cli.evaluation.protocols import PROTOCOLS
from gddim_cli.hub.store import card_of
from gddim_cli.runs.prepare import identity
from gddim_cli.runtime.typed_yaml import read_yaml

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


def number(reference: str | None, cell: dict[str, Any], settings: dict[str, Any]) -> Number | None:
    """The published number of a cell, or None: only the paper's checkpoint under its protocol and settings has one.

    Args:
        reference: a row of a table, as `table1.R` or `table3.cld.em`.
        cell: a plan's words.
        settings: all that the cell's images depend on, as in its result.
    """
    if reference is None or not known(reference) or cell.get("protocol") != PROTOCOL:
        return None
    names = reference.split(".")
    checkpoint = next(CHECKPOINTS[name] for name in names if name in CHECKPOINTS)
    if cell.get("checkpoint") != checkpoint:
        return None
    table = tables()[names[0]]
    wanted = {**own_settings(checkpoint), **(row_of(names) or {})}
    numbers, axis = wanted.pop("fid"), "lambda" if "lambda" in table else "nfe"
    if any(settings.get(name) != value for name, value in wanted.items()):
        return None
    where = settings.get(axis)
    return numbers[table[axis].index(where)] if where in table[axis] else None


@cache
def own_settings(checkpoint: str) -> dict[str, Any]:
    """What a published checkpoint is sampled with where nothing is said, under the paper's protocol."""
    card = card_of(checkpoint)
    medium = card.make_diffusion()
    defaults = dataclasses.asdict(card.sampling.config(medium))
    plain = {"corrector": False, "rtol": None, "atol": None}
    return {**defaults, **plain, "quantize": PROTOCOLS[PROTOCOL].quantize, "diffusion": identity(medium, None)}


def row_of(names: list[str]) -> dict[str, Any] | None:
    """A row's settings and, as `fid`, its numbers; None where there is no such row."""
    row: Any = tables()
    for name in names:
        row = row.get(name) if isinstance(row, dict) else None
    return row if isinstance(row, dict) and "fid" in row else None


def known(reference: str) -> bool:
    """Whether there is such a row."""
    return row_of(reference.split(".")) is not None
