"""Declares settings. Each is declared once, as a field of a `msgspec.Struct`, with type, range, help, flag and label.

    Order = Annotated[int, about("Number of past evaluations used besides the current one.", label="order {}", ge=0, le=3)]

    class GddimOptions(msgspec.Struct, frozen=True, kw_only=True):
        order: Order | None = None

The command line, benchmark plans, `run.json`, table labels and the Python interface all use this declaration.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union

import msgspec

from gddim_cli.errors import UsageError, nearest

S = TypeVar("S", bound=msgspec.Struct)
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}


@dataclass(frozen=True)
class About:
    """The metadata of a setting besides its type and range. `about` describes the fields."""

    panel: str
    label: str | None
    metavar: str | None
    flag: str | None
    short: str | None
    aliases: Mapping[str, Any]
    complete: Callable[[], Iterable[str]] | None
    most: int | None


def about(
    help: str,
    *,
    panel: str = "Sampler",
    label: str | None = None,
    metavar: str | None = None,
    flag: str | None = None,
    short: str | None = None,
    aliases: Mapping[str, Any] | None = None,
    complete: Callable[[], Iterable[str]] | None = None,
    most: int | None = None,
    **bounds: Any,
) -> msgspec.Meta:
    """The metadata of a setting, for `typing.Annotated`.

    Args:
        help: what the setting is, its unit, and its default.
        panel: the group in `--help`.
        label: format string for the value in table rows, for example `"order {}"`.
        metavar: the placeholder for the value in `--help`; by default derived from the type.
        flag: the option's name. Default: `--` and the setting's key; a boolean setting then also gets a `--no-` form.
        short: a one-letter option.
        aliases: maps each alternative spelling to the value that it stands for, such as `quadratic` to 2.0.
        complete: returns the values that shell completion offers.
        most: upper limit of a whole number. Unlike `le`, it may exceed 63 bits.
        bounds: `ge`, `gt`, `le`, `lt`, `pattern` and so on, as in `msgspec.Meta`.
    """
    told = About(panel, label, metavar, flag, short, aliases or {}, complete, most)
    return msgspec.Meta(description=help, extra={"about": told}, **bounds)


@dataclass(frozen=True)
class Setting:
    """One declared setting.

    Attributes:
        name: the attribute and Python keyword, for example `lam`.
        key: the name in plans, files and flags, for example `lambda`.
        type: the declared type, without `None`.
        default: the value used if none is given; None if the default depends on other settings.
        help, about: the declared help and metadata.
    """

    name: str
    key: str
    type: Any
    default: Any
    help: str
    about: About

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return self.about.flag or "--" + self.key.replace("_", "-")

    @property
    def is_flag(self) -> bool:
        """Whether the setting is boolean."""
        return bare(self.type) is bool

    @property
    def is_texts(self) -> bool:
        """Whether the setting's value is a list of strings."""
        return bool(bare(self.type) == list[str])

    @property
    def metavar(self) -> str:
        """The placeholder for the setting's value in `--help`."""
        return self.about.metavar or short_description(self.type)

    def check(self, value: Any, where: str) -> Any:
        """Validates a value and returns it, converted to the declared type.

        Args:
            where: where the value was given, for error messages: an option such as `--nfe`, or a path in a plan such as
                `$.rows[2].nfe`.

        Raises:
            UsageError: the value has the wrong type or is outside the range.
        """
        if isinstance(value, str) and value in self.about.aliases:
            value = self.about.aliases[value]
        try:
            found = msgspec.convert(value, self.type, dec_hook=lambda kind, part: kind(part))
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            raise UsageError(f"{where}: {brief(value)}: expected {self.expected()}") from error
        too_large = self.about.most is not None and found > self.about.most
        if too_large or (isinstance(found, float) and not math.isfinite(found)):
            raise UsageError(f"{where}: {found}: expected {self.expected()}")
        return found

    def parse(self, text: str, where: str | None = None) -> Any:
        """Parses and validates a value from the command line.

        Raises:
            UsageError: the text is not a valid value of this setting.
        """
        value: Any = text
        kind = bare(self.type)
        if text not in self.about.aliases and {int, float} & {bare(part) for part in parts(self.type)}:
            value = number(text)
        elif kind is bool:
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif typing.get_origin(kind) is list:
            value = [number(part) for part in split(text.strip("[]"))]
        return self.check(value, where or self.flag)

    def expected(self) -> str:
        """A description of the accepted values."""
        limit = f" and at most {self.about.most}" if self.about.most else ""
        *first, last = [*self.about.aliases, *(description(part) + limit for part in parts(self.type))]
        return f"{', '.join(first)} or {last}" if first else last

    def labelled(self, value: Any) -> str:
        """The text that table rows show for a value."""
        if isinstance(value, bool):
            return (self.about.label or self.key) if value else f"no {self.about.label or self.key}"
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        return (self.about.label or f"{self.key} {{}}").format(shown[:12] if len(shown) == 64 else shown)


