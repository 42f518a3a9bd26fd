"""The architecture of an NCSN++ as far as its tensors tell it, and the rest from the person or a card."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import yaml

from gddim_cli.checkpoints.tensor_names import FIR_CONV, PLAIN_CONV, Layout, Shapes
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.runtime.typed_yaml import typed


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `--set` takes: the arguments of NCSN++."""

    nf: int | None = None
    ch_mult: list[int] | None = None
    num_res_blocks: int | None = None
    attn_resolutions: list[int] | None = None
    image_size: int | None = None
    fir: bool | None = None
    progressive_input: Literal["residual", "none"] | None = None
    embedding_type: Literal["fourier", "positional"] | None = None
    in_channels: int | None = None
    out_channels: int | None = None


def parse(words: Sequence[str]) -> dict[str, Any]:
    """`--set key=value ...` as arguments; lists as `1,2,2,2` or `[1, 2, 2, 2]`.

    Raises:
        UsageError: no `=`, an unknown key, a value of the wrong type.
    """
    raw: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(
                f"--set {word}: write it as key=value; known keys: {', '.join(Arguments.__struct_fields__)}"
            )
        listed = key in ("ch_mult", "attn_resolutions") and not text.startswith("[")
        try:
            raw[key] = yaml.safe_load(f"[{text}]" if listed else text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {word}: the value cannot be read") from error
    return msgspec.to_builtins(typed(raw, Arguments, "--set", UsageError))


@dataclass(frozen=True)
class Residual:
    """Widths of a residual block as its tensors have them."""

    width_in: int
    width_out: int
    resamples: bool


@dataclass(frozen=True)
class Inferred:
    """What tensors tell.

    Attributes:
        arguments: of the network, those that are certain.
        attention: the levels with attention, counted from 0; None where the names leave several choices.
    """

    arguments: dict[str, Any]
    attention: tuple[int, ...] | None


class Modules:
    """A file's tensors grouped by the module that has them, in call order within each kind."""

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
        """The modules that have a tensor in one of these parts."""
        found = self.groups.items()
        return [(name, group) for name, group in found if any(key.rpartition(".")[0] in parts for key in group)]

    def plain(self, dims: int) -> list[tuple[str, Shapes]]:
        """The modules that are one layer with a kernel of that many axes."""
        return [
            (name, group)
            for name, group in self.groups.items()
            if any(key in ("weight", "kernel") and len(shape) == dims for key, shape in group.items())
        ]

    def widths(self, group: Shapes, part: str = "") -> tuple[int, int]:
        """Channels in and out of a convolution."""
        for leaf in ("weight", "kernel"):
            shape = group.get(f"{part}.{leaf}" if part else leaf)
            if shape is not None and len(shape) == 4:
                return (shape[2], shape[3]) if self.flax else (shape[1], shape[0])
        raise CheckpointError(f"{self.source}: a convolution {part} without its 4-axis kernel; not an NCSN++")


def infer(shapes: Shapes, layout: Layout, source: object) -> Inferred:
    """The architecture that these tensors can only have.

    Raises:
        CheckpointError: they are not those of an NCSN++.
    """
    modules = Modules(shapes, layout, source)
    convolutions, blocks = modules.plain(4), modules.having("Conv_1")
    if len(convolutions) != 2 or not blocks:
        raise CheckpointError(
            f"{source}: {len(convolutions)} plain convolutions and {len(blocks)} residual blocks are not an NCSN++"
        )
    in_channels, nf = modules.widths(convolutions[0][1])
    _, out_channels = modules.widths(convolutions[1][1])
    residuals = [residual(modules, group) for _, group in blocks]
    levels = 1 + sum(block.resamples for block in residuals) // 2
    number, odd = divmod(len(residuals) - 2 - 2 * (levels - 1) - levels, 2 * levels)
    widths = [residuals[level * (number + 1)].width_out for level in range(levels)] if number > 0 and not odd else []
    if not widths or any(width % nf for width in widths):
        raise CheckpointError(
            f"{source}: {len(residuals)} residual blocks of first width {nf} do not make {levels} levels of an NCSN++"
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
    """The block's widths. One that keeps its width and still has a skip convolution resamples."""
    width_in, width_out = modules.widths(group, "Conv_0")
    has_skip = any(key.startswith("Conv_2.") for key in group)
    return Residual(width_in, width_out, has_skip and width_in == width_out)


def attention_levels(
    modules: Modules, blocks: list[tuple[str, Shapes]], number: int, widths: list[int]
) -> tuple[int, ...] | None:
    """The levels with attention: each has `number` on the way down and one on the way up; one more is in the middle."""
    levels = len(widths)
    attentions = modules.having("NIN_0")
    if not modules.flax:
        order = list(modules.groups)
        at = [order.index(name) for name, _ in blocks]
        down = levels * (number + 1) - 1
        before = [sum(place < order.index(name) for place in at) for name, _ in attentions]
        return tuple(sorted({(count - 1) // (number + 1) for count in before if count <= down}))
    # Flax counts attentions by themselves: only their number and widths speak.
    found = [next((shape[0] for key, shape in group.items() if key == "NIN_0.b"), 0) for _, group in attentions]
    choices = [
        chosen
        for size in range(levels + 1)
        for chosen in itertools.combinations(range(levels), size)
        if found == attention_widths(chosen, number, widths)
    ]
    return choices[0] if len(choices) == 1 else None


def attention_widths(chosen: tuple[int, ...], number: int, widths: list[int]) -> list[int]:
    """The widths of all attentions in call order, if these levels have it."""
    down = [widths[level] for level in chosen for _ in range(number)]
    return [*down, widths[-1], *(widths[level] for level in reversed(chosen))]


def complete(
    told: Inferred, given: Mapping[str, Any], otherwise: Mapping[str, Any], say: Callable[[str], None]
) -> dict:
    """All arguments: what the tensors tell, what the person gives, and the rest from a card.

    Args:
        told: from `infer`.
        given: `--set`.
        otherwise: a card's network.
        say: is told of each that was taken from the card.

    Raises:
        UsageError: an argument that contradicts the tensors, or none for one that is needed.
    """
    for key, value in told.arguments.items():
        if key in given and given[key] != value:
            raise UsageError(f"--set {key}={given[key]} contradicts the tensors, which say {value}")
    arguments = {**told.arguments, **given}
    for key in ("image_size", "fir"):
        if key not in arguments:
            arguments[key] = otherwise[key]
            say(f"{key}={otherwise[key]} is assumed: the tensors do not tell; --set {key}=... says otherwise")
    side = int(arguments["image_size"])
    if told.attention is not None:
        sides = [side >> level for level in told.attention]
        if "attn_resolutions" in given and sorted(given["attn_resolutions"]) != sorted(sides):
            raise UsageError(
                f"--set attn_resolutions={given['attn_resolutions']} contradicts the tensors, which have attention at "
                f"{sides} for image_size={side}"
            )
        arguments["attn_resolutions"] = sides
    elif "attn_resolutions" not in given:
        if side != otherwise["image_size"]:
            raise UsageError("--set attn_resolutions=... is needed: the tensors tell neither it nor the image's size")
        arguments["attn_resolutions"] = list(otherwise["attn_resolutions"])
        say(f"attn_resolutions={arguments['attn_resolutions']} is assumed: the tensors leave several choices")
    return arguments
