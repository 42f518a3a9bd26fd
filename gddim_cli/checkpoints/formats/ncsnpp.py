"""NCSN++ checkpoints of the programs of gDDIM, CLD-SGM and Score-SDE.

The architecture is inferred from the tensors. The arguments that they do not determine come from options or a card.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from gddim_cli.checkpoints.formats.base import Contents, Conversion, Native, given_values
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.checkpoints.card import Card

Layout = Literal["flax", "torch"]
Shapes = dict[str, tuple[int, ...]]

FIR_CONV, PLAIN_CONV = "Conv2d_0", "Conv_0"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The arguments of NCSN++, named as in the configurations of its authors."""

    image_size: Annotated[int, about("Side of the images, in pixels.", ge=1, le=1024)] | None = None
    attn_resolutions: Annotated[list[int], about("Resolutions with attention, for example 16,8.")] | None = None
    fir: Annotated[bool, about("Resample with the FIR filter 1,3,3,1, not by averaging and repetition.")] | None = None
    nf: Annotated[int, about("Number of channels at the first level.", ge=4, le=4096)] | None = None
    ch_mult: Annotated[list[int], about("Channels of each level, as multiples of nf: 1,2,2,2.")] | None = None
    num_res_blocks: Annotated[int, about("Residual blocks per level.", ge=1, le=64)] | None = None
    progressive_input: (
        Annotated[
            Literal["residual", "none"], about("Whether each level also receives the downsampled input (residual).")
        ]
        | None
    ) = None
    embedding_type: (
        Annotated[Literal["fourier", "positional"], about("Embedding of the time or noise level.")] | None
    ) = None
    in_channels: Annotated[int, about("Number of input channels.", ge=1, le=64)] | None = None
    out_channels: Annotated[int, about("Number of output channels.", ge=1, le=64)] | None = None


@dataclass(frozen=True)
class Residual:
    """A residual block, as read off its tensors: its numbers of channels, and whether it changes the resolution."""

    width_in: int
    width_out: int
    resamples: bool


@dataclass(frozen=True)
class Inferred:
    """What the tensors determine about the architecture.

    Attributes:
        arguments: the network's arguments that the tensors determine.
        attention: the indices of the levels with attention (0: full resolution); None if several choices are possible.
    """

    arguments: dict[str, Any]
    attention: tuple[int, ...] | None


class Modules:
    """A file's tensors grouped by module. Modules of the same kind are in the order in which they are called."""

    def __init__(self, shapes: Shapes, layout: Layout, source: object) -> None:
        self.flax, self.source = layout == "flax", source
        separator = "/" if self.flax else "."
        groups: dict[str, Shapes] = {}
        for name, shape in shapes.items():
            module, _, rest = name.partition(separator)
            groups.setdefault(module, {})[rest.replace("/", ".")] = shape
        odd = [name for name in groups if not re.fullmatch(r"\w+_\d{1,6}" if self.flax else r"\d{1,6}", name)]
        if odd:
            raise CheckpointError(f"{source}: tensor {min(odd)[:60]} does not belong to an NCSN++ of this format")
        self.groups = dict(sorted(groups.items(), key=lambda item: int(item[0].rpartition("_")[2])))

    def having(self, *parts: str) -> list[tuple[str, Shapes]]:
        """The modules that have a tensor inside one of the submodules `parts`."""
        found = self.groups.items()
        return [(name, group) for name, group in found if any(key.rpartition(".")[0] in parts for key in group)]

    def plain(self, dims: int) -> list[tuple[str, Shapes]]:
        """The modules that consist of one layer whose kernel has `dims` axes."""
        return [
            (name, group)
            for name, group in self.groups.items()
            if any(key in ("weight", "kernel") and len(shape) == dims for key, shape in group.items())
        ]

    def widths(self, group: Shapes, part: str = "") -> tuple[int, int]:
        """The numbers of input and output channels of a convolution: the submodule `part`, or the module itself."""
        for leaf in ("weight", "kernel"):
            shape = group.get(f"{part}.{leaf}" if part else leaf)
            if shape is not None and len(shape) == 4:
                return (shape[2], shape[3]) if self.flax else (shape[1], shape[0])
        raise CheckpointError(f"{self.source}: a convolution {part} has no 4-axis kernel; not an NCSN++")


