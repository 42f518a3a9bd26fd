"""The numbers in the paper's tables. They are printed with cells that have the paper's settings."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

from gddim_cli.bench.cell import Cell
from gddim_cli.diffusions.parameters import parameters_of
from gddim_cli.errors import UsageError
from gddim_cli.evaluation.protocols import PROTOCOLS
from gddim_cli.hub.store import card_of
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.typed_yaml import read_yaml

PROTOCOL = "gddim-paper"
CLD = "cld-cifar10"
CHECKPOINTS = {"table1": CLD, "table2": CLD, "ddpm": "vp-cifar10", "bdm": "bdm-cifar10", "cld": CLD}
Number = float | str
"""A number as it is printed in the paper. It is a string if it is a bound, such as `>100`."""


@cache
def tables() -> dict[str, Any]:
    """The tables by name, each with its axis and its rows."""
    return read_yaml(Path(__file__).parent / "published.yaml")["gddim_paper"]


def find_row(reference: str, where: str = "published") -> dict[str, Any]:
    """The settings of a row such as `table3.cld.em` and, as `fid`, its numbers; raises UsageError if there is no such row."""
    found: Any = tables()
    for name in reference.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict) or "fid" not in found:
        raise UsageError(f"{where}: the paper's tables have no row '{reference}'; table1.R and table3.cld.em are rows")
    return found


def number(cell: Cell, request: SamplingRequest) -> Number | None:
    """The published number of a cell, given its resolved request; None if the cell's settings are not the paper's."""
    names = (cell.published or "").split(".")
    checkpoint = next((CHECKPOINTS[name] for name in names if name in CHECKPOINTS), "")
    if not cell.published or (cell.protocol, cell.request.checkpoint) != (PROTOCOL, checkpoint):
        return None
    table, flat, expected = tables()[names[0]], request.flat(), own_settings(checkpoint) | find_row(cell.published)
    numbers, axis = expected.pop("fid"), "lambda" if "lambda" in table else "nfe"
    differs = any((flat.get(name) or 0) != (value or 0) for name, value in expected.items())
    if differs or flat.get(axis) not in table[axis]:
        return None
    return numbers[table[axis].index(flat[axis])]


def own_settings(checkpoint: str) -> dict[str, Any]:
    """The default settings of a published checkpoint under the paper's protocol, by the keys of a request."""
    card = card_of(checkpoint)
    diffusion = card.make_diffusion()
    config = dataclasses.asdict(card.sampling.config(diffusion))
    config |= {"time_grid": config.pop("grid_power"), "quantize": PROTOCOLS[PROTOCOL].quantize, "corrector": False}
    return config | {"rtol": None, "atol": None, "diffusion": diffusion.name, "parameters": parameters_of(diffusion)}
