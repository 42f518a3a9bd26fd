"""What every way of storing images does. A file that is there is whole, so what is done can be read off the folder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.storage.manifest import Stored


@dataclass(frozen=True)
class Storage(ABC):
    """The images of one run, in its folder. Several processes may store into it at once, each its own images.

    Attributes:
        folder: where they are.
    """

    folder: Path
    NAMES: ClassVar[re.Pattern[str]]
    """What the files' names look like; a person's own may look so too."""

    @abstractmethod
    def files(self, num: int) -> list[Path]:
        """The run's own files, of images below `num`, sorted by name."""

    @abstractmethod
    def done(self, num: int) -> set[int]:
        """Indices below `num` of the images that are there.

        Raises:
            DataError: a file cannot be read.
        """

    @abstractmethod
    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        """Writes images [B, H, W, C], each whole or not at all.

        Raises:
            OutputError: they cannot be written, or the folder is gone.
        """

    @abstractmethod
    def read(self, indices: Iterable[int]) -> Pixels:
        """The images of these indices, [N, H, W, C], from the files.

        Raises:
            DataError: one is missing or cannot be read.
        """

    @abstractmethod
    def join(self, num: int) -> None:
        """Brings the files of a run whose `num` images are all there to their final form.

        Raises:
            DataError: an image is missing or cannot be read.
            OutputError: a file cannot be written.
        """

    @abstractmethod
    def describe(self, num: int) -> list[Stored]:
        """The final files, with their checksums, for the manifest."""
