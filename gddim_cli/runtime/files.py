"""Files that appear whole or not at all, and typed YAML."""

from __future__ import annotations

import errno
import hashlib
import os
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


def refuse_foreign(option: str, path: Path, known: str | None, force: bool) -> None:
    """Refuses to replace a file that this run did not write.

    Args:
        option: what names the file.
        known: sha256 of the file that this run wrote there earlier, or None.
        force: whether any file may be replaced.

    Raises:
        UsageError: there is another file.
    """
    if path.is_file() and not force and (known is None or sha256(path) != known):
        raise UsageError(f"{option}: {path} exists and was not written by this run; choose another name, or --force")


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
