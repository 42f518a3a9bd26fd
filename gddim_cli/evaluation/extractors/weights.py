"""Finds the weights of published networks and verifies them against their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.hub.store import file_card_of, find_file
from gddim_cli.runtime.files import sha256

FILES = {
    "legacy_tensorflow": "inception",
    "clean": "inception",
    "legacy_pytorch": "inception-pytorch",
    "dinov2": "dinov2",
}
"""The names under which `gddim download` fetches the weights of each mode."""


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Attributes:
        published: whether it is the published file.
    """

    path: Path
    sha256: str
    published: bool


def weights_of(name: str, file: Path | None = None) -> Weights:
    """The weights in `file`, or those that `gddim download` fetched, verified against their card.

    Raises:
        DataError: the file is missing, or has changed since its download.
    """
    path = weights_path(name, file)
    try:
        digest = sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    expected = pinned(name)
    if file is None and not digest.startswith(expected):
        raise DataError(
            f"{path}: sha256 {digest[:16]}... differs from {expected[:16]}... on its card; run gddim download {name} "
            "again"
        )
    return Weights(path, digest, file is None or bool(expected and digest.startswith(expected)))


def weights_path(name: str, file: Path | None) -> Path:
    """The path of the weights: `file`, or the file in the cache.

    Raises:
        DataError: the file is missing, or not a plain file.
    """
    path = file or find_file(name)
    if file and not file.is_file():
        raise DataError(f"--inception: {file}: {'not a plain file' if file.exists() else 'no such file'}")
    if path is None:
        raise DataError(
            f"the weights of {name} are not on this machine; get them with: gddim download {name} (without internet, "
            "download the file elsewhere and add --from FILE), or measure digits offline with --ref mnist"
        )
    return path


def pinned(name: str) -> str:
    """The sha256 of a published file, or its first digits, from the file's card; empty if the card states none."""
    return file_card_of(name).source.sha256 or ""
