"""How an architecture is declared: its interface, and the arguments that a model card gives, with their ranges."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import msgspec
from torch import Tensor, nn

from gddim_cli.runtime.registry import Spec


@dataclass(frozen=True)
class Interface:
    """The input and the output of a network.

    Attributes:
        in_channels, out_channels: channels of the input states and of the prediction.
        image_size: side of the images.
        classes: number of class labels; 0 if the network takes none.
    """

    in_channels: int
    out_channels: int
    image_size: int
    classes: int = 0


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Spec):
    """An architecture.

    Attributes:
        title: a description for messages.
        arguments: a struct of the arguments of `build`, with their ranges; usually `arguments_of(build)`.
        build: builds the network from these keyword arguments; raises ValueError if they do not fit together. The
            network's `forward` takes states [N, in_channels, H, W] and a condition. The condition is the time or noise
            level, [N]; with class labels it is [N, 1 + classes], the level followed by the class as one-hot columns
            (all zero for no class).
        interface: returns the interface of a network from its arguments.
    """

    title: str = field(kw_only=False)
    arguments: type[msgspec.Struct] = field(kw_only=False)
    build: Callable[..., nn.Module] = field(kw_only=False)
    interface: Callable[[Any], Interface] = field(kw_only=False)


def arguments_of(build: type[nn.Module]) -> type[msgspec.Struct]:
    """The arguments of a network's constructor as a struct, with its annotations and defaults."""
    hints = get_type_hints(build.__init__, include_extras=True)
    parameters = inspect.signature(build).parameters.values()
    fields: list[Any] = [
        (p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], p.default) for p in parameters
    ]
    return msgspec.defstruct("Arguments", fields, frozen=True, forbid_unknown_fields=True)


def split_condition(condition: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Splits a condition into time or noise level, [N], and one-hot classes, [N, classes] (zeros if none)."""
    if condition.dim() == 1:
        return condition, condition.new_zeros(len(condition), classes)
    return condition[:, 0], condition[:, 1:]


def check_levels(side: int, levels: int, attention: Sequence[int]) -> None:
    """Checks that the image side can be halved at each level, and that every attention side is the side of a level.

    Raises:
        ValueError: the image side cannot be halved so often, or attention is set at a side that no level has.
    """
    unit = 2 ** (levels - 1)
    if side % unit:
        raise ValueError(f"image side {side} is not a multiple of 2**(levels - 1) = {unit}")
    sides = [side >> level for level in range(levels)]
    for at in attention:
        if at not in sides:
            raise ValueError(f"attention at side {at}, but the levels of this network have {sides}")
