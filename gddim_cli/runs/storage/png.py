"""`--format png`: one file per image."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import write_png
from gddim_cli.runs.storage.base import Storage, StorageFormat
from gddim_cli.runs.storage.manifest import Stored
from gddim_cli.runtime.files import sha256


class Png(Storage):
    """`000123.png` is image 123."""

    NAMES = re.compile(r"\d{6,}\.png")

    def files(self, num: int) -> list[Path]:
        # A user may keep other PNGs in the folder.
        names = (file.name for file in self.folder.iterdir() if self.NAMES.fullmatch(file.name))
        indices = sorted(int(name[:-4]) for name in names if name == png_name(int(name[:-4])))
        return [self.folder / png_name(index) for index in indices if index < num]

    def done(self, num: int) -> set[int]:
        return {int(file.stem) for file in self.files(num) if size(file)}

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        for index, image in zip(indices, pixels, strict=True):
            write_png(self.folder / png_name(index), image, make_folder=False)

    def read(self, indices: Iterable[int]) -> Pixels:
        return np.stack([read_png(self.folder / png_name(index)) for index in indices])

    def join(self, num: int) -> None:
        """Nothing to do: PNGs are in their final form."""

    def describe(self, num: int) -> list[Stored]:
        digest, total = hashlib.sha256(), 0
        for file in self.files(num):
            digest.update(f"{sha256(file)}  {file.name}\n".encode())
            total += size(file)
        return [Stored("[0-9]*.png", (0, num - 1), total, digest.hexdigest())]


SPEC = StorageFormat(name="png", summary="one PNG per image", storage=Png)


def size(file: Path) -> int:
    """Size in bytes; 0 for a file that has disappeared, or whose content was lost in a crash."""
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def png_name(index: int) -> str:
    return f"{index:06d}.png"


def read_png(path: Path) -> Pixels:
    """A PNG as [H, W, C]; raises DataError if it cannot be read."""
    return decode_png(path, path)


def decode_png(file: Path | BytesIO, source: Path) -> Pixels:
    """A PNG file or its bytes as [H, W, C]; `source` names it in messages.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}); remove it and rerun the same command") from error
    return pixels.reshape(*pixels.shape[:2], -1)