def infer(shapes: Shapes, layout: Layout, source: object) -> Inferred:
    """What these tensors determine about the architecture.

    Raises:
        CheckpointError: the tensors do not fit any NCSN++.
    """
    modules = Modules(shapes, layout, source)
    convolutions, blocks = modules.plain(4), modules.having("Conv_1")
    if len(convolutions) != 2 or not blocks:
        raise CheckpointError(
            f"{source}: {len(convolutions)} plain convolutions and {len(blocks)} residual blocks do not form an NCSN++"
        )
    in_channels, nf = modules.widths(convolutions[0][1])
    _, out_channels = modules.widths(convolutions[1][1])
    residuals = [residual(modules, group) for _, group in blocks]
    levels = 1 + sum(block.resamples for block in residuals) // 2
    number, odd = divmod(len(residuals) - 2 - 2 * (levels - 1) - levels, 2 * levels)
    widths = [residuals[level * (number + 1)].width_out for level in range(levels)] if number > 0 and not odd else []
    if not widths or any(width % nf for width in widths):
        raise CheckpointError(
            f"{source}: {len(residuals)} residual blocks of base width {nf} do not form an NCSN++ of {levels} levels"
        )
    pyramid = modules.having(FIR_CONV) or [item for item in modules.having(PLAIN_CONV) if len(item[1]) == 2]
    fourier = any("W" in group for group in modules.groups.values())
    arguments: dict[str, Any] = {
        "nf": nf,
        "ch_mult": [width // nf for width in widths],
        "num_res_blocks": number,
        "embedding_type": "fourier" if fourier else "positional",
        "progressive_input": "residual" if pyramid else "none",
        "in_channels": in_channels,
        "out_channels": out_channels,
    }
    if pyramid:
        arguments["fir"] = bool(modules.having(FIR_CONV))
    return Inferred(arguments, attention_levels(modules, blocks, number, widths))


def residual(modules: Modules, group: Shapes) -> Residual:
    """A residual block, as read off its tensors. It resamples if it has a skip convolution but keeps its width."""
    width_in, width_out = modules.widths(group, "Conv_0")
    has_skip = any(key.startswith("Conv_2.") for key in group)
    return Residual(width_in, width_out, has_skip and width_in == width_out)


def attention_levels(
    modules: Modules, blocks: list[tuple[str, Shapes]], number: int, widths: list[int]
) -> tuple[int, ...] | None:
    """The levels with attention; None if several choices fit.

    Such a level has `number` attention blocks on the downsampling path and one on the upsampling path. The middle of
    the network has one more.
    """
    levels = len(widths)
    attentions = modules.having("NIN_0")
    if not modules.flax:
        order = list(modules.groups)
        at = [order.index(name) for name, _ in blocks]
        down = levels * (number + 1) - 1
        before = [sum(place < order.index(name) for place in at) for name, _ in attentions]
        return tuple(sorted({(count - 1) // (number + 1) for count in before if count <= down}))
    # Flax numbers attention modules separately, so only their count and widths can tell where they are.
    found = [next((shape[0] for key, shape in group.items() if key == "NIN_0.b"), 0) for _, group in attentions]
    choices = [
        chosen
        for size in range(levels + 1)
        for chosen in itertools.combinations(range(levels), size)
        if found == attention_widths(chosen, number, widths)
    ]
    return choices[0] if len(choices) == 1 else None


def attention_widths(chosen: tuple[int, ...], number: int, widths: list[int]) -> list[int]:
    """The widths of all attention blocks in call order, if the levels `chosen` have attention."""
    down = [widths[level] for level in chosen for _ in range(number)]
    return [*down, widths[-1], *(widths[level] for level in reversed(chosen))]


def complete(
    inferred: Inferred, given: Mapping[str, Any], otherwise: Mapping[str, Any], say: Callable[[str], object]
) -> dict[str, Any]:
    """All arguments of the network. The tensors and the options give some of them; a card gives the rest.

    Args:
        inferred: the result of `infer`.
        given: the options by name.
        otherwise: the network of a card, from which missing arguments are taken.
        say: called with one sentence for each argument that was taken from the card.

    Raises:
        UsageError: an option contradicts the tensors, or a required option is missing.
    """
    for key, value in inferred.arguments.items():
        if key in given and given[key] != value:
            raise UsageError(f"--set {key}={given[key]} contradicts the tensors, which say {value}")
    arguments = {**inferred.arguments, **given}
    for key in ("image_size", "fir"):
        if key not in arguments:
            arguments[key] = otherwise[key]
            say(
                f"{key}={otherwise[key]} is assumed, because the tensors do not determine it; change it with --set {key}=..."
            )
    side = int(arguments["image_size"])
    if inferred.attention is not None:
        sides = [side >> level for level in inferred.attention]
        if "attn_resolutions" in given and sorted(given["attn_resolutions"]) != sorted(sides):
            raise UsageError(
                f"--set attn_resolutions={given['attn_resolutions']} contradicts the tensors, which have attention at "
                f"{sides} for image_size={side}"
            )
        arguments["attn_resolutions"] = sides
    elif "attn_resolutions" not in given:
        if side != otherwise["image_size"]:
            raise UsageError(
                "--set attn_resolutions=... is needed, because the tensors determine neither the resolutions with "
                "attention nor the image size"
            )
        arguments["attn_resolutions"] = list(otherwise["attn_resolutions"])
        say(f"attn_resolutions={arguments['attn_resolutions']} is assumed, because the tensors fit several choices")
    return arguments


def convert(contents: Contents, conversion: Conversion, layout: Layout, like: Card) -> Native:
    """The card and the native tensors of an NCSN++.

    Args:
        like: the card of the released model that the file holds, or of which the file holds a variant.

    Raises:
        CheckpointError: a tensor does not fit; the message names the first such tensor.
        UsageError: an option contradicts the tensors, or the arguments do not describe a valid network.
    """
    from gddim_cli.checkpoints.formats.ncsnpp_names import rename
    from gddim_cli.checkpoints.load import empty_network
    from gddim_cli.models.networks.ncsnpp import NCSNpp

    card, path = like, conversion.path
    if not conversion.exact:
        shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
        given = {name: value for name, value in given_values(conversion.options).items() if name in OPTION_NAMES}
        network = complete(infer(shapes, layout, path), given, like.network, conversion.say)
        network |= {key: like.network[key] for key in ("centered", "scale_by_sigma") if key in like.network}
        card = variant(like, network, conversion)
    try:
        empty = empty_network(card, path)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    assert isinstance(empty, NCSNpp)
    return card, rename(contents.tensors, empty, layout, path)


OPTION_NAMES = Options.__struct_fields__


def variant(card: Card, network: dict[str, Any], conversion: Conversion) -> Card:
    """A copy of a released model's card, with another network.

    Raises:
        UsageError: the network's channels are not those of gray or color images.
    """
    from gddim_cli.checkpoints.card import Images

    dimension = card.make_diffusion().D
    channels, rest = divmod(network["in_channels"], dimension)
    if rest or channels not in (1, 3):
        states = f"states of dimension {dimension} per pixel"
        raise UsageError(
            f"{conversion.path}: {network['in_channels']} input channels do not match: {card.name} has {states}, so {dimension} "
            f"(gray) or {3 * dimension} (color) are expected; choose another --card"
        )
    side, diffusion = int(network["image_size"]), dict(card.diffusion)
    if "image_size" in diffusion:
        diffusion["image_size"] = side
    return msgspec.structs.replace(
        card,
        name=conversion.name,
        title=f"{conversion.path.name}, a variant of {card.name}",
        images=Images(channels, side),
        network={"kind": "ncsnpp", **network},
        diffusion=diffusion,
        source=None,
        published={},
        parameters=None,
        license={},
    )
