"""`gddim check`: is this diffusion what it says, and does gDDIM converge on it?"""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import say, show_table, stdout

EPILOG = """[bold]Examples[/bold]

gddim check cld

gddim check mine.py

gddim check mine.yaml --json"""


def check(
    diffusion: Annotated[
        str,
        typer.Argument(
            metavar="DIFFUSION", help="A name, a .py with one Diffusion class, or a .yaml with name and parameters."
        ),
    ],
    json: options.Json = False,
) -> None:
    """Prove a diffusion: its equations, exactness in one step, the order of convergence. Exit status 1 where one fails."""
    from gddim_cli.diffusions.registry import find_diffusion
    from gddim_cli.verification import examine

    found = find_diffusion(diffusion)
    say(f"{found!r}")
    results = examine(found)
    if json:
        rows = [{"check": r.what, "value": r.value, "bound": r.bound, "passed": r.passed} for r in results]
        with stdout() as out:
            out.write(json_module.dumps(rows, indent=2) + "\n")
    else:
        from rich.table import Table

        table = Table("check", "found", "wanted", "")
        for r in results:
            table.add_row(r.what, f"{r.value:.3g}", r.wanted, "[green]ok[/green]" if r.passed else "[red]FAILS[/red]")
        show_table(table)
    failed = sum(not r.passed for r in results)
    if failed:
        say(f"gddim: {failed} of {len(results)} checks fail")
        raise typer.Exit(1)


app = options.command(check, EPILOG)
