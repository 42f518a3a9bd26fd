"""Images in picture files, in a folder (`folders.Folder`) or in an archive (`archives.Zip`, `archives.Tar`)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode, refuse_mixed
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.sources import ImageSource, Read
from gddim_cli.runtime.text import printable

Content = Callable[[int], bytes]
LARGEST_FILE = 256 << 20
"""The largest accepted size of a picture file, in bytes."""


@dataclass(frozen=True)
class Pictures(ABC):
    """Picture files, in the order of their names, folder by folder. They are read in place and never unpacked.

    Attributes:
        path: the folder or the archive.
        names: the names of the files in it.
        ignored: the number of files that were left out, because they have another suffix or are hidden.
    """

    path: Path
    names: Sequence[str]
    ignored: int

    @abstractmethod
    def opened(self) -> AbstractContextManager[Content]:
        """Opens the folder or archive; the returned function reads a file by its number, from any thread.

        Raises:
            DataError: the folder or archive cannot be opened, or the returned function cannot read a file.
        """


def refuse_large(size: int, name: object) -> None:
    """Raises DataError for a picture file of more than `LARGEST_FILE` bytes."""
    if size > LARGEST_FILE:
        raise DataError(
            f"{name}: {size} bytes, but a picture file may have at most {LARGEST_FILE}; remove it or shrink it"
        )


@dataclass(frozen=True)
class PictureSource(ImageSource):
    """The images of picture files."""

    pictures: Pictures

    @classmethod
    def of(cls, name: str, pictures: Pictures) -> PictureSource:
        """The images of `pictures`, which must all have the size and channels of the first one.

        Raises:
            DataError: the first picture cannot be read.
        """
        with pictures.opened() as content:
            shape = decode(content(0), f"{pictures.path}/{printable(pictures.names[0])}").shape
        return cls(name, len(pictures.names), shape, pictures, ignored=pictures.ignored)

    @property
    def _threads(self) -> int:
        height, width, _ = self.shape
        return 2 if height * width >= 64 * 64 else 1  # Pillow holds the GIL most of the time for small pictures

    @contextmanager
    def _opened(self) -> Iterator[Read]:
        pictures = self.pictures
        with pictures.opened() as content:

            def read(begin: int, end: int) -> Pixels:
                images = np.empty((end - begin, *self.shape), np.uint8)
                for image, row in zip(images, self.rows[begin:end], strict=True):
                    name = f"{pictures.path}/{printable(pictures.names[row])}"
                    found = decode(content(row), name)
                    refuse_mixed(found.shape, name, self.shape, printable(pictures.names[0]))
                    image[:] = found
                return images

            yield read

    def fingerprint(self) -> str:
        total = hashlib.sha256()
        with self.pictures.opened() as content:
            for row in self.rows[: self.count]:
                raw, label = content(row), self.pictures.names[row].encode("utf-8", "surrogateescape")
                total.update(b"%d %d %b" % (len(label), len(raw), label))
                total.update(raw)
        return total.hexdigest()
