"""`gddim convert`: a checkpoint of another program to a native file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import say

EPILOG = """[bold]Examples[/bold]

gddim convert edm-cifar10-32x32-uncond-vp.pkl mine.safetensors

gddim convert checkpoint_42.msgpack mine.safetensors --card cld-cifar10

gddim convert checkpoint.pth mine.safetensors --format score-sde --set fir=true --set image_size=64"""


def format_names() -> list[str]:
    """The formats, for shell completion."""
    from gddim_cli.checkpoints.formats.registry import FORMATS

    return list(FORMATS)


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint file or folder of another program.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Native file to write.")],
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Released model whose diffusion and parameterization the file shares. Default: none."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Format of the file. Default: recognised from the file.", autocompletion=format_names
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Value that the file does not record, under its name in the original program, such as image_size=64. May be "
            "given several times.",
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Convert a checkpoint of another program to a native file for gddim sample.

    Takes the averaged weights if the file has them. The architecture is read from the file. Every tensor must be used
    exactly once; the error names the first that does not fit. Nothing in the file is executed.
    """
    options.suffix("OUT", out, ".safetensors")

    from gddim_cli.checkpoints.convert import choose_format, convert_file
    from gddim_cli.checkpoints.formats.base import parse_settings
    from gddim_cli.hub.store import card_of
    from gddim_cli.runtime.files import refuse_foreign

    refuse_foreign("OUT", out, None, force)
    like = card_of(card) if card else None
    spec = choose_format(format, like, file)
    given = parse_settings(spec, set or [])
    made = convert_file(file, out, spec, given, card_of, lambda text: say(f"{file}: {text}"), like)
    say(f"{out}: {made.title}; sample it with: gddim sample --checkpoint {out}")


app = options.command(convert, EPILOG)
