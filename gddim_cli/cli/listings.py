"""`gddim samplers` and `gddim diffusions`: what there is."""

from __future__ import annotations

import dataclasses
import json as json_module
from typing import Any

from gddim_cli.cli import options
from gddim_cli.cli.progress import show_table, stdout


def samplers(json: options.Json = False) -> None:
    """List the samplers: order, evaluations a step, noise, what they suit, where they come from."""
    from gddim_cli.samplers.registry import METHODS, WORDS

    def row(method: Any) -> dict[str, str]:
        found = {
            field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.name != "build"
        }
        return {**found, "options": " ".join(f"--{WORDS.get(name, name)}" for name in method.options)}

    show([row(method) for method in METHODS.values()], json)


def diffusions(json: options.Json = False) -> None:
    """List the diffusions: numbers a pixel, parameters and their defaults, how they are sampled."""
    from gddim_cli.diffusions.registry import DIFFUSIONS

    def row(kind: Any) -> dict[str, Any]:
        parameters = {field.name: field.default for field in dataclasses.fields(kind)}
        defaults = dataclasses.asdict(kind.sampling)
        if json:
            return {"name": kind.name, "numbers": kind.D, "parameters": parameters, "sampling": defaults}
        listed = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
        )
        grid = f"t {defaults['t_start']:.4g} to {defaults['t_end']:g}, power {defaults['grid_power']:g}"
        extra = ", denoising step" if defaults["denoise"] else ""
        return {"name": kind.name, "numbers a pixel": kind.D, "parameters": listed, "sampling": grid + extra}

    show([row(kind) for kind in DIFFUSIONS.values()], json)


def show(rows: list[dict[str, Any]], json: bool) -> None:
    """Rows of one shape as a table, or as a JSON list, on stdout."""
    if json:
        with stdout() as out:
            out.write(json_module.dumps(rows, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table(*rows[0], show_lines=True)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    show_table(table)
