"""The interface of storage formats. Files are written atomically, so the folder itself shows which images exist."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gddim_cli.errors import DataError, OutputError
from gddim_cli.images.decode import describe
from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.storage.manifest import Manifest, Stored
from gddim_cli.runtime.files import writing
from gddim_cli.runtime.registry import Spec


@dataclass(frozen=True)
class Storage(ABC):
    """The images of one run in its folder. Several processes may store their own images at once.

    Attributes:
        folder: the run's folder.
    """

    folder: Path
    NAMES: ClassVar[re.Pattern[str]]
    """The pattern of the files' names. A user's own files may match it too."""

    @abstractmethod
    def files(self, num: int) -> list[Path]:
        """The run's files with images below `num`, sorted by name."""

    @abstractmethod
    def done(self, num: int) -> set[int]:
        """The indices below `num` whose images exist.

        Raises:
            DataError: a file cannot be read.
        """

    @abstractmethod
    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        """Writes images [B, H, W, C] atomically.

        Raises:
            OutputError: the images cannot be written, or the folder is gone.
        """

    @abstractmethod
    def read(self, indices: Iterable[int]) -> Pixels:
        """The images of these indices, [N, H, W, C], from the files.

        Raises:
            DataError: an image is missing or cannot be read.
        """

    @abstractmethod
    def damaged(self, num: int, manifest: Manifest | None) -> dict[Path, set[int]]:
        """The files of images below `num` that cannot be read completely or differ from the manifest, with their indices."""

    def discard(self, files: Iterable[Path]) -> None:
        """Removes damaged files, whose images are then made again: each depends on its seed and index only.

        Raises:
            OutputError: a file cannot be removed.
        """
        for file in files:
            remove(file)

    @abstractmethod
    def join(self, num: int) -> None:
        """Brings the files of a run with all `num` images to their final form.

        Raises:
            DataError: an image is missing or cannot be read.
            OutputError: a file cannot be written.
        """

    @abstractmethod
    def describe(self, num: int) -> list[Stored]:
        """The final files with their checksums, for the manifest."""


def stacked(images: Iterable[tuple[Path, Pixels]]) -> Pixels:
    """Images [H, W, C], each with the file that it is from, as one array [N, H, W, C].

    Raises:
        DataError: an image differs from the first one in size or kind.
    """
    files, pixels = zip(*images, strict=True)
    for file, image in zip(files, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise DataError(
                f"{file}: {describe(image.shape)}, but {files[0].name} is {describe(pixels[0].shape)}; remove the one "
                "that this run did not write and rerun the same command"
            )
    return np.stack(pixels)


def remove(file: Path) -> None:
    """Removes a file of a run, if it exists.

    Raises:
        OutputError: the file cannot be removed, or is a folder.
    """
    if file.is_dir() and not file.is_symlink():
        raise OutputError(f"{file}: a folder where this run has a file; move it away and rerun the same command")
    with writing(file):
        file.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class StorageFormat(Spec):
    """One storage format, a value of `--format`.

    Attributes:
        summary: a description of its files.
        storage: reads and writes them.
    """

    summary: str
    storage: type[Storage]
