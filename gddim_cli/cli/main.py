"""The entry point of the program, and the only place where errors become messages."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

from gddim_cli.cli.streams import protect_streams
from gddim_cli.errors import CapacityError, DataError, GddimError, OutputError
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.heartbeat import RESUME_HINT
from gddim_cli.runtime.text import message_of, printable

INTERRUPTED = 130
LONGEST = 1500
"""Maximum length of an error message, in characters."""
HEARD: list[int] = []
"""The numbers of the signals (SIGINT, SIGTERM) that have arrived."""


def main() -> None:
    """Runs the command. Exit status: 0 success, 1 error in data or output, 2 usage error, 130 interrupted."""
    protect_streams()
    HEARD.clear()
    # SIGTERM, which schedulers send, is handled like Ctrl-C: finished work is kept.
    for number in (signal.SIGTERM, signal.SIGINT):
        # A shell script starts its background jobs with SIGINT ignored. If gddim runs as one process, SIGINT stays ignored.
        # Several processes handle SIGINT all the same, since it may come from their launcher.
        if number == signal.SIGTERM or world().size > 1 or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    status = 1
    try:
        status = run()
    finally:
        world().leave(failed=status != 0)
    sys.exit(status)


def run() -> int:
    """Runs the command and returns its exit status. Ctrl-C and errors in a user's Python file are reported in one line."""
    try:
        status = call()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BaseException as error:
        from gddim_cli.runtime.user_file import raised, user_lines

        if HEARD:
            status = INTERRUPTED  # A library interrupted during its import may raise another error.
        elif lines := user_lines(error):
            status = complain(f"{lines[-1][0]}: {raised(error)}", DataError.exit_code)
        else:
            raise
    if status == INTERRUPTED:  # For Ctrl-C, typer returns this status and prints no message.
        complain(f"interrupted; {RESUME_HINT}", INTERRUPTED)
    return status


def call() -> int:
    """Runs the command and returns its exit status. Errors that the user can correct are printed as messages."""
    try:
        refuse_removed_folder()
        import typer

        from gddim_cli.cli.app import app
    except GddimError as error:
        return complain(str(error), error.exit_code)
    try:
        with nullcontext() if world().main else redirect_stdout(io.StringIO()):  # only rank 0 prints --help
            status = app(prog_name="gddim", standalone_mode=False)
        sys.stdout.flush()
    except GddimError as error:
        status = complain(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "gddim"
        message = error.format_message()  # The message is empty if typer has just printed the help.
        status = complain(f"{message} (see: {command} --help)", error.exit_code) if message else error.exit_code
    except BrokenPipeError:  # The reader has closed the pipe, as `| head` does.
        status = 1
    except typer.Abort:
        status = INTERRUPTED
    except OSError as error:  # For example, a disk or a network share fails while a file is read.
        status = complain(f"{error.filename or 'a file'}: {error.strerror or message_of(error)}", OutputError.exit_code)
    except (MemoryError, RuntimeError) as error:
        from gddim_cli.runtime.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        message = message_of(error)
        reason = f" ({message})" if message else ""
        status = complain(f"out of memory{reason}; use fewer or smaller images", CapacityError.exit_code)
    return status or 0


def refuse_removed_folder() -> None:
    """Raises OutputError if the current folder has been removed; otherwise, libraries would fail with obscure errors."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise OutputError("the current folder has been removed; change to another one") from error


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt. With several processes, further signals are ignored: torchrun sends more than one.

    While torch is being imported, an exception could abort the process in C++, so the process exits at once instead.
    """
    HEARD.append(number)
    if is_being_imported("torch"):
        if world().claim_error_report():
            with suppress(OSError):  # The signal may have come while stderr was written; a second `print` would fail.
                os.write(2, f"gddim: interrupted; {RESUME_HINT}\n".encode())
        os._exit(INTERRUPTED)
    if world().size > 1:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def is_being_imported(name: str) -> bool:
    """Whether a module's import has begun and has not ended."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def complain(message: str, status: int) -> int:
    """Prints an error as one line on stderr, unless another process has already reported one, and returns `status`."""
    if world().claim_error_report():
        who = f"rank {world().rank}: " if world().size > 1 else ""
        print(f"gddim: {who}{printable(message, LONGEST)}", file=sys.stderr, flush=True)
    return status
