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
    """The images of one run in its folder. Several processes may store different images at the same time.

    Attributes:
        folder: the run's folder.
    """

    folder: Path
    NAMES: ClassVar[re.Pattern[str]]
    """The pattern of the names of image files. The names of a user's own files may match it, too."""

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
        """Reads the images with these indices, [N, H, W, C].

        Raises:
            DataError: an image is missing or cannot be read.
        """

    @abstractmethod
    def damaged(self, num: int, manifest: Manifest | None) -> dict[Path, set[int]]:
        """The damaged files with images below `num`, each with the indices of its images.

        A file is damaged if it cannot be read completely, or differs from the manifest.
        """

    @abstractmethod
    def foreign(self, num: int, manifest: Manifest | None) -> list[Path]:
        """Files that the run did not write, but that are named like its files with images below `num`, sorted by name.

        If there is a manifest, undamaged files that it does not list are foreign. Pipes, broken links, and files that
        do not begin like files of this format are always foreign. Files of zeros, which a crash may leave, are not.
        """

    def discard(self, files: Iterable[Path]) -> None:
        """Removes damaged files. Their images can be made again, since each depends only on the seed and its index.

        Raises:
            OutputError: a file cannot be removed.
        """
        for file in files:
            remove(file)

    @abstractmethod
    def join(self, num: int) -> None:
        """Brings the files of a run into their final form, once all `num` images exist.

        Raises:
            DataError: an image is missing or cannot be read.
            OutputError: a file cannot be written.
        """

    @abstractmethod
    def describe(self, num: int) -> list[Stored]:
        """The final files with their checksums, for the manifest."""


def is_special(file: Path) -> bool:
    """Whether a path that exists is neither a file nor a folder: a pipe, a device, a socket or a broken link."""
    return not (file.is_file() or file.is_dir())


def stacked(images: Iterable[tuple[Path, Pixels]]) -> Pixels:
    """Stacks images [H, W, C] into one array [N, H, W, C].

    Args:
        images: pairs of a file and the image in it; error messages name the file.

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
        raise OutputError(
            f"{file}: a folder where this run has a file; move the folder away and rerun the same command"
        )
    with writing(file):
        file.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class StorageFormat(Spec):
    """One storage format, a value of `--format`.

    Attributes:
        summary: a short description of the files.
        storage: the class that reads and writes the files.
    """

    summary: str
    storage: type[Storage]
