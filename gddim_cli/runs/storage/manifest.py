"""`manifest.json` lists the files of a complete run, with checksums. Incomplete runs have no manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gddim_cli.errors import DataError
from gddim_cli.runtime.files import read_plain, replacing, writing
from gddim_cli.runtime.json_files import MOST_BYTES, json_bytes
from gddim_cli.runtime.text import reason

MANIFEST = "manifest.json"


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the manifest: a shard, or all PNGs of a folder together.

    Attributes:
        name: the file's name; a pattern for PNGs.
        images: the first and the last index; every image between them is in the file once.
        size: total bytes.
        sha256: SHA-256 of the file; for PNGs, of the text that `sha256sum` prints for all of them, sorted by name.
        crc32: for PNGs, the CRC-32 of every file in order, eight hexadecimal digits each. It shows which file is damaged.
    """

    name: str
    images: tuple[int, int]
    size: int
    sha256: str
    crc32: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """The content of `manifest.json`.

    Attributes:
        format: png, npz or tar.
        images: number of images; their indices are 0 to images - 1.
        files: the files, in order.
    """

    gddim: str
    format: str
    images: int
    files: Sequence[Stored]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest atomically.

    Raises:
        OutputError: the manifest cannot be written.
    """
    with replacing(folder / MANIFEST, make_folder=False) as temporary:
        temporary.write_bytes(json_bytes(manifest))


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None if there is none, which means that the run is not complete.

    Raises:
        DataError: the manifest cannot be read.
    """
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(read_plain(path, MOST_BYTES), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); remove it and rerun the same command") from error


def remove_manifest(folder: Path) -> None:
    """Removes the manifest. Call this before changing the files that the manifest describes.

    Raises:
        OutputError: the manifest cannot be removed.
    """
    with writing(folder / MANIFEST):
        (folder / MANIFEST).unlink(missing_ok=True)
