"""Where named checkpoints are: cards and small weights ship with the package, downloaded weights are in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import msgspec
import platformdirs

from gddim_cli.checkpoints.card import Card, FileCard
from gddim_cli.errors import CheckpointError, DataError, nearest
from gddim_cli.runtime.files import replacing, sha256, writing
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.typed_yaml import read_yaml, typed

PACKAGE = Path(__file__).resolve().parent.parent
WEIGHTS = ".safetensors"
FILE_CARD = ".file.yaml"
RELEASED = "cld-cifar10"
BUNDLED = "mnist"


def bundled_folder() -> Path:
    """The folder of bundled files: `bundled/` in the installed package, `checkpoints/` at the top of a source tree."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent / "checkpoints"


def names() -> list[str]:
    """The names of the checkpoints in the catalogue."""
    return sorted(path.stem for path in bundled_folder().glob("*.yaml") if "." not in path.stem)


def card_of(name: str) -> Card:
    """The card of a named checkpoint.

    Raises:
        CheckpointError: the name is unknown (the message suggests the nearest), or the card is invalid.
    """
    if name not in names():
        raise CheckpointError(
            f"there is no checkpoint '{printable(name, 60)}'; {nearest(name, names())} (to use a file, give its path)"
        )
    path = bundled_folder() / f"{name}.yaml"
    return typed(read_yaml(path), Card, path, CheckpointError)


def file_names() -> list[str]:
    """The names of published files other than checkpoints: statistics and feature networks."""
    return sorted(path.name.removesuffix(FILE_CARD) for path in bundled_folder().glob(f"*{FILE_CARD}"))


def file_card_of(name: str) -> FileCard:
    """The card of a named published file.

    Raises:
        DataError: the name is unknown (the message suggests the nearest), or the card is invalid.
    """
    if name not in file_names():
        raise DataError(f"there is no file '{printable(name, 60)}'; {nearest(name, file_names())}")
    path = bundled_folder() / f"{name}{FILE_CARD}"
    return typed(read_yaml(path), FileCard, path)


def find_file(name: str) -> Path | None:
    """The path of a named published file in the cache; None if it has not been downloaded."""
    path = cache_folder() / "files" / file_card_of(name).source.file
    return path if path.is_file() else None


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first download of a name; later downloads must have the same sha256.

    Attributes:
        sha256: SHA-256 of the published file.
        size: the published file's size in bytes.
        source: where the published file came from: an address or a path.
        date: the date of the download.
        native_sha256: SHA-256 of the converted file; None for files that are not converted.
    """

    sha256: str
    size: int
    source: str
    date: str
    native_sha256: str | None = None


def record_path(name: str) -> Path:
    return cache_folder() / "records" / f"{name}.json"


def read_record(name: str) -> Record | None:
    """The record of a name's first download; None if there has been none.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = record_path(name)
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); remove this file to accept the next download whatever its sha256"
        ) from error


def write_record(name: str, record: Record) -> None:
    """Writes the record of a download.

    Raises:
        OutputError: the cache cannot be written.
    """
    with replacing(record_path(name)) as temporary:
        temporary.write_bytes(msgspec.json.encode(record) + b"\n")


def cache_folder() -> Path:
    """The cache folder of gddim: `GDDIM_HOME`, or by default the platform's cache folder for gddim."""
    home = os.environ.get("GDDIM_HOME")
    return Path(home) if home else Path(platformdirs.user_cache_dir("gddim"))


def cached_weights(name: str) -> Path:
    """The path of the converted weights of a named checkpoint, whether or not they have been downloaded."""
    return cache_folder() / "checkpoints" / f"{name}{WEIGHTS}"


def find_weights(name: str) -> Path | None:
    """The native file of a named checkpoint, bundled or in the cache; None if it is not on this machine."""
    places = (bundled_folder() / f"{name}{WEIGHTS}", cached_weights(name))
    return next((place for place in places if place.is_file()), None)


def default_name() -> tuple[str, str]:
    """The name of the default checkpoint, and the reason why it is the default.

    The default is the released CLD model if it has been downloaded, otherwise the bundled checkpoint.
    """
    if find_weights(RELEASED):
        return RELEASED, "the released CLD model, which has been downloaded"
    return BUNDLED, f"bundled; {RELEASED} has not been downloaded"


@contextmanager
def locked(name: str, say: Callable[[str], object]) -> Iterator[None]:
    """Holds a lock on a name. Other processes that need the same lock wait.

    Raises:
        OutputError: the cache cannot be written.
    """
    path = cache_folder() / "locks" / f"{name}.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"{name}: in use by another process; waiting for it to finish")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        return sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [(file.relative_to(path).as_posix(), sha256(file)) for file in inside]
    return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()
