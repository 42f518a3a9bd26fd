"""The numbers of the paper's tables, which stand beside cells with the paper's settings."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.errors import UsageError
from gddim_cli.evaluation.protocols import PROTOCOLS
from gddim_cli.hub.store import card_of
from gddim_cli.runs.prepare import parameters_of
from gddim_cli.runtime.typed_yaml import read_yaml

if TYPE_CHECKING:
    from gddim_cli.bench.cell import Cell
    from gddim_cli.runs.request import SamplingRequest

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
"""As printed; `>100` is a text."""


@cache
def tables() -> dict[str, Any]:
    """The tables by name, each with its axis and its rows."""
    return read_yaml(FILE)["gddim_paper"]


def row(reference: str) -> dict[str, Any] | None:
    """The settings of a row such as `table3.cld.em` and, as `fid`, its numbers; None where there is no such row."""
    found: Any = tables()
    for name in reference.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) and "fid" in found else None


def require_row(reference: str, where: str) -> None:
    """Raises UsageError where there is no such row."""
    if row(reference) is None:
        raise UsageError(f"{where}: the paper's tables have no row '{reference}'; table1.R and table3.cld.em are rows")


def number(cell: Cell, request: SamplingRequest) -> Number | None:
    """The published number of a cell; None unless it has the paper's checkpoint, protocol and settings.

    Args:
        request: the cell's, resolved.
    """
    names = (cell.published or "").split(".")
    settings = row(cell.published or "")
    checkpoint = next((CHECKPOINTS[name] for name in names if name in CHECKPOINTS), None)
    if settings is None or checkpoint is None or (cell.protocol, cell.request.checkpoint) != (PROTOCOL, checkpoint):
        return None
    table, flat = tables()[names[0]], {"corrector": False, "rtol": None, "atol": None, **request.flat()}
    expected = {**own_settings(checkpoint), **settings}
    numbers, axis = expected.pop("fid"), "lambda" if "lambda" in table else "nfe"
    if any(flat.get(name) != value for name, value in expected.items()) or flat.get(axis) not in table[axis]:
        return None
    return numbers[table[axis].index(flat[axis])]


@cache
def own_settings(checkpoint: str) -> dict[str, Any]:
    """How a published checkpoint is sampled by default under the paper's protocol, by the keys of a request."""
    card = card_of(checkpoint)
    diffusion = card.make_diffusion()
    config = dataclasses.asdict(card.sampling.config(diffusion))
    config |= {"time_grid": config.pop("grid_power"), "quantize": PROTOCOLS[PROTOCOL].quantize}
    plain = {"corrector": False, "rtol": None, "atol": None}
    return {**config, **plain, "diffusion": diffusion.name, "parameters": parameters_of(diffusion)}
