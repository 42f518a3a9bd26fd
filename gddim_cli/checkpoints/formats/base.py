"""The spec of a checkpoint format of another program: functions that recognize, read and convert its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gddim_cli.errors import UsageError
from gddim_cli.runtime.registry import Spec
from gddim_cli.settings import build, declared

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.checkpoints.card import Card


class NoOptions(msgspec.Struct, frozen=True):
    """The options of a format whose files record everything."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        tensors: the weights to sample with, by their names in the file; the averaged weights, if the file has them.
        facts: what else the file records about the model, such as the arguments of its architecture.
    """

    tensors: dict[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """The inputs of a conversion besides the file's contents.

    Attributes:
        path: the file's path, for messages.
        name: the name of the new card.
        options: the format's options, as the user gave them.
        like: the card of the released model of which the file is a variant; if None, `FormatSpec.convert` chooses one.
        exact: whether the file must be the released model itself, whose card is `like`.
        find_card: returns the card with a given name in the catalogue.
        say: called with one sentence for each setting whose value is assumed.
    """

    path: Path
    name: str
    options: Any
    find_card: Callable[[str], Card]
    say: Callable[[str], object]
    like: Card | None = None
    exact: bool = False


Native = tuple["Card", "dict[str, Tensor]"]


@dataclass(frozen=True, kw_only=True)
class FormatSpec(Spec):
    """A checkpoint format.

    Attributes:
        title: a short description, for lists and messages.
        detect: tells whether a file or folder is of this format. Must be fast and must not execute anything from the
            file; may raise OSError if the path cannot be read.
        read: returns the contents of a file or folder. Raises CheckpointError if the file is damaged, hostile or
            incomplete.
        convert: makes a card and native tensors from the contents. Raises CheckpointError if the contents are not
            those of a model in this format, and UsageError if an option is missing or contradicts the contents.
        options: a struct of the settings that the tensors do not determine, named as in the original program and
            declared with `settings.about`.
    """

    title: str = field(kw_only=False)
    detect: Callable[[Path], bool] = field(kw_only=False)
    read: Callable[[Path], Contents] = field(kw_only=False)
    convert: Callable[[Contents, Conversion], Native] = field(kw_only=False)
    options: type[msgspec.Struct] = NoOptions


def parse_settings(spec: FormatSpec, words: Sequence[str]) -> dict[str, Any]:
    """The values that the user gave as `--set name=value ...`, by name.

    Raises:
        UsageError: an argument has no `=`, or a value has the wrong type.
    """
    known, found = declared(spec.options), {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            names = ", ".join(known) or "none"
            raise UsageError(f"--set {word}: expected name=value; settings of {spec.name}: {names}")
        found[key] = known[key].parse(text, f"--set {key}") if key in known else text
    return found


def build_options(spec: FormatSpec, given: Mapping[str, Any], where: str = "--set {}") -> Any:
    """The format's options, each value validated.

    Args:
        given: values by name.
        where: the beginning of error messages; `{}` stands for the name of the setting.

    Raises:
        UsageError: a name is unknown (the nearest is suggested), or a value has the wrong type or is outside its range.
    """
    return build(spec.options, given, f"format {spec.name}", where.format)


def given_values(options: msgspec.Struct) -> dict[str, Any]:
    """The options that the user gave, by name."""
    kept = {name: getattr(options, name) for name in options.__struct_fields__}
    return {name: value for name, value in kept.items() if value is not None}
