"""`gddim checkpoints`: lists the catalogue, shows a card, removes downloads."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import say
from gddim_cli.errors import UsageError

if TYPE_CHECKING:
    from gddim_cli.hub.catalogue import Entry

EPILOG = """[bold]Examples[/bold]

gddim checkpoints

gddim checkpoints cld-cifar10

gddim checkpoints remove vp-cifar10"""


def checkpoints(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | remove NAME...]", help="NAME prints one card; remove NAME... deletes downloaded files."
        ),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="With remove: also forget the recorded sha256, so that the next download is accepted with another one.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """List checkpoints and other published files, show a card, or remove downloads."""
    words = words or []
    if words[:1] == ["remove"]:
        remove(words[1:], forget)
        return
    if forget:
        raise UsageError("--forget goes with: gddim checkpoints remove NAME")
    if len(words) > 1:
        raise UsageError(f"gddim checkpoints {' '.join(words)}: one NAME, or remove NAME...")
    if words:
        show(words[0], json)
    else:
        list_all(json)


def remove(names: list[str], forget: bool) -> None:
    from gddim_cli.hub.download import card_with_source
    from gddim_cli.hub.download import remove as remove_one

    if not names:
        raise UsageError("gddim checkpoints remove: name what to remove")
    for name in names:
        card_with_source(name)
    for name in names:
        freed = remove_one(name, forget, say)
        say(f"{name}: {freed / 1e6:.0f} MB freed" if freed else f"{name}: nothing of it was there")


def show(name: str, json: bool) -> None:
    import yaml

    from gddim_cli.hub.catalogue import details

    told = details(name)
    if json:
        sys.stdout.write(json_module.dumps(told) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120))


def list_all(json: bool) -> None:
    import msgspec

    from gddim_cli.hub.catalogue import entries

    found = entries()
    if json:
        sys.stdout.write(json_module.dumps(msgspec.to_builtins(found)) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "diffusion", "parameters", "size", "state", "FID", "what it is")
    for entry in found:
        table.add_row(*row(entry))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def row(entry: Entry) -> tuple[str, ...]:
    numbers = "-" if entry.parameters is None else f"{entry.parameters / 1e6:.1f} M"
    size = "-" if entry.size is None else f"{entry.size / 1e6:.0f} MB"
    fid = "-" if entry.fid is None else f"{entry.fid}"
    return entry.name, entry.what, numbers, size, entry.state, fid, entry.title


app = options.command(checkpoints, EPILOG)