@cache
def declared(struct: type[msgspec.Struct]) -> dict[str, Setting]:
    """The settings of a struct by key, in order of declaration. Fields without `about` are internal and left out."""
    hints = typing.get_type_hints(struct, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(struct):
        kind = hints[field.name]
        if typing.get_origin(kind) in (Union, UnionType):
            (kind,) = [part for part in typing.get_args(kind) if part is not NoneType]
        for meta in getattr(kind, "__metadata__", ()):
            told = (meta.extra or {}).get("about") if isinstance(meta, msgspec.Meta) else None
            if told:
                default = None if field.default is msgspec.NODEFAULT else field.default
                found[field.encode_name] = Setting(
                    field.name, field.encode_name, kind, default, meta.description or "", told
                )
    return found


def build(struct: type[S], values: Mapping[str, Any], owner: str, where: Callable[[str], str] = str) -> S:
    """Builds a struct from values by key and validates each value. A value of None means "not given".

    Args:
        owner: the command or sampler that has these settings, for error messages.
        where: maps a key to the argument `where` of `Setting.check`.

    Raises:
        UsageError: an unknown key, or a value that `Setting.check` refuses.
    """
    known = declared(struct)
    for key in values:
        if key not in known:
            raise UsageError(
                f"{where(key)}: {owner} has no setting '{key}'; {nearest(key, known) if known else 'it takes no settings'}"
            )
    given = {known[key].name: known[key].check(value, where(key)) for key, value in values.items() if value is not None}
    return struct(**given)


def values(struct: msgspec.Struct) -> dict[str, Any]:
    """The values of a struct's declared settings, by key."""
    return {key: getattr(struct, setting.name) for key, setting in declared(type(struct)).items()}


def bare(kind: Any) -> Any:
    """A type without its annotations."""
    return typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def parts(kind: Any) -> Sequence[Any]:
    """The member types of a union, with their annotations; for any other type, a tuple of only that type."""
    union = typing.get_origin(bare(kind)) in (Union, UnionType)
    return typing.get_args(bare(kind)) if union else (kind,)


def number(text: str) -> Any:
    """The text as an int or float, or unchanged if it is not a number.

    YAML is not used, because it reads 010 as 8 and 1:30 as 90.
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def brief(value: object) -> str:
    """A value as quoted in messages, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}..."


def choices(kind: Any) -> list[str]:
    """The values of a `Literal` type; an empty list for other types."""
    plain = bare(kind)
    return [str(value) for value in typing.get_args(plain)] if typing.get_origin(plain) is Literal else []


def limits(kind: Any) -> dict[str, float]:
    """The numeric bounds of a type: `ge`, `gt`, `le`, `lt`."""
    found: dict[str, float] = {}
    for meta in getattr(kind, "__metadata__", ()):
        for name in ("ge", "gt", "le", "lt"):
            if getattr(meta, name, None) is not None:
                found[name] = getattr(meta, name)
    return found


def description(kind: Any) -> str:
    """The values of a type in words, such as `a whole number from 0 to 3`.

    If the type's `msgspec.Meta` has a description that is not the help of a setting, the result is that description.
    """
    plain, bounds = bare(kind), limits(kind)
    for meta in getattr(kind, "__metadata__", ()):
        if meta.description and not meta.extra:
            return str(meta.description)
    if choices(kind):
        return f"one of {', '.join(choices(kind))}"
    if typing.get_origin(plain) is list:
        return f"a list of values, each {description(typing.get_args(plain)[0])}"
    name = NAMES.get(plain, "another kind of value")
    if plain is str and any(getattr(meta, "min_length", None) for meta in getattr(kind, "__metadata__", ())):
        name = "a text that is not empty"
    shown = {key: f"{value:g}" if plain is float else str(value) for key, value in bounds.items()}
    if "ge" in shown and "le" in shown:
        return f"{name} from {shown['ge']} to {shown['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    parts = [f"{words[key]} {value}" for key, value in shown.items()]
    return " ".join([name, " and ".join(parts)]).strip().replace(" and of ", " and ")


def short_description(kind: Any) -> str:
    """The placeholder in `--help` for the values of a type, such as `R|L`, `0..3` or `N`."""
    plain, bounds = bare(kind), limits(kind)
    if choices(kind):
        return "|".join(choices(kind))
    if plain is int and "ge" in bounds and bounds.get("le", math.inf) <= 9:
        return f"{bounds['ge']:g}..{bounds['le']:g}"
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(plain, "VALUE")


def split(text: str) -> Sequence[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]
