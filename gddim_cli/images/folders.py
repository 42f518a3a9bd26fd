"""Picture files in a folder and its subfolders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.decode import SUFFIXES
from gddim_cli.images.pictures import Content, Pictures, refuse_large
from gddim_cli.runtime.text import printable

NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""The flag of `os.open` that opens a pipe without waiting for a writer; 0 if the system has no such flag."""


@dataclass(frozen=True)
class Folder(Pictures):
    """The picture files of a folder and its subfolders."""

    @classmethod
    def of(cls, path: Path) -> Folder:
        """The images below a folder.

        Raises:
            DataError: there are no images, or a folder cannot be read.
        """
        return cls(path, *find_images(path))

    @contextmanager
    def opened(self) -> Iterator[Content]:
        yield lambda i: read_file(f"{self.path}/{self.names[i]}")


def read_file(name: str) -> bytes:
    """The content of a picture file. Takes half the time of Path.read_bytes, which matters for 50 000 small files.

    Raises:
        DataError: the file cannot be read, is too large, or is not a plain file (a pipe or a device).
    """
    try:
        with FileIO(name, opener=lambda path, flags: os.open(path, flags | NO_WAIT)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{printable(name)}: not a plain file; remove it")
            refuse_large(status.st_size, printable(name))
            return file.read(status.st_size)
    except OSError as error:
        raise DataError(f"{printable(name)}: cannot be read: {error.strerror}") from error


def find_images(folder: Path) -> tuple[list[str], int]:
    """The paths of the images below `folder`, in a fixed order, and the number of other files.

    Hidden files, and files in hidden folders (whose names begin with a dot), are not images. Links are followed.

    Raises:
        DataError: a folder cannot be read, a folder is reached twice through a link, or there are no images.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{printable(error.filename)}: cannot be read: {error.strerror}") from error

    names: list[str] = []
    others, seen = 0, set()
    for here, _, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = Path(here).resolve()
        if real in seen:
            raise DataError(f"{printable(here)}: a link to a folder that has already been searched; remove the link")
        seen.add(real)
        below = Path(here).relative_to(folder).as_posix()
        found = [name if below == "." else f"{below}/{name}" for name in files]
        images = [name for name in found if is_image(name)]
        names += images
        others += len(found) - len(images)
    if not names:
        raise DataError(f"{folder}: {no_images(others)}")
    return sorted(names, key=in_order), others


def is_image(name: str) -> bool:
    """Whether a file counts as an image: a known suffix, and not hidden. Folders in `name` are separated by / or \\."""
    parts = name.replace("\\", "/").split("/")
    hidden = any(part.startswith(".") and part.strip(".") for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def in_order(name: str) -> list[str]:
    """A sort key that orders names folder by folder, as paths are ordered."""
    return name.split("/")


def no_images(others: int) -> str:
    """The end of the message for a folder or archive without images; `others` is the number of its other files."""
    files = {0: "", 1: " and 1 other file"}.get(others, f" and {others} other files")
    return f"holds no images ({', '.join(SUFFIXES)}){files}; give images, or make some with gddim sample"
