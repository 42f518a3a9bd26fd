"""JSON files that hold typed structs and plain data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gddim_cli.errors import DataError
from gddim_cli.runtime.files import read_plain, replacing, seal_of
from gddim_cli.runtime.text import reason

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
MOST_BYTES = 1 << 28
"""The largest file that is read."""


def write_json(path: Path, value: Any) -> None:
    """Writes a value atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def short_hash(*parts: Any) -> str:
    """A hash of structs and plain data, used in file names and keys.

    Fields that are None are ignored, so that a new optional field of a struct does not change existing hashes.
    """
    plain = [msgspec.to_builtins(part) for part in parts]
    given = [{k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else part for part in plain]
    return hashlib.sha256(msgspec.json.encode(given, order="sorted")).hexdigest()[:16]


def sealed(record: S) -> S:
    """A copy of a struct with its field `checksum` set to the SHA-256 of the struct's JSON with an empty `checksum`.

    A wrong checksum means that the stored record was damaged or edited.
    """
    plain = msgspec.json.encode(msgspec.structs.replace(record, checksum=""))
    return msgspec.structs.replace(record, checksum=hashlib.sha256(plain).hexdigest())


class Seal(msgspec.Struct, frozen=True):
    """A value with its seal, in hexadecimal; see `files.seal_of`."""

    value: msgspec.Raw
    sha256: str


def write_sealed_json(path: Path, value: Any) -> None:
    """Writes a value atomically, with a checksum that `read_sealed_json` verifies.

    Raises:
        OutputError: the file cannot be written.
    """
    content = msgspec.json.encode(value)
    write_json(path, Seal(msgspec.Raw(content), seal_of(path, content).hex()))


def read_sealed_json(path: Path, kind: type[T]) -> T | None:
    """The value that `write_sealed_json` wrote; None if the file is missing, damaged, edited, or another file."""
    try:
        found = msgspec.json.decode(read_plain(path, MOST_BYTES), type=Seal)
        value = msgspec.json.decode(found.value, type=kind)
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.DecodeError):
        return None
    return value if found.sha256 == seal_of(path, msgspec.json.encode(value)).hex() else None


def read_json(path: Path, kind: type[T]) -> T | None:
    """The value in a file, or None if the file does not exist.

    Raises:
        DataError: the file cannot be read, or its content does not match `kind`.
    """
    try:
        return msgspec.json.decode(read_plain(path, MOST_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); remove it and run the same command again"
        ) from error
