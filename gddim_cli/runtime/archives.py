"""Refuses what zipfile and tarfile would accept: .zip members that may unpack to any size, and .tar files cut short."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator

from gddim_cli.errors import DataError
from gddim_cli.runtime.text import printable

PACKINGS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}
LONGEST_END = 16 << 20
"""The maximum number of zero bytes at the end of a .tar. tar programs zero-pad the last record, usually of 10 kB."""


def refuse_packed(members: Iterable[zipfile.ZipInfo], path: object) -> None:
    """Refuses members of a .zip that are neither stored nor deflated.

    Only for DEFLATE does zipfile limit how much one read unpacks. With bzip2 or LZMA, a few bytes can fill the memory.

    Args:
        members: the entries of the .zip that will be read.
        path: the name of the .zip, for messages.

    Raises:
        DataError: a member is compressed in another way.
    """
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            packing = PACKINGS.get(member.compress_type, f"method {member.compress_type}")
            raise DataError(
                f"{path}: {printable(member.filename)} is compressed with {packing}; "
                "only stored and deflated members are read; pack it again"
            )


def read_whole(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The content of a member. `ZipFile.read` would unpack all of its data, even if the .zip claims a small size."""
    with archive.open(member) as file:
        return file.read(member.file_size + 1)  # `read(0)` would not compare the checksum of an empty member


def tar_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a .tar, in their order.

    Raises:
        ValueError: the archive is damaged, or is cut short.
    """
    last, end = "its start", -1
    for member in archive:
        # A damaged length can lead back to an earlier member; the loop would then never end.
        if member.offset <= end or member.size < 0:
            raise ValueError(f"{printable(member.name)} is damaged")
        last, end = printable(member.name), member.offset
        yield member
    # tarfile mistakes a damaged or missing header for the end of the archive. Blocks of zeros mark the true end.
    file = archive.fileobj
    assert isinstance(file, io.BufferedIOBase)
    length = file.seek(0, io.SEEK_END) - archive.offset
    file.seek(archive.offset)
    if not tarfile.BLOCKSIZE <= length <= LONGEST_END or any(file.read(length)):
        raise ValueError(f"it is damaged or cut after {last}")
