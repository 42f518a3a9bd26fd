"""How an architecture is declared: the arguments that a card gives, with their ranges, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from torch import Tensor, nn

from gddim_cli.runtime.registry import Spec

# Ranges that no published network comes near; what a file claims is checked against them before anything is allocated.
Side = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Channels = Annotated[int, msgspec.Meta(ge=1, le=64)]
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Count = Annotated[int, msgspec.Meta(ge=1, le=64)]
Multiples = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=32)]], msgspec.Meta(min_length=1, max_length=10)]
Sides = Annotated[list[Side], msgspec.Meta(max_length=10)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Classes = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Taps = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=64)]], msgspec.Meta(min_length=2, max_length=8)]


@dataclass(frozen=True)
class Interface:
    """What goes into a network and comes out.

    Attributes:
        in_channels, out_channels: of the states that go in and of the prediction.
        image_size: side of the images.
        classes: number of class labels; 0 where the network takes none.
    """

    in_channels: int
    out_channels: int
    image_size: int
    classes: int = 0


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Spec):
    """An architecture.

    Attributes:
        title: what it is, for messages.
        arguments: a `msgspec.Struct` of the arguments of `build`, with their ranges; UNSET ones are left out.
        build: the network of these keyword arguments; raises ValueError where they do not fit each other. Its `forward`
            takes states [N, in_channels, H, W] and a condition, [N] or, with class labels, [N, 1 + classes]: the time or
            noise level, then the class as one-hot columns (all zero: no class).
        interface: of these arguments.
    """

    title: str
    arguments: type[msgspec.Struct]
    build: Callable[..., nn.Module]
    interface: Callable[[Any], Interface]


def keywords(arguments: msgspec.Struct) -> dict[str, Any]:
    """The arguments that are set, by name."""
    values = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
    return {name: value for name, value in values.items() if value is not msgspec.UNSET}


def split_condition(condition: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The time or noise level [N], and the one-hot class columns [N, classes]."""
    if condition.dim() == 1:
        return condition, condition.new_zeros(len(condition), classes)
    return condition[:, 0], condition[:, 1:]


def check_levels(side: int, levels: int, attention: Sequence[int]) -> None:
    """Refuses an image that does not halve once per level, or attention at a side that no level has.

    Raises:
        ValueError: naming both.
    """
    unit = 2 ** (levels - 1)
    if side % unit:
        raise ValueError(f"image side {side} is not a multiple of 2**(levels - 1) = {unit}")
    sides = [side >> level for level in range(levels)]
    for at in attention:
        if at not in sides:
            raise ValueError(f"attention at side {at}, but the levels of this network have {sides}")
