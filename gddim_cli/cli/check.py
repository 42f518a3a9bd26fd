"""`gddim check`: tests a diffusion's equations, its prior, one-step exactness and gDDIM's orders of convergence."""

from __future__ import annotations

import json as json_module
import math
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, say, show_table, stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gddim_cli.verification.checks import Result

EPILOG = """[bold]Examples[/bold]

gddim check cld

gddim check mine.py

gddim check mine.yaml --json"""


def check(
    diffusion: Annotated[
        str,
        typer.Argument(
            metavar="DIFFUSION",
            help="A name, a Python file with one subclass of Diffusion, or a YAML file with a name and parameters.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Test a diffusion: its equations, its prior, exactness in one step, the orders of convergence.

    The tests are numerical, in float64 and at many times; passing them is not a proof. The exit status is 1 if
    one fails.
    """
    from gddim_cli.diffusions.parameters import described
    from gddim_cli.diffusions.registry import find_diffusion
    from gddim_cli.verification.checks import checks_of, examine

    found = find_diffusion(diffusion)
    say(described(found) + (" (tested on 4x4 pixels, at three frequencies)" if found.spectral else ""))
    results = []
    with Progress(len(checks_of(found)), "checks") as progress:
        for result in examine(found):
            results.append(result)
            progress.advance(1, result.check)
    show(results, json)
    failed = sum(not result.passed for result in results)
    if failed:
        say(f"gddim: {failed} of {len(results)} checks failed")
        raise typer.Exit(1)


def show(results: Sequence[Result], json: bool) -> None:
    """Prints the results on stdout: as a JSON list, or as a table and a sentence for each failed check."""
    if json:
        rows = [
            {
                "check": result.check,
                "value": result.value if math.isfinite(result.value) else None,
                "bound": result.bound,
                "expected": result.expected,
                "passed": result.passed,
                "message": result.message,
            }
            for result in results
        ]
        with stdout() as out:
            out.write(json_module.dumps(rows, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table("check", "found", "expected", "")
    for result in results:
        verdict = "[green]ok[/green]" if result.passed else "[red]FAILED[/red]"
        table.add_row(result.check, f"{result.value:.3g}", result.expected, verdict)
    show_table(table)
    with stdout() as out:
        out.writelines(f"{result.check}: {result.message}\n" for result in results if not result.passed)


app = options.command(check, EPILOG)
