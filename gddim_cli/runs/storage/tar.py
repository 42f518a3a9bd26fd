"""`--format tar`: tar files of PNGs, which have names such as `000123.png`, as webdataset expects."""

from __future__ import annotations

import functools
import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode, png_is_whole
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import as_picture
from gddim_cli.runs.storage.base import StorageFormat
from gddim_cli.runs.storage.png import png_name
from gddim_cli.runs.storage.shards import Shards
from gddim_cli.runtime.archives import tar_members
from gddim_cli.runtime.files import refuse_special, replacing


class Tar(Shards):
    """Shards that any tar program reads. Times and owners are left out, so that equal images make equal files."""

    SUFFIX = ".tar"
    MAGIC = 257, b"ustar"
    NAMES = re.compile(r"images-\d{6,}-\d{6,}\.tar")

    def index(self, file: Path) -> list[int]:
        with reading(file) as archive:
            return [int(name.removesuffix(".png")) for name in archive.getnames()]

    def images(self, file: Path, indices: Sequence[int]) -> list[Pixels]:
        with reading(file) as archive:
            return [decode(member(archive, index), f"{file}: {png_name(index)}") for index in indices]

    def verify(self, file: Path) -> None:
        with reading(file) as archive:
            for name in archive.getnames():
                if not png_is_whole(member(archive, int(name.removesuffix(".png")))):
                    raise DataError(f"{file}: {name} is damaged; remove the file and rerun the same command")
        if file.stat().st_size % tarfile.RECORDSIZE:
            raise DataError(f"{file}: has bytes after its end; remove it and rerun the same command")

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        images = dict(zip(indices, pixels, strict=True))
        self._write(self.folder / self.name(indices), indices, lambda index: encode(images[index]))

    def merge(self, target: Path, indices: Sequence[int], parts: dict[int, Path]) -> None:
        @functools.lru_cache(maxsize=1)  # The indices are in order, so one part at a time in memory suffices.
        def load(part: Path) -> dict[int, bytes]:
            with reading(part) as archive:
                return {index: member(archive, index) for index in parts if parts[index] == part}

        self._write(target, indices, lambda index: load(parts[index])[index])

    def _write(self, path: Path, indices: Sequence[int], content: Callable[[int], bytes]) -> None:
        with (
            replacing(path, make_folder=False) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for index in indices:
                data, entry = content(index), tarfile.TarInfo(png_name(index))
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


SPEC = StorageFormat(name="tar", summary="shards of 10 000 images as .tar of PNGs", storage=Tar)


@contextmanager
def reading(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar file for reading.

    Raises:
        DataError: the file is not a tar file, is damaged or cut short, or lacks the requested member.
    """
    try:
        refuse_special(path)
        with tarfile.open(path, "r:") as archive:
            deque(tar_members(archive), maxlen=0)  # to the end, which tells whether the file is whole
            yield archive
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and rerun the same command") from error


def member(archive: tarfile.TarFile, index: int) -> bytes:
    """The bytes of an image's PNG."""
    file = archive.extractfile(png_name(index))
    return file.read() if file else b""


def encode(pixels: Pixels) -> bytes:
    """An image [H, W, C] as the bytes of a PNG."""
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
