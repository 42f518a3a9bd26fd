"""Arrays from .npy and .npz files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError


def read_array(path: Path, memory_map: bool = False) -> NDArray[Any]:
    """The array of an .npy file.

    Args:
        memory_map: whether the file is mapped into memory, read-only, in place of being read.

    Raises:
        DataError: the file is missing, truncated, not an .npy, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npy: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: this is an .npz; a single array (.npy) is needed")
    return array


def read_archive(path: Path) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Names, dtypes and shapes of the arrays of an .npz, without reading them.

    Raises:
        DataError: the file is not a readable .npz.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as member:
                        shape, _, dtype = read_header(member)
                    found[name.removesuffix(".npy")] = (dtype, shape)
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz: {error}") from error
    return found


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of an .npy file; leaves `file` at the beginning of the data.

    Raises:
        ValueError: the file is not an .npy.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def read_member(path: Path, name: str) -> NDArray[Any]:
    """One array of an .npz file.

    Raises:
        DataError: the file is not an .npz, is damaged, or does not contain the array.
    """
    try:
        # opened here, because numpy does not close a file that it cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: array '{name}' cannot be read: {error}") from error
