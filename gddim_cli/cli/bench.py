"""`gddim bench`: measure a metric against network evaluations, resume, tabulate, plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gddim_cli.bench.cell import PLAN_SETTINGS, cell_settings
from gddim_cli.cli import options
from gddim_cli.cli.progress import say
from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    from typer._click.core import Command, Context

EPILOG = """[bold]Examples[/bold]

gddim bench

gddim bench --checkpoint mnist --sampler gddim,em --nfe 10,20,50 --seeds 0,1,2 --out runs/digits

gddim bench plan.yaml --print-plan

gddim bench --table 1 --num 5000

gddim bench --status bench

gddim bench compare bench other (see gddim bench compare --help)"""
FIRST = ("nfe", "checkpoint", "sampler", "seeds")
"""The settings that stand first in `--help`."""


class DefaultCommandGroup(TyperGroup):
    """`gddim bench ARGUMENTS`: a command where the first argument is one's name, else the hidden command `run`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        """The context of `run` under this group's own name, or the group's."""
        if args and args[0] in self.commands and args[0] != "run":
            return super().make_context(info_name, args, parent, **extra)
        run: Command = self.commands["run"]
        return run.make_context(info_name, args, parent, **extra)


def bench(
    given: Mapping[str, Any],
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN.yaml", help="A plan: these settings, and rows of them (docs/bench.md)."),
    ] = None,
    table: Annotated[
        int | None,
        typer.Option(metavar="1|2|3", help="Table of the paper to measure.", rich_help_panel="Model"),
    ] = None,
    print_plan: Annotated[
        bool,
        typer.Option(
            "--print-plan", help="Only print the cells and the time they will take.", rich_help_panel="Output"
        ),
    ] = False,
    status: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Only print what is done in a folder.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Measure a metric against network evaluations (NFE), cell by cell.

    Without arguments: the bundled checkpoint against its digits, offline, in a few minutes. Settings of cells take lists, as
    --nfe 10,20; every combination is a cell. A path with a comma needs a plan.
    """
    from gddim_cli.bench.check import located
    from gddim_cli.bench.plan import make_plan, plan_settings, read_plan
    from gddim_cli.bench.plan_file import PlanError, from_options
    from gddim_cli.bench.resources import Resources
    from gddim_cli.bench.results import Folder
    from gddim_cli.cli import bench_view

    if world().size > 1 and (print_plan or status is not None):
        raise UsageError("--print-plan, --status: run as one process; start them without torchrun")
    if status is not None:
        bench_view.show_status(status, json)
        return
    if plan is not None and table is not None:
        raise UsageError("--table: is a plan itself; leave out --table or the plan's file")
    if table not in (None, 1, 2, 3):
        raise UsageError(f"--table: {table} is not 1, 2 or 3")
    problems: list[str] = []
    over = from_options(given, problems)
    source = read_plan(plan, table, over, problems)
    own = plan_settings(source, over)
    try:
        device = find_device(own.device)
    except UsageError as error:  # reported with everything else that is wrong
        place = {**source.top, **over}["device"][0][1]
        problems.append(located(error, {"device": place}, ()))
        device = find_device("cpu")
    options.use_threads(threads, device)
    resources = Resources(device, own.batch_size)
    try:
        checked = make_plan(source, over, resources, problems, preset=table is not None)
    except PlanError as error:
        for line in error.lines:
            say(line)
        raise UsageError(error.summary) from error
    folder = Folder(options.folder("--out", Path(own.out)))
    if print_plan:
        bench_view.show_plan(checked, resources, folder, json)
    elif bench_view.execute(checked, resources, folder, own.keep_images, json):
        raise typer.Exit(1)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of gddim bench.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another folder of gddim bench.")],
    json: options.Json = False,
) -> None:
    """Compare two benchmarks cell by cell.

    Cells match where settings, seeds, images and metric are the same; checkpoints may differ.
    """
    from gddim_cli.bench.compare import compare as compared
    from gddim_cli.cli import bench_view

    bench_view.show_comparison(compared(first, second), first, second, json)


settings = {key: setting for key, setting in cell_settings().items() if key not in ("table", "published")}
lists = [settings[key] for key in (*FIRST, *(key for key in settings if key not in FIRST))]
names = {"help_option_names": ["-h", "--help"]}
run = options.quietable(options.with_settings(bench, PLAN_SETTINGS.values(), lists=lists))
app = typer.Typer(cls=DefaultCommandGroup, rich_markup_mode="rich", context_settings=names)
app.command("run", hidden=True, epilog=EPILOG, context_settings=names)(run)
app.command("compare", context_settings=names)(options.quietable(compare))
