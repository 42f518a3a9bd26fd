"""`--format npz`: each file has the arrays `images`, uint8 [N, H, W, C], and `index`, the images' indices [N]."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.storage.base import StorageFormat
from gddim_cli.runs.storage.shards import Shards
from gddim_cli.runtime.arrays import read_member
from gddim_cli.runtime.files import replacing


class Npz(Shards):
    """Shards that `numpy.load` reads."""

    SUFFIX = ".npz"
    MAGIC = 0, b"PK\x03\x04"
    NAMES = re.compile(r"images-\d{6,}-\d{6,}\.npz")

    def index(self, file: Path) -> list[int]:
        found = member(file, "index")
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise DataError(
                f"{file}: its index is {found.dtype}{list(found.shape)}, not a list of integers; "
                "remove the file and rerun the same command"
            )
        return [int(index) for index in found]

    def images(self, file: Path, indices: Sequence[int]) -> list[Pixels]:
        rows = {index: row for row, index in enumerate(self.index(file))}
        images = member(file, "images")
        return [images[rows[index]] for index in indices]

    def verify(self, file: Path) -> None:
        index, images = self.index(file), member(file, "images")
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size or images.shape[3] not in (1, 3):
            raise DataError(f"{file}: not a shard of a run; remove it and rerun the same command")
        if len(index) != len(images):
            raise DataError(
                f"{file}: {len(index)} indices for {len(images)} images; remove it and rerun the same command"
            )
        with file.open("rb") as content:
            content.seek(-22, os.SEEK_END)
            if content.read(4) != b"PK\x05\x06":
                raise DataError(f"{file}: has bytes after its end; remove it and rerun the same command")

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        self._write(self.folder / self.name(indices), indices, pixels)

    def _write(self, path: Path, indices: Sequence[int], pixels: Pixels) -> None:
        arrays: dict[str, NDArray] = {"images": pixels, "index": np.array(indices, dtype=np.int64)}
        with replacing(path, make_folder=False) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                # Like numpy.savez, but without a time stamp, so that equal images make equal files.
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def merge(self, target: Path, indices: Sequence[int], parts: dict[int, Path]) -> None:
        self._write(target, indices, self.collect(indices, parts))


SPEC = StorageFormat(name="npz", summary="shards of 10 000 images as .npz", storage=Npz)


def member(file: Path, name: str) -> NDArray:
    """One array of a shard.

    Raises:
        DataError: the file is damaged, or is not a shard.
    """
    try:
        # Shards are not compressed, so an array that claims to be larger than its file is damaged or a decompression bomb.
        return read_member(file, name, most=file.stat().st_size)
    except (OSError, DataError) as error:
        raise DataError(f"{error}; remove it and rerun the same command") from error
