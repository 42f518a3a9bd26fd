"""Where picture files lie: a folder, a .zip or a .tar. They are read in place and never unpacked."""

from __future__ import annotations

import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.decode import find_images, in_order, is_image, no_images

Content = Callable[[int], bytes]


@dataclass(frozen=True)
class Pictures(ABC):
    """Picture files, in the order of their names, folder by folder.

    Attributes:
        path: the folder or the archive.
        names: of the files in it.
        ignored: how many files beside them were left out: other suffixes, hidden ones.
    """

    path: Path
    names: Sequence[str]
    ignored: int

    @abstractmethod
    def opened(self) -> AbstractContextManager[Content]:
        """Opens what holds the files; then each is read by its number, from any thread.

        Raises:
            DataError: it cannot be opened; by the function, a file cannot be read.
        """


@dataclass(frozen=True)
class Folder(Pictures):
    """A folder, searched through."""

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Raises a DataError where there are no images, or a folder cannot be read."""
        return cls(path, *find_images(path))

    @contextmanager
    def opened(self) -> Iterator[Content]:
        def content(i: int) -> bytes:
            name = f"{self.path}/{self.names[i]}"
            try:
                with FileIO(name) as file:  # half the time of Path.read_bytes, which tells on 50 000 small files
                    return file.readall()
            except OSError as error:
                raise DataError(f"{name}: cannot be read: {error.strerror}") from error

        yield content


@dataclass(frozen=True)
class Zip(Pictures):
    """A .zip; `members` beside `names`, since two of them may have one name."""

    members: Sequence[zipfile.ZipInfo]

    @classmethod
    def of(cls, path: Path) -> Zip:
        """Raises a DataError where it is no .zip, is encrypted, or there are no images."""
        with naming(path):
            archive = zipfile.ZipFile(path)
        with archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
        members = [info for info in files if is_image(info.filename) and not info.filename.startswith("__MACOSX/")]
        ignored = len(files) - len(members)
        if not members:
            raise DataError(f"{path}: {no_images(ignored)}")
        for info in members:
            if info.flag_bits & 1:
                raise DataError(f"{path}: {info.filename} is encrypted; unpack it and zip it without a password")
        members.sort(key=lambda info: in_order(info.filename))
        return cls(path, [info.filename for info in members], ignored, members)

    @contextmanager
    def opened(self) -> Iterator[Content]:
        with naming(self.path):
            archive = zipfile.ZipFile(self.path)

        def content(i: int) -> bytes:
            with naming(f"{self.path}: {self.names[i]}"):
                return archive.read(self.members[i])

        with archive:
            yield content


@dataclass(frozen=True)
class Tar(Pictures):
    """A .tar without compression; `places`: where each file begins in it and its length, in bytes."""

    places: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, path: Path) -> Tar:
        """Raises a DataError where it is no .tar, holds links for images, or there are no images."""
        found: list[tuple[str, tuple[int, int]]] = []
        ignored = 0
        with naming(path), tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                if not is_image(name):
                    ignored += 1
                elif not member.isreg() or member.issparse():
                    raise DataError(
                        f"{path}: {name} is a link or no plain file; make the archive with tar --dereference"
                    )
                else:
                    found.append((name, (member.offset_data, member.size)))
        if not found:
            raise DataError(f"{path}: {no_images(ignored)}")
        found.sort(key=lambda file: in_order(file[0]))
        return cls(path, [name for name, _ in found], ignored, [place for _, place in found])

    @contextmanager
    def opened(self) -> Iterator[Content]:
        lock = threading.Lock()
        with naming(self.path):
            file = FileIO(self.path)

        def content(i: int) -> bytes:
            offset, size = self.places[i]
            with lock, naming(f"{self.path}: {self.names[i]}"):
                file.seek(offset)
                return file.read(size)

        with file:
            yield content


@dataclass(frozen=True)
class Tars(Pictures):
    """The shards of a run, one after another; `ends`: how many files there are up to the end of each."""

    parts: Sequence[Tar]
    ends: Sequence[int]

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> Tars:
        """Raises a DataError as `Tar.of`."""
        parts = [Tar.of(folder / name) for name in names]
        ends = list(accumulate(len(part.names) for part in parts))
        return cls(folder, [name for part in parts for name in part.names], 0, parts, ends)

    @contextmanager
    def opened(self) -> Iterator[Content]:
        with ExitStack() as stack:
            contents = [stack.enter_context(part.opened()) for part in self.parts]

            def content(i: int) -> bytes:
                number = bisect_right(self.ends, i)
                return contents[number](i - (self.ends[number - 1] if number else 0))

            yield content


@contextmanager
def naming(what: object) -> Iterator[None]:
    """A DataError that names `what` in place of what the archive modules raise.

    Raises:
        DataError: damaged, encrypted or of an unknown compression, or it cannot be read.
    """
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,  # and NotImplementedError, which zipfile raises for a compression
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise DataError(f"{what}: cannot be read: {reason}; make the file again") from error
