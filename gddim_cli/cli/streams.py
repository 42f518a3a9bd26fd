"""Standard streams whose failures are handled: a failure of stdout is an error; a failure of stderr drops messages."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

from gddim_cli.errors import OutputError


class Raw(io.FileIO):
    """A stream on an open descriptor. Closing the stream leaves the descriptor open; a write that would block waits."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failed = False

    def write(self, data: Any) -> int:
        """Writes bytes. After the first failure, all bytes are dropped, also those flushed at the program's end."""
        if self.failed:
            return len(data)
        try:
            while (count := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self.failed = True
            self.report(error)
            return len(data)
        return count

    def report(self, error: OSError) -> None:
        """Called at the first failure; this class ignores it."""


class Data(Raw):
    """Standard output."""

    def report(self, error: OSError) -> None:
        """Raises OutputError, or BrokenPipeError if the reader has closed the pipe, as `| head` does."""
        if isinstance(error, BrokenPipeError):
            raise error
        reason = "the stream is closed" if error.errno == errno.EBADF else error.strerror
        raise OutputError(f"standard output cannot be written: {reason}") from error


def protect_streams() -> None:
    """Replaces stdout and stderr, unless a test or a notebook has already replaced them.

    Characters that a stream's encoding lacks are written as escapes. A closed standard descriptor is opened on the null
    device. Otherwise, the next file that is opened would get the same number, and messages would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The new descriptor gets the lowest free number, which is `number`. In place of stdout, it is opened
            # read-only, so that writing to it fails and is reported.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = text(Data(1), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = text(Raw(2), sys.stderr, line_buffering=True)


def text(raw: Raw, before: Any, line_buffering: bool = False) -> io.TextIOWrapper:
    """A text stream on `raw` with the encoding of the stream `before`, which is None if its descriptor was closed."""
    encoding = before.encoding if before else "utf-8"
    if before:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=line_buffering or raw.isatty()
    )
