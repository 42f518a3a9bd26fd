"""A published training state to one native file: read, renamed, checked against a card, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.architecture import complete, infer
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.checkpoints.formats import flax_msgpack, torch_pickle
from gddim_cli.checkpoints.load import build
from gddim_cli.checkpoints.tensor_names import Layout, rename
from gddim_cli.errors import UsageError
from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.skip_init import SkipInit


@dataclass(frozen=True)
class Published:
    """How a published format is read.

    Attributes:
        read: the averaged weights under the file's names.
        layout: of those names and tensors.
        card: of the released model that files of this format are taken for.
    """

    read: Callable[[Path], dict[str, Tensor]]
    layout: Layout
    card: str


FORMATS = {
    "gddim-flax": Published(flax_msgpack.read, "flax", "cld-cifar10"),
    "cldsgm": Published(torch_pickle.read, "torch", "cldsgm-cifar10"),
    "score-sde": Published(torch_pickle.read, "torch", "vp-cifar10"),
}


def convert_release(path: Path, card: Card, out: Path) -> None:
    """The published file of a card to a native file; it must be exactly what the card says.

    Raises:
        CheckpointError: it is not, or is damaged.
        OutputError: `out` cannot be written.
    """
    assert card.source is not None
    published = FORMATS[card.source.format]
    write(published.read(path), published.layout, card, path, out)


def convert_other(
    path: Path, card: Card, format: str, given: Mapping[str, Any], out: Path, say: Callable[[str], None]
) -> Card:
    """A file of a published format and of any size to a native file.

    Args:
        card: of the model that it is like: diffusion, parameterization, and what neither tensors nor person tell.
        format: one of FORMATS.
        given: arguments of the network that the person sets.
        say: is told what was assumed.

    Returns:
        The new file's card.

    Raises:
        CheckpointError: damaged, or not an NCSN++ of that format.
        UsageError: `given` contradicts the tensors, or is not enough.
        OutputError: `out` cannot be written.
    """
    published = FORMATS[format]
    tensors = published.read(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    network = complete(infer(shapes, published.layout, path), given, card.network, say)
    card = card_like(card, network, path, out)
    write(tensors, published.layout, card, path, out)
    return card


def card_like(card: Card, network: dict[str, Any], path: Path, out: Path) -> Card:
    """The card of another network of the same kind, named after the file that it will be in.

    Raises:
        UsageError: its channels do not make whole images.
    """
    blocks = card.make_diffusion().D
    channels, rest = divmod(network["in_channels"], blocks)
    if rest or channels not in (1, 3):
        raise UsageError(
            f"{path}: {network['in_channels']} input channels are not grey or colour images with {blocks} "
            f"number{'s' * (blocks > 1)} a pixel, as {card.name} has; name another --card"
        )
    full = {"kind": "ncsnpp", **network}
    side = int(network["image_size"])
    diffusion = dict(card.diffusion)
    if "image_size" in diffusion:
        diffusion["image_size"] = side
    return msgspec.structs.replace(
        card,
        name=out.stem,
        title=f"{path.name}, in the format of {card.name}",
        images=Images(channels, side),
        network=full,
        diffusion=diffusion,
        source=None,
        published={},
        parameters=None,
        license={},
    )


def write(tensors: dict[str, Tensor], layout: Layout, card: Card, path: Path, out: Path) -> None:
    """Checks everything and writes the native file. Empties `tensors`.

    Raises:
        CheckpointError: the first tensor that does not fit.
        UsageError: arguments that make no network.
        OutputError: `out` cannot be written.
    """
    arguments = {key: value for key, value in card.network.items() if key != "kind"}
    try:
        with SkipInit():
            network = NCSNpp(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: no NCSN++ has {arguments}: {error}") from error
    ours = rename(tensors, network, layout, path)
    build(card, ours, path)
    native.write(out, card, ours)


def format_and_card(
    format: str | None, named: Card | None, find: Callable[[str], Card], path: Path
) -> tuple[str, Card]:
    """The format to read and the card of the model that the file is like.

    Raises:
        UsageError: neither, both that contradict, or a card of something that is not published in these formats.
        CheckpointError: the format's card is wrong.
    """
    if named is not None:
        own = named.source.format if named.source else "native"
        if own not in FORMATS:
            raise UsageError(f"--card {named.name}: not one of a published format; known formats: {', '.join(FORMATS)}")
        if format not in (None, own):
            raise UsageError(f"--format {format} contradicts --card {named.name}, whose files are {own}")
        return own, named
    if format is None:
        raise UsageError(f"{path}: say what it is: --card NAME, or --format {'|'.join(FORMATS)}")
    if format not in FORMATS:
        raise UsageError(f"--format: '{format}' is not one of {', '.join(FORMATS)}")
    return format, find(FORMATS[format].card)
