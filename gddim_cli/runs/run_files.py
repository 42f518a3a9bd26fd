"""Finds the images of a run in a folder of `gddim sample`, with the help of `run.json` and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from gddim_cli.errors import DataError
from gddim_cli.runs.folder import GRID
from gddim_cli.runs.record import RUN
from gddim_cli.runs.storage.manifest import MANIFEST, read_manifest
from gddim_cli.runs.storage.registry import FORMATS, open_storage
from gddim_cli.runs.storage.shards import Shards
from gddim_cli.runtime.files import LOCK, read_plain
from gddim_cli.runtime.json_files import MOST_BYTES
from gddim_cli.runtime.text import reason

Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class RunSettings(msgspec.Struct):
    """The one setting of a run that is needed here. The others are ignored, so that other versions' `run.json` can be read."""

    quantize: str


class RunRecord(msgspec.Struct):
    """The part of `run.json` that is read here."""

    format: str
    settings: RunSettings
    num: Count
    complete: bool


@dataclass(frozen=True)
class RunFiles:
    """The files of a run's images 0 to `count` - 1, in order.

    Attributes:
        folder: the run's folder.
        format: "png" (one file per image), "npz" or "tar" (many images per file).
        names: the names of the files.
        count: the number of images to read from them.
        ignored: the number of files in the folder that do not belong to the run.
        quantize: how the images were converted to uint8.
    """

    folder: Path
    format: str
    names: Sequence[str]
    count: int
    ignored: int
    quantize: str


def run_files(folder: Path, num: int | None) -> RunFiles:
    """The files of a run's images, or of its first `num` images, after checking them against the manifest.

    Raises:
        DataError: `run.json` cannot be read or names an unknown format; an image is missing, damaged, or not written by
            the run.
    """
    try:
        run = msgspec.json.decode(read_plain(folder / RUN, MOST_BYTES), type=RunRecord)
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(
            f"{folder / RUN}: not the record of a run ({reason(error)}); remove it to measure all images of the folder"
        ) from error
    kind = run.format
    if kind not in FORMATS:
        raise DataError(f"{folder / RUN}: its format is {kind}; {', '.join(FORMATS)} can be read")
    storage = open_storage(folder, kind)
    files = storage.files(run.num)
    if isinstance(storage, Shards):
        indices = [index for file in files for index in storage.index(file)]
    else:
        indices = sorted(storage.done(run.num))
    whole = next((i for i, index in enumerate(indices) if i != index), len(indices))  # Images 0 to whole - 1 exist.
    if num is not None and num > run.num:
        raise DataError(
            f"--num {num}: the run in {folder} has {run.num} images; gddim sample --num {num} makes the missing ones"
        )
    if (num is None and not run.complete) or whole < (num or run.num):
        some = f", or measure the first images only: --num {whole}" if whole else ""
        state = (
            f"{len(indices)} of {run.num} images are there"
            if whole < run.num
            else "it was interrupted after its last image"
        )
        raise DataError(f"{folder}: the run is not complete: {state}; rerun the same gddim sample command{some}")
    own = {file.name for file in files} | {RUN, GRID, MANIFEST, LOCK}
    ignored = sum(file.is_file() and file.name not in own for file in folder.rglob("*"))
    count, manifest = num or run.num, read_manifest(folder)
    if manifest and (manifest.images != run.num or not manifest.files):
        raise DataError(f"{folder / MANIFEST}: does not match {RUN}; remove it and rerun the same gddim sample command")
    damaged = sorted(file.name for file in storage.damaged(count, manifest))
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise DataError(
            f"{folder}: {damaged[0]}{more}: damaged, or not written by this run; rerun the same gddim sample command, "
            "which makes damaged images again"
        )
    names = [file.name for file in files]
    return RunFiles(folder, kind, names[:count] if kind == "png" else names, count, ignored, run.settings.quantize)
