"""What the standard modules for .zip and .tar files let pass: members that unpack to any size, and archives cut short."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator

from gddim_cli.errors import DataError
from gddim_cli.runtime.text import printable

PACKINGS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}
LONGEST_END = 16 << 20
"""The most zeros that may end a .tar, in bytes. tar programs fill the last record, of 10 kB as a rule, with zeros."""


def refuse_packed(members: Iterable[zipfile.ZipInfo], path: object) -> None:
    """Refuses members of a .zip that are neither stored nor deflated.

    zipfile limits what a read unpacks for DEFLATE only; with bzip2 or LZMA a few bytes can fill the memory.

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
    """The content of a member. `ZipFile.read` would first unpack all of it, however little the directory claims."""
    with archive.open(member) as file:
        return file.read(member.file_size + 1)  # one more, so that the checksum of an empty member is compared too


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
    # tarfile takes a header that is damaged or missing for the end; the true end is marked by blocks of zeros.
    file = archive.fileobj
    assert isinstance(file, io.BufferedIOBase)
    length = file.seek(0, io.SEEK_END) - archive.offset
    file.seek(archive.offset)
    if not tarfile.BLOCKSIZE <= length <= LONGEST_END or any(file.read(length)):
        raise ValueError(f"it is damaged or cut after {last}")
