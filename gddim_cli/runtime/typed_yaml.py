"""YAML, and plain data as typed structs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from gddim_cli.errors import DataError, GddimError, nearest

T = TypeVar("T")


def read_yaml(path: Path) -> Any:
    """A YAML file's content, with `yaml.safe_load`.

    Raises:
        DataError: the file is missing or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def typed(raw: Any, kind: type[T], source: object, error: type[GddimError] = DataError) -> T:
    """`raw` (plain dicts and lists) as the `msgspec.Struct` `kind`; `source` names it in messages.

    Raises:
        error: an unknown key (with the nearest known one), a missing key, or a value of the wrong type.
    """
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as problem:
        text = (
            str(problem).replace("Object ", "the mapping ", 1).replace("`object`, got `array`", "a mapping, got a list")
        )
        unknown = re.search(r"unknown field `(\w+)`", text)
        hint = f"; {nearest(unknown[1], kind.__struct_fields__)}" if unknown else ""  # type: ignore[attr-defined]
        raise error(f"{source}: {text}{hint}") from problem
