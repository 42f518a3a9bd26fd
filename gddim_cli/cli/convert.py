"""`gddim convert`: converts a checkpoint of another program to a native file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import say
from gddim_cli.cli.shared_settings import FileSettings, ForceFile
from gddim_cli.settings import about

EPILOG = """[bold]Examples[/bold]

gddim convert edm-cifar10-32x32-uncond-vp.pkl mine.safetensors

gddim convert checkpoint_42.msgpack mine.safetensors --card cld-cifar10

gddim convert checkpoint.pth mine.safetensors --format score-sde --set fir=true --set image_size=64"""


def format_names() -> list[str]:
    """The formats, for shell completion."""
    from gddim_cli.checkpoints.formats.registry import FORMATS

    return list(FORMATS)


CARD = (
    "Released model from whose card the diffusion and the parameterization are taken. Use this for files of the formats "
    "gddim-flax, cldsgm and score-sde, which do not record these two. Default: a model of the same format."
)
FORMAT = "Format of the file. Default: recognized from the file."


class ConvertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `gddim convert`."""

    card: Annotated[str, about(CARD, panel="Model", metavar="NAME")] | None = None
    format: Annotated[str, about(FORMAT, panel="Model", metavar="NAME", complete=format_names)] | None = None
    set: FileSettings | None = None
    force: ForceFile = False


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint file or folder of another program.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Native file to write.")],
    asked: ConvertSettings,
) -> None:
    """Convert a checkpoint of another program to a native file for gddim sample.

    The command reads the architecture from the file, and uses the averaged weights if the file contains them. If a tensor
    of the file does not fit the architecture, the command fails and names the tensor. Nothing in the file is executed.
    """
    options.suffix("OUT", out, ".safetensors")

    from gddim_cli.checkpoints.convert import choose_format, convert_file
    from gddim_cli.checkpoints.formats.base import parse_settings
    from gddim_cli.hub.store import card_of
    from gddim_cli.runtime.files import refuse_foreign

    refuse_foreign("OUT", out, None, asked.force)
    like = card_of(asked.card) if asked.card else None
    spec = choose_format(asked.format, like, file)
    given = parse_settings(spec, asked.set or [])
    made = convert_file(file, out, spec, given, card_of, lambda text: say(f"{file}: {text}"), like)
    say(f"{out}: {made.title}; sample it with: gddim sample --checkpoint {out}")


app = options.command(options.with_settings(convert), EPILOG)
