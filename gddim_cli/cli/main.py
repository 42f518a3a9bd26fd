"""The command tree, and the one place where errors become messages and exit statuses."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from contextlib import nullcontext, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from gddim_cli import __version__
from gddim_cli.errors import GddimError, UsageError
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.heartbeat import RESUME_HINT

if TYPE_CHECKING:
    from typer._click.core import Command, Context

INTERRUPTED = 130
SHARED = ("sample", "fid", "bench")
"""Commands that several processes can share."""

COMMANDS = {
    "sample": "Draw images from a checkpoint.",
    "fid": "Measure images: FID and other metrics against a reference.",
    "bench": "Measure FID or another metric against NFE, and write tables and plots.",
    "train": "Train a denoiser on images.",
    "download": "Fetch released checkpoints, reference statistics and Inception networks.",
    "checkpoints": "List checkpoints and published files, show one, or remove downloads.",
    "convert": "Convert a checkpoint of another program to a native file.",
    "samplers": "List the samplers.",
    "diffusions": "List the diffusions.",
    "coefficients": "Print the times and matrices that gDDIM uses.",
    "check": "Test a diffusion: equations, one-step exactness, orders of convergence; or a checkpoint: its conventions.",
}
MODULES = {"samplers": "listings", "diffusions": "listings"}
"""Modules whose name differs from their command's."""


def load_sampler_files(words: list[str]) -> None:
    """Registers the samplers of files given to `--sampler`, so that their options are known when the command line is parsed."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else words[place + 1] if place + 1 < len(words) else ""
        if name == "--sampler" and ".py" in value:
            from gddim_cli.samplers.registry import find_sampler

            for reference in value.split(","):
                if reference.endswith(".py"):
                    find_sampler(reference)


class LazyGroup(TyperGroup):
    """A group that imports the module of a command when the command is called, so that `gddim --help` imports none."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The command that the arguments name, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        load_sampler_files(rest)
        return name, full_command(name) if name and command else command, rest


def full_command(name: str) -> Command:
    """The command with its options."""
    module = importlib.import_module(f"gddim_cli.cli.{MODULES.get(name, name)}")
    made = module.make_app() if hasattr(module, "make_app") else getattr(module, f"{name}_app", None) or module.app
    command = typer.main.get_command(made)
    command.name = name
    return command


app = typer.Typer(
    name="gddim",
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(lambda: None)


def show_version(value: bool) -> None:
    """Prints the version and exits."""
    if value:
        typer.echo(f"gddim {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sample from linear diffusion models with few network evaluations.

    [bold]gddim sample --nfe 50 --out imgs/[/bold] draws a grid of digits from the bundled checkpoint, offline.
    """
    command = context.invoked_subcommand
    if world().size > 1 and command not in SHARED:
        raise UsageError(
            f"gddim {command} runs as one process; start it without torchrun (only {', '.join(SHARED)} support it)"
        )


def main() -> None:
    """Runs the command. Exit status: 0 success, 1 error in data or output, 2 usage error, 130 interrupted."""
    # SIGTERM, which schedulers send, is handled like Ctrl-C: finished work is kept.
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
    """Runs the command and returns its exit status. An error that the user can fix is printed as one line on stderr."""
    try:
        with nullcontext() if world().main else redirect_stdout(io.StringIO()):  # only rank 0 prints --help
            status = app(prog_name="gddim", standalone_mode=False)
        sys.stdout.flush()
    except GddimError as error:
        status = complain(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "gddim"
        message = error.format_message()  # empty if the help has just been printed
        status = complain(f"{message} (see: {command} --help)", error.exit_code) if message else error.exit_code
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status without a message
        complain(f"interrupted; {RESUME_HINT}", INTERRUPTED)
    return status or 0


def stop_once(_number: int, _frame: FrameType | None) -> None:
    """Ends the process as Ctrl-C does and ignores further signals: torchrun sends several, of which SIGKILL is the last."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def complain(message: str, status: int) -> int:
    """Prints an error as one line on stderr, if no other process has reported one before, and returns `status`."""
    if world().claim_error_report():
        who = f"rank {world().rank}: " if world().size > 1 else ""
        print(f"gddim: {who}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return status
