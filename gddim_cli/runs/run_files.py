"""The images of a folder of `gddim sample`, by its `run.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gddim_cli.errors import DataError
from gddim_cli.runs.folder import GRID, RUN
from gddim_cli.runs.storage.manifest import MANIFEST
from gddim_cli.runs.storage.registry import FORMATS, open_storage
from gddim_cli.runs.storage.shards import Shards
from gddim_cli.runtime.files import LOCK


class RunSettings(msgspec.Struct):
    """What is needed of a run's settings; of other versions of gddim too."""

    quantize: str


class RunRecord(msgspec.Struct):
    """What is needed of `run.json`."""

    format: str
    settings: RunSettings
    num: int
    complete: bool


@dataclass(frozen=True)
class RunFiles:
    """Files of the run's images 0 to `count` - 1, in order.

    Attributes:
        folder: the run's.
        format: "png", one file an image; "npz" or "tar", several in each.
        names: of the files.
        count: images to be read of them.
        ignored: files there that are not the run's.
        quantize: how the images were brought to 8 bits.
    """

    folder: Path
    format: str
    names: Sequence[str]
    count: int
    ignored: int
    quantize: str


def run_files(folder: Path, num: int | None) -> RunFiles:
    """The files of the run's images, or of its first `num`.

    Raises:
        DataError: `run.json` cannot be read or names another format; the images that are wanted are not all there.
    """
    try:
        run = msgspec.json.decode((folder / RUN).read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{folder / RUN}: cannot be read as that of a run ({error}); remove it to measure all images of the folder"
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
    whole = next((i for i, index in enumerate(indices) if i != index), len(indices))  # 0 to whole - 1 are there
    if num is not None and num > run.num:
        raise DataError(
            f"--num {num}: the run in {folder} has {run.num} images; gddim sample --num {num} makes the others"
        )
    if (num is None and not run.complete) or whole < (num or run.num):
        some = f", or measure the first ones alone: --num {whole}" if whole else ""
        raise DataError(
            f"{folder}: the run is not complete: {len(indices)} of {run.num} images are there; "
            f"run the same gddim sample command again{some}"
        )
    own = {file.name for file in files} | {RUN, GRID, MANIFEST, LOCK}
    ignored = sum(file.is_file() and file.name not in own for file in folder.rglob("*"))
    count = num or run.num
    names = [file.name for file in files]
    return RunFiles(folder, kind, names[:count] if kind == "png" else names, count, ignored, run.settings.quantize)
