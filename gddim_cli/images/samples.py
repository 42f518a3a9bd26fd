"""The first images of a run, one PNG each, for sheets of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gddim_cli.images.decode import decode
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import write_png


@dataclass(frozen=True)
class FirstImages:
    """A folder of the images with indices below `count`."""

    folder: Path
    count: int

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / f"{index}.png"

    def missing(self) -> set[int]:
        """The indices of the images that are not there."""
        return {index for index in range(self.count) if not self.path(index).is_file()}

    def keep(self, indices: Iterable[int], pixels: Pixels) -> None:
        """Writes those of these images [N, H, W, C] that are missing.

        Raises:
            OutputError: one cannot be written.
        """
        missing = self.missing()
        for index, image in zip(indices, pixels, strict=True):
            if index in missing:
                write_png(self.path(index), image)

    def read(self) -> Pixels | None:
        """The images, [count, H, W, C]; None if one is missing, or if there are none.

        Raises:
            DataError: a damaged file.
        """
        if self.missing() or not self.count:
            return None
        paths = [self.path(index) for index in range(self.count)]
        return np.stack([decode(path.read_bytes(), str(path)) for path in paths])
