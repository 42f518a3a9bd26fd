"""Converts a checkpoint of another program to one native file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card
from gddim_cli.checkpoints.formats.base import Conversion, FormatSpec, Native, build_options
from gddim_cli.checkpoints.formats.registry import FORMATS, recognize
from gddim_cli.checkpoints.load import build
from gddim_cli.errors import CheckpointError, UsageError, nearest
from gddim_cli.runtime.text import printable

IDENTITY = ("images", "parameterization", "labels", "network")
"""Card fields that must be equal for two cards to describe the same model."""


def convert_release(path: Path, card: Card, out: Path, find_card: Callable[[str], Card]) -> None:
    """Converts the published file of a card to a native file.

    The published file must be the model that the card describes (see `check_identity`).

    Args:
        find_card: returns the card with a given name in the catalogue.

    Raises:
        CheckpointError: the file does not match the card, or is damaged.
        OutputError: `out` cannot be written.
    """
    assert card.source is not None
    spec = find_format(card.source.format, f"card of {card.name}")
    options = build_options(spec, card.source.settings, f"card of {card.name}: {{}}")
    conversion = Conversion(path, card.name, options, find_card, lambda _: None, like=card, exact=True)
    made, tensors = card_and_tensors(spec, conversion)
    check_identity(made, card, path)
    # Network arguments that the card omits (such as dropout) are taken from the file.
    write(out, msgspec.structs.replace(card, network=made.network), tensors, path)


def card_and_tensors(spec: FormatSpec, conversion: Conversion) -> Native:
    """Reads `conversion.path`, a file in the format of `spec`, and returns its card and its tensors in native form.

    Raises:
        CheckpointError: the file is damaged, or `Card` refuses the values of its fields.
    """
    contents = spec.read(conversion.path)
    try:
        return spec.convert(contents, conversion)
    except ValueError as error:
        # Raised when `Card` validates its fields, which come from the file and the user's settings.
        raise CheckpointError(f"{conversion.path}: {printable(error, 300)}") from error


def check_identity(found: Card, expected: Card, path: Path) -> None:
    """Refuses a file whose card `found` differs from the card `expected` in a field of `IDENTITY`.

    Network arguments that `expected` omits may have any value.

    Raises:
        CheckpointError: the cards differ; the message names the first difference.
    """
    for key in IDENTITY:
        difference = different(
            msgspec.to_builtins(getattr(expected, key)), msgspec.to_builtins(getattr(found, key)), key
        )
        if difference:
            where, card_value, file_value = difference
            raise CheckpointError(
                f"{path}: {where} is {printable(file_value, 60)} in the file, but {printable(card_value, 60)} in the "
                f"card of {printable(expected.name)}; they are different models"
            )


def different(expected: Any, found: Any, where: str) -> tuple[str, Any, Any] | None:
    """The first place at which `found` differs from `expected`, with both values; None if they are equal."""
    if isinstance(expected, dict):
        inside = found if isinstance(found, dict) else {}
        pairs = ((key, value, inside.get(key)) for key, value in expected.items())
        return next((it for key, one, other in pairs if (it := different(one, other, f"{where}.{key}"))), None)
    return None if expected == found else (where, expected, found)


def convert_file(
    path: Path,
    out: Path,
    spec: FormatSpec,
    settings: Mapping[str, Any],
    find_card: Callable[[str], Card],
    say: Callable[[str], object],
    like: Card | None = None,
    name: str | None = None,
) -> Card:
    """Converts a file or folder of another program to a native file.

    Args:
        settings: options of the format, by name.
        find_card: returns the card with a given name in the catalogue.
        say: called with one sentence for each setting whose value is assumed.
        like: the card of the released model of which the file is a variant.
        name: the name in the new card; by default the stem of `out`.

    Returns:
        The card inside the native file.

    Raises:
        CheckpointError: the file is damaged, or not a model of this format.
        UsageError: an option contradicts the file, or a required option is missing.
        OutputError: `out` cannot be written.
    """
    options = build_options(spec, settings)
    conversion = Conversion(path, printable(name or out.stem, 100), options, find_card, say, like)
    card, tensors = card_and_tensors(spec, conversion)
    card = msgspec.structs.replace(card, title=printable(card.title))
    write(out, card, tensors, path)
    return card


def write(out: Path, card: Card, tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a native file, after checking that the tensors fit the card's network and are finite.

    Raises:
        CheckpointError: a tensor does not fit or is not finite; the message names the first such tensor.
        OutputError: `out` cannot be written.
    """
    build(card, tensors, path)
    for name, tensor in tensors.items():
        if not native.all_finite(tensor):
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity; the file is damaged, fetch it again")
    native.write(out, card, tensors)


def find_format(name: str, where: str) -> FormatSpec:
    """The format called `name`.

    Args:
        where: what the name was read from; begins the message.

    Raises:
        CheckpointError: there is no format of that name.
    """
    if name not in FORMATS:
        raise CheckpointError(f"{where}: there is no checkpoint format '{name}'; {nearest(name, FORMATS)}")
    return FORMATS[name]


def choose_format(name: str | None, like: Card | None, path: Path) -> FormatSpec:
    """The format in which to read a file: that of `like`, else `name`, else the format recognized from the file.

    Raises:
        UsageError: `name` is unknown or contradicts `like`, or the format of `like` cannot be converted.
        CheckpointError: the file is of no known format, or is native already.
    """
    if native.is_native(path):
        raise CheckpointError(f"{path}: is a native (safetensors) file already; use it as it is: --checkpoint {path}")
    if like is not None:
        own = like.source.format if like.source else "native"
        if own not in FORMATS:
            raise UsageError(
                f"--card {like.name}: its published file is not in a format that gddim converts; formats: "
                f"{', '.join(FORMATS)}"
            )
        if name not in (None, own):
            raise UsageError(f"--format {name} contradicts --card {like.name}, whose file is in the format {own}")
        return FORMATS[own]
    return recognize(path) if name is None else FORMATS.find(name, "--format")
