"""Files that appear whole or not at all, and typed YAML."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import filelock
import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from gddim_cli.errors import DataError, GddimError, OutputError, nearest

T = TypeVar("T")

LOCK = ".lock"


@contextmanager
def replacing(path: Path, make_folder: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    Args:
        make_folder: whether the folder is made where it is missing; not where its loss is worth a message.

    Raises:
        OutputError: the folder or the file cannot be written (no permission, disk full, not a folder).
    """
    with writing(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        # A random name, so that two programs writing the same file do not spoil each other.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~UMASK)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names `path` and the cause when the system refuses to write there.

    Raises:
        OutputError: in place of the `OSError`.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
            errno.EACCES: "no permission to write there; choose another place",
            errno.EROFS: "the file system is read-only; choose another place",
            errno.ENOENT: "its folder is gone (removed?); run the same command again",
            errno.EFBIG: "the file is larger than this system or its limits allow; choose another place",
            errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
            errno.EEXIST: "a file stands where a folder is needed; choose another place",
            errno.EISDIR: "a folder stands where a file is needed; choose another place",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def locked(
    folder: Path, program: str, patience: float = 0.0, on_wait: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """The folder, made where it is missing, for one program at a time; the system lets go of it whatever ends the program.

    Args:
        program: what is at work there, for the message.
        patience: seconds to wait for another one to end.
        on_wait: called before that wait.

    Raises:
        OutputError: another is at work there, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        try:
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if patience:
                    on_wait()
                lock.acquire(timeout=patience)
        except filelock.Timeout as error:
            raise OutputError(
                f"{folder}: another {program} is at work there; wait for it, or choose another --out"
            ) from error
    try:
        yield
    finally:
        lock.release()  # the file stays: who removes it lets two in


def current_umask() -> int:
    """The process's umask: there is no way to read it but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


UMASK = current_umask()  # read once at import, when no other thread is running


def probe(path: Path) -> None:
    """Makes sure that a file can be written at `path`, before work is spent on what will go there.

    Raises:
        OutputError: it cannot.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def read_array(path: Path, memory_map: bool = False) -> NDArray[Any]:
    """The one array of an .npy, in the machine's byte order unless mapped.

    Raises:
        DataError: missing, truncated, not an .npy, or of Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npy: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: an .npz; a single array, .npy, is needed")
    return array


def read_archive(path: Path) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Names, dtypes and shapes of the arrays of an .npz, without reading them.

    Raises:
        DataError: not an .npz.
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
    """Shape, whether in Fortran's order, and dtype of an .npy; `file` is then at its data.

    Raises:
        ValueError: not an .npy.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def read_member(path: Path, name: str) -> NDArray[Any]:
    """One array of an .npz.

    Raises:
        DataError: not an .npz, or damaged, or without it.
    """
    try:
        # numpy leaves a file that it opened, and could not read, open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: array '{name}' cannot be read: {error}") from error


def eventually(holds: Callable[[], bool], patience: float) -> bool:
    """Whether it holds within `patience` seconds: a shared file system may show files late."""
    since = time.monotonic()
    while not holds():
        if time.monotonic() - since >= patience:
            return False
        time.sleep(0.2)
    return True


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_yaml(path: Path) -> Any:
    """A YAML file's content, with `yaml.safe_load`.

    Raises:
        DataError: the file is missing or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def typed(raw: Any, kind: type[T], source: object, error: type[GddimError] = DataError) -> T:
    """`raw` (plain dicts and lists) as the `msgspec.Struct` `kind`; `source` names it in messages.

    Raises:
        error: an unknown key (with the nearest known one), a missing key, or a value of the wrong type.
    """
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as problem:
        text = (
            str(problem).replace("Object ", "the mapping ", 1).replace("`object`, got `array`", "a mapping, got a list")
        )
        unknown = re.search(r"unknown field `(\w+)`", text)
        hint = f"; {nearest(unknown[1], kind.__struct_fields__)}" if unknown else ""  # type: ignore[attr-defined]
        raise error(f"{source}: {text}{hint}") from problem
