"""The first images of a run, kept for sheets of pictures. Each image is a PNG, and a second file holds its checksum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gddim_cli.images.decode import decode
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import write_png
from gddim_cli.runtime.files import read_plain, replacing, sha256


@dataclass(frozen=True)
class FirstImages:
    """A folder of the images with indices below `count`."""

    folder: Path
    count: int

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / f"{index}.png"

    def checksum(self, index: int) -> Path:
        """The file with an image's SHA-256. There is one such file per image, so that several processes can write."""
        return self.folder / f"{index}.sha256"

    def is_whole(self, index: int) -> bool:
        """Whether an image exists and matches the checksum that was written beside it."""
        path, beside = self.path(index), self.checksum(index)
        if not (path.is_file() and beside.is_file()):
            return False
        return read_plain(beside, 1000) == sha256(path).encode()

    def missing(self) -> set[int]:
        """The indices of the images that are missing or damaged."""
        return {index for index in range(self.count) if not self.is_whole(index)}

    def keep(self, indices: Iterable[int], pixels: Pixels) -> None:
        """Writes the images [N, H, W, C] with these indices, except those that are already there and whole.

        Raises:
            OutputError: a file cannot be written.
        """
        missing = self.missing()
        for index, image in zip(indices, pixels, strict=True):
            if index in missing:
                write_png(self.path(index), image)
                with replacing(self.checksum(index)) as temporary:
                    temporary.write_text(sha256(self.path(index)), encoding="ascii")

    def read(self) -> Pixels | None:
        """The images, [count, H, W, C]; None if an image is missing or `count` is 0.

        Raises:
            DataError: a file is damaged.
        """
        if self.missing() or not self.count:
            return None
        paths = [self.path(index) for index in range(self.count)]
        return np.stack([decode(path.read_bytes(), str(path)) for path in paths])
