"""How the images of a run lie in its folder: one class for each `--format`."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.runs.storage.base import Storage
from gddim_cli.runs.storage.npz import Npz
from gddim_cli.runs.storage.png import Png
from gddim_cli.runs.storage.tar import Tar

FORMATS: dict[str, type[Storage]] = {"png": Png, "npz": Npz, "tar": Tar}


def open_storage(folder: Path, format: str) -> Storage:
    """The images of `folder`, stored in `format`, one of `FORMATS`."""
    return FORMATS[format](folder)
