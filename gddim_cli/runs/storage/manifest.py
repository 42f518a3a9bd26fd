"""`manifest.json`: what a finished run's folder holds, with checksums. It is there if and only if the run is complete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gddim_cli.errors import DataError
from gddim_cli.runtime.files import replacing, writing

MANIFEST = "manifest.json"


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shard, or all PNGs of a folder together.

    Attributes:
        name: of the file; of PNGs a pattern.
        images: the first index and the last one; every image between them is there, once.
        size: bytes, in all.
        sha256: of the file; of PNGs that of their list as `sha256sum` prints it, sorted by name.
    """

    name: str
    images: tuple[int, int]
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What `manifest.json` holds.

    Attributes:
        format: png, npz or tar.
        images: how many there are, of indices 0 to images - 1.
        files: where they are, in order.
    """

    gddim: str
    format: str
    images: int
    files: Sequence[Stored]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes it.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(folder / MANIFEST, make_folder=False) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(folder: Path) -> Manifest | None:
    """What the folder's manifest says; None where there is none: then the run is not complete.

    Raises:
        DataError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error


def remove_manifest(folder: Path) -> None:
    """Removes it, before what it tells of changes.

    Raises:
        OutputError: it cannot be removed.
    """
    with writing(folder / MANIFEST):
        (folder / MANIFEST).unlink(missing_ok=True)
