"""How an architecture is declared: the arguments that a card gives, with their ranges, and its interface."""

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
        title: what it is, for messages.
        arguments: a struct of the arguments of `build`, with their ranges: `arguments_of(build)`.
        build: the network of these keyword arguments; raises ValueError if they do not fit each other. Its `forward`
            takes states [N, in_channels, H, W] and a condition, [N] or, with class labels, [N, 1 + classes]: the time or
            noise level, then the class as one-hot columns (all zero: no class).
        interface: the interface of a network with these arguments.
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
    """The time or noise level [N], and the one-hot class columns [N, classes]."""
    if condition.dim() == 1:
        return condition, condition.new_zeros(len(condition), classes)
    return condition[:, 0], condition[:, 1:]


def check_levels(side: int, levels: int, attention: Sequence[int]) -> None:
    """Refuses an image that does not halve once per level, or attention at a side that no level has.

    Raises:
        ValueError: the message names both.
    """
    unit = 2 ** (levels - 1)
    if side % unit:
        raise ValueError(f"image side {side} is not a multiple of 2**(levels - 1) = {unit}")
    sides = [side >> level for level in range(levels)]
    for at in attention:
        if at not in sides:
            raise ValueError(f"attention at side {at}, but the levels of this network have {sides}")
