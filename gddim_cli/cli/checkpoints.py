"""`gddim checkpoints`: lists the catalogue, prints a model card, or removes downloads."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import data_stream, say, show_table, stdout
from gddim_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from gddim_cli.hub.catalogue import Entry

WIDE = 120
"""Minimum terminal width, in columns, at which the title column is shown."""

EPILOG = """[bold]Examples[/bold]

gddim checkpoints

gddim checkpoints edm-cifar10-uncond-vp

gddim checkpoints remove vp-cifar10"""


def known_names() -> list[str]:
    """Everything in the catalogue, for shell completion."""
    from gddim_cli.hub.store import file_names, names

    return [*names(), *file_names()]


def checkpoints(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | FILE | remove NAME...]",
            help="Name or file to describe. With remove: names of the downloads to remove. Default: list all.",
            autocompletion=known_names,
        ),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="With remove: also remove the recorded sha256, so that the next download may have another sha256.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """List checkpoints and published files, print a model card, or remove downloads."""
    words = words or []
    if words[:1] == ["remove"]:
        remove(words[1:], forget)
        return
    if forget:
        raise UsageError("--forget requires: gddim checkpoints remove NAME")
    if len(words) > 1:
        raise UsageError(f"gddim checkpoints {' '.join(words)}: expected one NAME, or remove NAME...")
    if words:
        show(words[0], json)
    else:
        list_all(json)


def remove(names: list[str], forget: bool) -> None:
    """Removes downloads, after checking all names."""
    from gddim_cli.hub.download import card_with_source
    from gddim_cli.hub.download import remove as remove_one

    if not names:
        raise UsageError("gddim checkpoints remove: expected at least one NAME")
    for name in names:
        card_with_source(name)
    for name in names:
        freed = remove_one(name, forget, say)
        say(f"{name}: {freed / 1e6:.0f} MB freed" if freed else f"{name}: nothing to remove")


def show(name: str, json: bool) -> None:
    """Prints a card."""
    import yaml

    from gddim_cli.hub.catalogue import details

    found = details(name)
    with stdout() as out:
        if json:
            out.write(json_module.dumps(found) + "\n")
        else:
            out.write(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100))


def list_all(json: bool) -> None:
    """Prints the catalogue."""
    import msgspec

    from gddim_cli.hub.catalogue import entries

    found = entries()
    if json:
        with stdout() as out:
            out.write(json_module.dumps(msgspec.to_builtins(found)) + "\n")
        return
    from rich.console import Console

    out = data_stream()
    wide = not out.isatty() or Console(file=out).width >= WIDE
    show_table(checkpoint_table([entry for entry in found if entry.kind == "checkpoint"], wide))
    show_table(file_table([entry for entry in found if entry.kind != "checkpoint"], wide))
    say("print a card with: gddim checkpoints NAME")


def checkpoint_table(entries: list[Entry], wide: bool) -> Table:
    """The table of models. Names are never shortened; narrow tables have no titles."""
    table = plain_table(["checkpoint", "images", "classes", "size", "state", "FID"], wide)
    for entry in entries:
        fid = "-" if entry.fid is None else str(entry.fid)
        classes = str(entry.classes) if entry.classes else "-"
        row = [entry.name, entry.images, classes, megabytes(entry), entry.state, fid, entry.title]
        table.add_row(*row[: None if wide else -1])
    return table


def file_table(entries: list[Entry], wide: bool) -> Table:
    """The table of statistics and feature networks."""
    table = plain_table(["file", "kind", "size", "state"], wide)
    for entry in entries:
        row = [entry.name, entry.kind, megabytes(entry), entry.state, entry.title]
        table.add_row(*row[: None if wide else -1])
    return table


def plain_table(columns: list[str], wide: bool) -> Table:
    """An empty table. Its title column, present if `wide`, wraps long text; the other columns never wrap."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in ("size", "FID", "classes") else "left")
    if wide:
        table.add_column("title", overflow="fold")
    return table


def megabytes(entry: Entry) -> str:
    """The size of an entry in MB; `-` if unknown."""
    return "-" if entry.size is None else f"{entry.size / 1e6:.0f} MB"


app = options.command(checkpoints, EPILOG)
