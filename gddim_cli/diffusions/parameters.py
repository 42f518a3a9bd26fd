"""The parameters of diffusions: types that declare their ranges, checks of given values, and the current values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from gddim_cli.errors import UsageError, nearest
from gddim_cli.settings import brief, description

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion

LARGEST = 1e6
Positive = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
"""The type of a parameter above 0."""
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
"""The type of a parameter that may be 0."""
Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
"""The type of an image's side, in pixels."""

OF_THE_CLASS = ("name", "D", "T", "spectral", "sampling")
"""Attributes of a diffusion that are not parameters."""


def check_parameters(kind: type[Diffusion], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters of a diffusion class that is a dataclass, each converted to the type of its field.

    The range of a parameter is declared with its field, for example `nu: Positive = 4.01`. Strings that represent
    numbers are accepted, since many YAML readers return `1e-6` as a string.

    Raises:
        UsageError: a name is unknown (the message suggests the nearest one), or a value has the wrong type or is out of
            range.
    """
    hints = get_type_hints(kind, include_extras=True)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise UsageError(
                f"diffusion {kind.name} has no parameter '{brief(str(key))[1:-1]}'; "
                f"{nearest(str(key), known) if known else 'it takes no parameters'}"
            )
        checked[key] = _convert(value, hints[key], f"diffusion {kind.name}: {key}")
    return checked


def _convert(value: Any, hint: Any, where: str) -> Any:
    optional = get_origin(hint) in (Union, UnionType)
    kinds = [part for part in get_args(hint) if part is not NoneType] if optional else [hint]
    try:
        found = msgspec.convert(number(value), hint)
    except msgspec.ValidationError:
        found = math.nan
    if isinstance(found, float) and not math.isfinite(found):
        expected = " or ".join([*map(description, kinds), *(["null"] if optional else [])])
        raise UsageError(f"{where}: {brief(value)}: expected {expected}")
    return found


def number(value: Any) -> Any:
    """The number that a string represents; any other value unchanged."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def parameters_of(diffusion: Diffusion) -> dict[str, float | bool | str | None]:
    """The parameters of a diffusion by name.

    For a dataclass, these are its fields. For any other class, they are the public attributes of the object, of its class
    and of its base classes. Attributes of classes that gddim defines are left out. Only numbers, strings, booleans and
    None are included.
    """
    found: dict[str, Any] = {}
    if dataclasses.is_dataclass(diffusion):
        found = {field.name: getattr(diffusion, field.name) for field in dataclasses.fields(diffusion)}
    else:
        for kind in reversed(type(diffusion).__mro__):
            found.update(vars(kind) if not kind.__module__.startswith(("gddim_cli.", "abc", "builtins")) else {})
        found.update(vars(diffusion))
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("_")
        and name not in OF_THE_CLASS
        and (value is None or isinstance(value, (bool, int, float, str)))
    }


def described(diffusion: Diffusion) -> str:
    """The name of a diffusion and its parameters, in one line: `cld: beta_0=4.0, beta_1=0.0`."""
    values = ", ".join(f"{name}={value!r}" for name, value in parameters_of(diffusion).items())
    return f"{diffusion.name}: {values}" if values else f"{diffusion.name} (no parameters)"
