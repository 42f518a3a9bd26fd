"""`--format png`: one file per image."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode, png_is_whole
from gddim_cli.images.pictures import LARGEST_FILE
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import text_in, write_png
from gddim_cli.runs.storage.base import Storage, StorageFormat, stacked
from gddim_cli.runs.storage.manifest import Manifest, Stored
from gddim_cli.runtime.files import read_plain
from gddim_cli.runtime.text import reason


class Png(Storage):
    """`000123.png` is image 123."""

    NAMES = re.compile(r"\d{6,}\.png")

    def files(self, num: int) -> list[Path]:
        # The folder may also hold a user's own PNGs.
        names = (file.name for file in self.folder.iterdir() if self.NAMES.fullmatch(file.name))
        indices = sorted(int(name[:-4]) for name in names if name == png_name(int(name[:-4])))
        return [self.folder / png_name(index) for index in indices if index < num]

    def done(self, num: int) -> set[int]:
        return {int(file.stem) for file in self.files(num) if size(file)}

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        for index, image in zip(indices, pixels, strict=True):
            write_png(self.folder / png_name(index), image, make_folder=False, about=f"image {index}")

    def read(self, indices: Iterable[int]) -> Pixels:
        return stacked((self.folder / png_name(index), read_png(self.folder / png_name(index))) for index in indices)

    def damaged(self, num: int, manifest: Manifest | None) -> dict[Path, set[int]]:
        recorded = manifest.files[0].crc32 if manifest and manifest.files else ""
        found: dict[Path, set[int]] = {}
        for file in self.files(num):
            index = int(file.stem)
            content = read_content(file)
            if content is None:
                found[file] = {index}
                continue
            checksum = recorded[8 * index : 8 * index + 8]
            # A crash can leave an empty file; `done` already counts its image as missing.
            if content and not (f"{zlib.crc32(content):08x}" == checksum if checksum else is_sound(content, index)):
                found[file] = {index}
        return found

    def foreign(self, num: int, manifest: Manifest | None) -> list[Path]:
        listed = "".join(stored.crc32 for stored in manifest.files) if manifest else ""
        known = {listed[at : at + 8] for at in range(0, len(listed), 8)}

        def is_foreign(file: Path) -> bool:
            content = read_content(file)
            if content is None:
                return not file.is_dir()
            if not content.startswith(SIGNATURE):
                return bool(content.strip(b"\0"))
            return bool(known) and f"{zlib.crc32(content):08x}" not in known and png_is_whole(content)

        return [file for file in self.files(num) if is_foreign(file)]

    def join(self, num: int) -> None:
        """Does nothing: PNGs are written in their final form."""

    def describe(self, num: int) -> list[Stored]:
        digest, total, checksums = hashlib.sha256(), 0, []
        for file in self.files(num):
            content = file.read_bytes()
            digest.update(f"{hashlib.sha256(content).hexdigest()}  {file.name}\n".encode())
            checksums.append(f"{zlib.crc32(content):08x}")
            total += len(content)
        return [Stored("[0-9]*.png", (0, num - 1), total, digest.hexdigest(), "".join(checksums))]


END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SPEC = StorageFormat(name="png", summary="one PNG per image", storage=Png)


def read_content(file: Path) -> bytes | None:
    """The bytes of an image's file; None if it is not a plain file, cannot be read, or is too large for a picture."""
    with suppress(OSError):
        return read_plain(file, LARGEST_FILE)
    return None


def is_sound(content: bytes, index: int) -> bool:
    """Whether a PNG is undamaged, ends where it should, and does not say that it is another image of a run."""
    return png_is_whole(content) and content.endswith(END) and text_in(content) in (None, f"image {index}")


def size(file: Path) -> int:
    """Size in bytes; 0 for a file that has disappeared, is a circular link, or has lost its content in a crash."""
    with suppress(OSError):
        return file.stat().st_size
    return 0


def png_name(index: int) -> str:
    return f"{index:06d}.png"


def read_png(path: Path) -> Pixels:
    """A PNG as [H, W, C].

    Raises:
        DataError: the file cannot be read.
    """
    try:
        content = read_plain(path, LARGEST_FILE)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); remove it and rerun the same command") from error
    return decode(content, path)
