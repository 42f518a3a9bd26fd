"""The command tree and its one error boundary."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import nullcontext, redirect_stdout
from types import FrameType
from typing import Annotated

import typer

from gddim_cli import __version__
from gddim_cli.cli import bench, check, checkpoints, coefficients, convert, download, fid, listings, sample, train
from gddim_cli.errors import GddimError, UsageError
from gddim_cli.runtime.distributed import RESUME_HINT, world

INTERRUPTED = 130
SEVERAL = ("sample", "fid", "bench")
"""Commands that several processes can share."""

app = typer.Typer(name="gddim", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.command(epilog=sample.EPILOG)(sample.sample)
app.command(epilog=fid.EPILOG)(fid.fid)
app.command(epilog=coefficients.EPILOG)(coefficients.coefficients)
app.command(epilog=train.EPILOG)(train.train)
app.add_typer(bench.app, name="bench")
app.command()(listings.samplers)
app.command()(listings.diffusions)
app.command(epilog=check.EPILOG)(check.check)
app.command(epilog=download.EPILOG)(download.download)
app.command(epilog=checkpoints.EPILOG)(checkpoints.checkpoints)
app.command(epilog=convert.EPILOG)(convert.convert)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gddim {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Sample from linear diffusion models with few network evaluations.

    [bold]gddim sample --nfe 50 --out imgs/[/bold] draws a grid of digits from the bundled checkpoint, offline.
    """
    command = context.invoked_subcommand
    if world().size > 1 and command not in SEVERAL:
        raise UsageError(f"gddim {command} runs as one process; start it without torchrun ({', '.join(SEVERAL)} share)")


def main() -> None:
    """Runs the command. Exit status: 0 done, 1 data or output, 2 usage, 130 interrupted."""
    # A scheduler's polite kill is a Ctrl-C: what is done is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler if world().size == 1 else stop_once)
    if world().size > 1:
        signal.signal(signal.SIGINT, stop_once)
    status = 1
    try:
        status = run()
    finally:
        world().leave(failed=status != 0)
    sys.exit(status)


def run() -> int:
    """The command's exit status; what a person can mend is told in one line."""
    try:
        with nullcontext() if world().main else redirect_stdout(io.StringIO()):  # --help is said once
            status = app(prog_name="gddim", standalone_mode=False)
        sys.stdout.flush()
    except GddimError as error:
        status = complain(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "gddim"
        message = error.format_message()  # empty where the help has just been shown
        status = complain(f"{message} (see: {command} --help)", error.exit_code) if message else error.exit_code
    except BrokenPipeError:  # the reader has what it wanted: | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status, without a word
        complain(f"stopped; {RESUME_HINT}", INTERRUPTED)
    return status or 0


def stop_once(_number: int, _frame: FrameType | None) -> None:
    """Ends as Ctrl-C does, and lets nothing cut that short: torchrun sends one signal after the other, the last one -9."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def complain(message: str, status: int) -> int:
    """One line on stderr, from the first of several processes that has one to say."""
    if world().claim_error_report():
        who = f"rank {world().rank}: " if world().size > 1 else ""
        print(f"gddim: {who}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return status
