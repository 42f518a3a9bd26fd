"""The storage formats by name."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.runs.storage import npz, png, tar
from gddim_cli.runs.storage.base import Storage, StorageFormat
from gddim_cli.runtime.registry import Registry

FORMATS = Registry("storage format", StorageFormat, [png.SPEC, npz.SPEC, tar.SPEC])


def open_storage(folder: Path, format: str) -> Storage:
    """The images of `folder`, stored in `format`.

    Raises:
        UsageError: an unknown format.
    """
    return FORMATS.find(format, "--format").storage(folder)
