"""`gddim convert`: a file of a published format, of any size, to a native one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import say

EPILOG = """[bold]Examples[/bold]

gddim convert checkpoint_42.msgpack mine.safetensors --card cld-cifar10

gddim convert checkpoint.pth mine.safetensors --format score-sde --set fir=true --set image_size=64"""


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As the authors' program wrote it.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The native file.")],
    card: Annotated[
        str | None, typer.Option(metavar="NAME", help="The released model that it is like: diffusion and prediction.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="gddim-flax|cldsgm|score-sde", help="Whose program wrote it.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An argument of the network that the tensors do not tell: image_size, attn_resolutions, fir, ...",
        ),
    ] = None,
) -> None:
    """Turn a training state of gDDIM's, CLD-SGM's or Score-SDE's program into a checkpoint for gddim sample.

    The averaged weights are taken; every tensor is used once, and the first that does not fit is named. The architecture
    is read off the tensors.
    """
    options.suffix("OUT", out, ".safetensors")

    from gddim_cli.checkpoints.architecture import parse
    from gddim_cli.checkpoints.convert import convert_other, format_and_card
    from gddim_cli.hub.store import card_of

    given = parse(set or [])
    kind, like = format_and_card(format, card_of(card) if card else None, card_of, file)
    made = convert_other(file, like, kind, given, out, lambda text: say(f"{file}: {text}"))
    say(f"{out}: {made.title}; sample it with: gddim sample --checkpoint {out}")


app = options.command(convert, EPILOG)
