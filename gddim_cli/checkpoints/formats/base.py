"""How a checkpoint format of another program is declared: recognised, read, and converted to a card and native tensors."""

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
        tensors: the weights to sample with (the averaged ones, if there are several), under the file's names.
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
        like: the card of the released model that the file is a variant of; None: the format's `convert` chooses.
        exact: the file must be the released model itself, and `like` is its card.
        find_card: the card of a catalogue name.
        say: called with each assumption, one sentence.
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
        title: what it is, for lists and messages.
        detect: whether a file or folder is of this format. Must be fast, executes nothing from the file, and answers
            False for a path that cannot be read.
        read: the contents of a file or folder; raises CheckpointError if it is damaged, hostile or incomplete.
        convert: a card and native tensors from the contents; raises CheckpointError if they are not such a model's, and
            UsageError if options contradict them or are missing.
        options: settings that the tensors do not determine, under the original program's names; declared with `settings.about`.
    """

    title: str = field(kw_only=False)
    detect: Callable[[Path], bool] = field(kw_only=False)
    read: Callable[[Path], Contents] = field(kw_only=False)
    convert: Callable[[Contents, Conversion], Native] = field(kw_only=False)
    options: type[msgspec.Struct] = NoOptions


def parse_settings(spec: FormatSpec, words: Sequence[str]) -> dict[str, Any]:
    """The values of `--set name=value ...`.

    Raises:
        UsageError: a text without `=`, or a value of the wrong type.
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
        where: how messages name a setting's place, with `{}` for its name.

    Raises:
        UsageError: an unknown name (the nearest is suggested), or a value of the wrong type or outside its range.
    """
    return build(spec.options, given, f"format {spec.name}", where.format)


def given_values(options: msgspec.Struct) -> dict[str, Any]:
    """The options that were given, by name."""
    kept = {name: getattr(options, name) for name in options.__struct_fields__}
    return {name: value for name, value in kept.items() if value is not None}
