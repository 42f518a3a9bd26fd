"""`gddim samplers` and `gddim diffusions`."""

from __future__ import annotations

import dataclasses
import json as json_module
from typing import Any

from gddim_cli.cli import options
from gddim_cli.cli.progress import show_table, stdout

SHOWN = ("name", "order", "evaluations", "noise", "supports", "source")


def samplers(json: options.Json = False) -> None:
    """List the samplers.

    For each sampler: order of convergence, evaluations per step, noise, supported diffusions, source and options.
    """
    from gddim_cli.samplers.registry import SAMPLERS
    from gddim_cli.settings import declared

    def row(spec: Any) -> dict[str, str]:
        flags = " ".join(setting.flag for setting in declared(spec.options).values())
        return {**{name: getattr(spec, name) for name in SHOWN}, "options": flags}

    show([row(spec) for spec in SAMPLERS.values()], json)


def diffusions(json: options.Json = False) -> None:
    """List the diffusions.

    For each diffusion: state dimension per pixel (D), parameters with defaults, and default sampling configuration.
    """
    from gddim_cli.diffusions.registry import DIFFUSIONS

    def row(kind: Any) -> dict[str, Any]:
        parameters = {field.name: field.default for field in dataclasses.fields(kind)}
        config = dataclasses.asdict(kind.sampling)
        if json:
            return {"name": kind.name, "dimension": kind.D, "parameters": parameters, "sampling": config}
        listed = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
        )
        grid = f"t {config['t_start']:.4g} to {config['t_end']:g}, power {config['grid_power']:g}"
        extra = ", denoising step" if config["denoise"] else ""
        return {"name": kind.name, "D": kind.D, "parameters": listed, "sampling": grid + extra}

    show([row(kind) for kind in DIFFUSIONS.values()], json)


def show(rows: list[dict[str, Any]], json: bool) -> None:
    """Prints rows with the same keys on stdout, as a table or as a JSON list."""
    if json:
        with stdout() as out:
            out.write(json_module.dumps(rows, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table(show_lines=True)
    for name in rows[0]:
        table.add_column(name, no_wrap=name == "name")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    show_table(table)


samplers_app = options.command(samplers)
diffusions_app = options.command(diffusions)
