"""Picture files in a .zip or a .tar."""

from __future__ import annotations

import struct
import tarfile
import threading
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.folders import in_order, is_image, no_images
from gddim_cli.images.pictures import Content, Pictures, refuse_large
from gddim_cli.runtime.archives import read_whole, refuse_packed, tar_members
from gddim_cli.runtime.text import printable


@dataclass(frozen=True)
class Zip(Pictures):
    """A .zip. `members[i]` is the entry called `names[i]`; two entries of a .zip may have the same name."""

    members: Sequence[zipfile.ZipInfo]

    @classmethod
    def of(cls, path: Path) -> Zip:
        """The images of a .zip.

        Raises:
            DataError: the file is not a .zip, is encrypted, is not deflated, or holds no images.
        """
        with named(path):
            archive = zipfile.ZipFile(path)
        with archive:
            files = [info for info in archive.infolist() if not info.filename.endswith("/")]
        members = [info for info in files if is_image(info.filename) and not info.filename.startswith("__MACOSX/")]
        ignored = len(files) - len(members)
        if not members:
            raise DataError(f"{path}: {no_images(ignored)}")
        for info in members:
            if info.flag_bits & 1:
                raise DataError(
                    f"{path}: {printable(info.filename)} is encrypted; unpack it and zip it without a password"
                )
            refuse_large(info.file_size, f"{path}: {printable(info.filename)}")
        refuse_packed(members, path)
        members.sort(key=lambda info: in_order(info.filename))
        return cls(path, [info.filename for info in members], ignored, members)

    @contextmanager
    def opened(self) -> Iterator[Content]:
        with named(self.path):
            archive = zipfile.ZipFile(self.path)

        def content(i: int) -> bytes:
            with named(f"{self.path}: {printable(self.names[i])}"):
                return read_whole(archive, self.members[i])

        with archive:
            yield content


@dataclass(frozen=True)
class Tar(Pictures):
    """A .tar without compression. `places` holds the offset and the length, in bytes, of each picture file."""

    places: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, path: Path) -> Tar:
        """The images of a .tar.

        Raises:
            DataError: the file is not a .tar, is damaged, holds links or sparse files in place of images, or holds no images.
        """
        found: list[tuple[str, tuple[int, int]]] = []
        ignored = 0
        with named(path), tarfile.open(path, "r:") as archive:
            length = path.stat().st_size
            for member in tar_members(archive):
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                if not is_image(name):
                    ignored += 1
                elif not member.isreg() or member.issparse():
                    raise DataError(
                        f"{path}: {printable(name)} is a link or not a plain file; make the archive with tar --dereference"
                    )
                elif member.offset_data + member.size > length:
                    raise DataError(f"{path}: {printable(name)} is truncated; make the archive again")
                else:
                    refuse_large(member.size, f"{path}: {printable(name)}")
                    found.append((name, (member.offset_data, member.size)))
        if not found:
            raise DataError(f"{path}: {no_images(ignored)}")
        found.sort(key=lambda file: in_order(file[0]))
        return cls(path, [name for name, _ in found], ignored, [place for _, place in found])

    @contextmanager
    def opened(self) -> Iterator[Content]:
        lock = threading.Lock()
        with named(self.path):
            file = FileIO(self.path)

        def content(i: int) -> bytes:
            offset, size = self.places[i]
            with lock, named(f"{self.path}: {printable(self.names[i])}"):
                file.seek(offset)
                return file.read(size)

        with file:
            yield content


@dataclass(frozen=True)
class TarShards(Pictures):
    """The shards of a run, one after another. `ends[i]` is the number of files in shards 0 to i together."""

    parts: Sequence[Tar]
    ends: Sequence[int]

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> TarShards:
        """The images of the shards with these names. Raises DataError for the same reasons as `Tar.of`."""
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
def named(what: object) -> Iterator[None]:
    """A context that turns errors of the archive modules into a DataError whose message begins with `what`.

    Raises:
        DataError: the archive is damaged, encrypted, unreadable, or compressed in an unknown way.
    """
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,  # includes the NotImplementedError of zipfile for an unknown compression
        OverflowError,
        IndexError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise DataError(f"{what}: cannot be read: {reason}; make the file again") from error
