"""The command tree. A command's module is imported when the command is called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from gddim_cli import __version__
from gddim_cli.errors import UsageError
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    from typer._click.core import Command, Context

SHARED = ("sample", "fid", "bench")
"""The commands that can run in several processes (under torchrun)."""

COMMANDS = {
    "sample": "Draw images from a checkpoint.",
    "fid": "Measure FID and other metrics of images against a reference.",
    "bench": "Measure FID or another metric at several NFE, and write tables and plots.",
    "tune": "Fit a solver to a network, for sampling in few evaluations.",
    "train": "Train a denoiser on images.",
    "download": "Download released checkpoints, reference statistics and Inception networks.",
    "checkpoints": "List checkpoints and published files, print a model card, or remove downloads.",
    "convert": "Convert a checkpoint of another program to a native file.",
    "samplers": "List the samplers.",
    "diffusions": "List the diffusions.",
    "coefficients": "Print the times and matrices that gDDIM uses.",
    "check": "Test a diffusion or a checkpoint for mistakes.",
}
MODULES = {"samplers": "listings", "diffusions": "listings"}
"""The modules whose names differ from those of their commands."""


def load_sampler_files(words: list[str]) -> None:
    """Registers the samplers in files given to `--sampler`, so that the command-line parser knows their options."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else words[place + 1] if place + 1 < len(words) else ""
        if name == "--sampler" and ".py" in value:
            from gddim_cli.samplers.registry import find_sampler

            for reference in value.split(","):
                if reference.endswith(".py"):
                    find_sampler(reference)


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is called; `gddim --help` imports no such module."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The command that the arguments name, complete with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        load_sampler_files(rest)
        return name, full_command(name) if name and command else command, rest


def full_command(name: str) -> Command:
    """Imports a command's module and returns the command with its options."""
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
    """Sample from diffusion models with few network evaluations.

    To draw 100 digits from the bundled checkpoint, offline: [bold]gddim sample --nfe 50 --out imgs/[/bold]
    """
    command = context.invoked_subcommand
    if world().size > 1 and command not in SHARED:
        raise UsageError(
            f"gddim {command} runs as one process; start it without torchrun (only {', '.join(SHARED)} can use it)"
        )
