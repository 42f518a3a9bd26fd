"""Arrays in .npy and .npz files. The size that a header claims is checked against the file's length before reading."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.runtime.archives import refuse_packed
from gddim_cli.runtime.files import refuse_special, replacing, seal_of
from gddim_cli.runtime.text import reason

Shape = tuple[int, ...]
Header = tuple[Shape, bool, np.dtype[Any]]
DEFLATE = 1032
"""Maximum compression ratio of DEFLATE: one compressed byte expands to at most this many bytes."""
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)
"""Exceptions that numpy and zipfile may raise for a damaged or malicious file."""


def read_array(path: Path, memory_map: bool = False) -> NDArray[Any]:
    """The array in an .npy file.

    Raises:
        DataError: the file is missing, shorter than its header says, not an .npy, or holds Python objects.
    """
    try:
        refuse_special(path)
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise DataError(f"{path}: is an .npz file; a single array in an .npy file is needed")
            file.seek(0)
            shape, _, dtype = read_header(file)
            check_length(shape, dtype, path.stat().st_size - file.tell())
        array: NDArray[Any] = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except DAMAGE as error:
        raise DataError(f"{path}: cannot be read as an .npy: {reason(error)}") from error
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an .npy file atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def write_sealed_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an .npy file atomically, followed by its seal, which `read_sealed_array` verifies.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, array)
        seal = seal_of(path, np.memmap(temporary, np.uint8, mode="r").data)
        with temporary.open("ab") as file:
            file.write(seal)


def read_sealed_array(path: Path) -> NDArray[Any] | None:
    """The array that `write_sealed_array` wrote, as a memory map; None if the file is missing, damaged, or another file."""
    try:
        array = read_array(path, memory_map=True)
    except DataError:
        return None
    content = np.memmap(path, np.uint8, mode="r").data
    return array if seal_of(path, content[:-32]) == content[-32:] else None


def read_archive(path: Path) -> dict[str, tuple[np.dtype[Any], Shape]]:
    """The names, dtypes and shapes of the arrays in an .npz file, read from their headers only.

    Raises:
        DataError: the file is not an .npz, or an array is shorter than its header says, or is compressed
            with a method other than DEFLATE.
    """
    found = {}
    try:
        refuse_special(path)
        with zipfile.ZipFile(path) as archive:
            arrays = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            refuse_packed(arrays, path)
            for info in arrays:
                with archive.open(info) as member:
                    shape, _, dtype = read_header(member)
                    check_length(shape, dtype, content_length(info, path) - member.tell())
                found[info.filename.removesuffix(".npy")] = (dtype, shape)
    except DAMAGE as error:
        raise DataError(f"{path}: not a readable .npz: {reason(error)}") from error
    return found


def read_member(path: Path, name: str, most: int | None = None) -> NDArray[Any]:
    """One array of an .npz file.

    Args:
        most: the largest size of the array that is read, in bytes. Default: no limit.

    Raises:
        DataError: the file is not an .npz, is damaged, or lacks this array; or the array is too large.
    """
    try:
        refuse_special(path)
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            refuse_packed([info], path)
            with archive.open(info) as member:
                shape, _, dtype = read_header(member)
                size = check_length(shape, dtype, content_length(info, path) - member.tell())
            if most is not None and size > most:
                raise ValueError(f"{size} bytes; at most {most} are read")
            with archive.open(info) as member:
                array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # zipfile verifies the checksum when it reads past the last byte
    except DAMAGE as error:
        raise DataError(f"{path}: array '{name}' cannot be read: {reason(error)}") from error
    return array


def read_header(file: IO[bytes]) -> Header:
    """The shape, memory order (True: Fortran) and dtype of an .npy file; leaves `file` at the start of the data.

    Raises:
        ValueError: the file is not an .npy, or holds Python objects.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, tokenize.TokenError) as error:
        raise ValueError("its header is damaged") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def check_length(shape: Shape, dtype: np.dtype[Any], length: int) -> int:
    """The size in bytes of an array of this shape and dtype.

    Raises:
        ValueError: the shape is invalid, or the array takes more than the `length` bytes that the file holds.
    """
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in shape):
        raise ValueError(f"its shape is {list(shape)}")
    needed = math.prod(shape) * dtype.itemsize
    if needed > length:
        raise ValueError(f"truncated: {dtype}{list(shape)} takes {needed} bytes, but there are only {max(length, 0)}")
    return needed


def content_length(info: zipfile.ZipInfo, path: Path) -> int:
    """The largest possible size of a .zip member in bytes: the claimed size, limited to what its data can expand to."""
    packed = min(info.compress_size, path.stat().st_size)
    return min(info.file_size, packed if info.compress_type == zipfile.ZIP_STORED else packed * DEFLATE)
