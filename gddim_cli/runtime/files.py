"""Atomic writing of files, locks on folders, checksums, and checks before files are read or replaced."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import filelock

from gddim_cli.errors import OutputError, UsageError

T = TypeVar("T")

LOCK = ".lock"


@contextmanager
def replacing(path: Path, make_folder: bool = True) -> Iterator[Path]:
    """A context that yields a temporary file's path. The file replaces `path` at the end, or is removed after an error.

    Args:
        make_folder: whether a missing folder is created; if False, a missing folder is an error.

    Raises:
        OutputError: the folder or the file cannot be written (no permission, disk full, not a folder).
    """
    with writing(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        # A random name, so that two programs that write the same file do not interfere.
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
    """A context for writing to `path` that turns an `OSError` into an `OutputError`.

    Raises:
        OutputError: writing fails; the message names the path, the cause and what to do.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and rerun the same command",
            errno.EDQUOT: "the disk quota is exhausted; free some space and rerun the same command",
            errno.EACCES: "permission denied; choose another path",
            errno.EROFS: "the file system is read-only; choose another path",
            errno.ENOENT: "its folder has been removed; rerun the same command",
            errno.EFBIG: "the file would exceed a size limit of this system; choose another path",
            errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
            errno.EEXIST: "there is a file where a folder is needed; choose another path",
            errno.EISDIR: "this is a folder, but a file is needed; choose another path",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def locked(
    folder: Path, program: str, patience: float = 0.0, on_wait: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """A context that locks a folder, so that no other program works in it. A missing folder is created.

    The operating system releases the lock when the program ends, even if the program is killed.

    Args:
        program: the program's name, for the message.
        patience: seconds to wait for another program to finish.
        on_wait: called once before waiting.

    Raises:
        OutputError: another program is working in the folder, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / LOCK).is_dir():
            raise OutputError(f"{folder / LOCK}: is a folder, but a lock file is needed there; remove the folder")
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
                f"{folder}: another {program} is running in this folder; wait for it to finish, or choose another --out"
            ) from error
    try:
        yield
    finally:
        lock.release()  # The lock file is kept: if it were removed, two programs could hold a lock at the same time.


def current_umask() -> int:
    """The process's umask. It can only be read by setting it, so it is set and restored."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


UMASK = current_umask()  # read once at import, when no other thread is running


def probe(path: Path) -> None:
    """Checks that a file can be written at `path`, before any work is spent on its content.

    Raises:
        OutputError: the file cannot be written.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def require_space(path: Path, size: int) -> None:
    """Raises OutputError if a file of `size` bytes does not fit on the disk of `path`, whose folder must exist."""
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OutputError(
            f"{path}: takes {size / 1e9:.3g} GB, but only {free / 1e9:.3g} GB are free on its disk; "
            "free some space, or use fewer images"
        )


def refuse_foreign(option: str, path: Path, known: str | None, force: bool) -> None:
    """Refuses to replace a file that this run did not write.

    Args:
        option: the option that names the file.
        known: sha256 of the file that this run wrote there earlier, or None.
        force: whether any file may be replaced.

    Raises:
        UsageError: the path holds a file that this run did not write.
    """
    taken = path.is_symlink() or (path.exists() and not path.is_dir())
    if taken and not force and (known is None or not path.is_file() or sha256(path) != known):
        raise UsageError(f"{option}: {path} exists and was not written by this run; choose another name, or --force")


def refuse_strangers(folder: Path, record: str, kind: str, ignored: re.Pattern[str] | None = None) -> None:
    """Refuses a folder that holds files, but lacks the record that every folder of this kind has.

    Args:
        record: the file name of the record.
        kind: what such a folder holds, for the message.
        ignored: the names of files that do not count, such as temporary files.

    Raises:
        UsageError: the folder has files but no record; the message names the first file.
    """
    names = sorted(file.name for file in folder.iterdir() if file.name != LOCK)
    strangers = [name for name in names if not (ignored and ignored.fullmatch(name))]
    if strangers and not (folder / record).exists():
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise UsageError(
            f"--out: {folder} holds {strangers[0]}{more}, but no {record} of a {kind}; choose a new or an empty folder"
        )


def eventually(holds: Callable[[], bool], patience: float) -> bool:
    """Whether `holds()` becomes true within `patience` seconds. On a shared file system, files may appear late."""
    since = time.monotonic()
    while not holds():
        if time.monotonic() - since >= patience:
            return False
        time.sleep(0.2)
    return True


def refuse_special(path: Path) -> None:
    """Raises OSError for a pipe, device or socket: reading from a pipe could block, and a device may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a plain file", str(path))


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read, is not a plain file, or is larger.
    """
    refuse_special(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"{path.stat().st_size / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are read")
    return content


def seal_of(path: Path, content: bytes | memoryview) -> bytes:
    """The SHA-256 of a file's content together with the names of the file and of its folder.

    A file that was damaged, edited, or put in the place of another one does not match its seal.
    """
    digest = hashlib.sha256(f"{path.parent.name}/{path.name}\n".encode())
    digest.update(content)
    return digest.digest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read, or is not a plain file.
    """
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
