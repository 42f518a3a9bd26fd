"""`gddim bench`: measure a metric against network evaluations, resume, tabulate, plot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gddim_cli.bench.cell import PLAN_SETTINGS
from gddim_cli.bench.plan_file import PlanError, cell_settings, reader
from gddim_cli.cli import options
from gddim_cli.cli.progress import say
from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world
from gddim_cli.runtime.setting_lists import located

if TYPE_CHECKING:
    from typer._click.core import Context

EXAMPLES = """
gddim bench
gddim bench --checkpoint mnist --sampler gddim,em --nfe 10,20,50 --seeds 0,1,2 --out runs/digits
gddim bench plan.yaml --print-plan
gddim bench --table 1 --num 5000
gddim bench --preset few --out few
gddim bench --status bench
gddim bench compare bench other (see gddim bench compare --help)"""
FIRST = ("nfe", "checkpoint", "sampler", "seeds")
"""The settings that stand first in `--help`."""
FLAGS = {"help_option_names": ["-h", "--help"]}
PRINT_PLAN = "Only print the cells and the time that they will take."
Table = Annotated[
    int | None,
    typer.Option(metavar="1|2|3", help="Reproduce this table of the gDDIM paper.", rich_help_panel="Model"),
]
PRESET = "Plan that ships with gddim: few, samplers at NFE 5 to 20."
Preset = Annotated[str | None, typer.Option(metavar="few", help=PRESET, rich_help_panel="Model")]
Status = Annotated[
    Path | None,
    typer.Option(help="Only print which cells in this folder are done, missing or failed.", rich_help_panel="Output"),
]
Folder = Annotated[Path, typer.Argument(help="Output folder of gddim bench.")]


def bench(
    given: Mapping[str, Any],
    plan: Annotated[
        Path | None,
        typer.Argument(
            metavar="PLAN.yaml", help="YAML file with these settings and a list of rows. Default: a plan on digits."
        ),
    ] = None,
    table: Table = None,
    preset: Preset = None,
    print_plan: Annotated[bool, typer.Option("--print-plan", help=PRINT_PLAN, rich_help_panel="Output")] = False,
    status: Status = None,
    json: options.Json = False,
    threads: options.Threads = None,
) -> None:
    """Measure a metric against network evaluations (NFE), cell by cell.

    Without arguments, measures the bundled digit model, offline, in a few minutes. Options shown with ,... take several
    values, such as --nfe 10,20; every combination is a cell. A path with a comma, or a list of classes, needs a plan.
    """
    if world().size > 1 and (print_plan or status is not None):
        raise UsageError("--print-plan, --status: run as one process; start them without torchrun")
    if plan is not None and table is not None:
        raise UsageError("--table: cannot be combined with a plan file; leave one of them out")
    if table not in (None, 1, 2, 3):
        raise UsageError(f"--table: {table} is not 1, 2 or 3")
    from gddim_cli.bench import plan as plans
    from gddim_cli.bench.resources import Resources
    from gddim_cli.cli import bench_view

    if status is not None:
        bench_view.show_status(status, json)
        return
    over = reader(problems := list[str]()).options(given)
    name = f"table{table}" if table else preset
    planner = plans.Planner(plans.read_plan(plan, name, over, problems), over, problems)
    try:
        device = find_device(planner.own.device)
    except UsageError as error:  # reported with everything else that is wrong
        place = {**planner.file.top, **over}["device"][0][1]
        problems.append(located(error, {"device": place}))
        device = find_device("cpu")
    options.use_threads(threads, device)
    resources, folder = Resources(device, planner.own.batch_size), options.folder("--out", Path(planner.own.out))
    try:
        checked = planner.plan(resources)
    except PlanError as error:
        for line in error.lines:
            say(line)
        raise
    for note in checked.notes:
        say(f"note: {note}")
    if print_plan:
        bench_view.show_plan(checked, resources, folder, json)
        return
    words = [*([str(plan)] if plan else []), *(["--table", str(table)] if table else [])]
    words += options.written({key: text for key, text in given.items() if key != "out"}, reader([]).known)
    command = shlex.join(["gddim", "bench", *words])
    if bench_view.execute(checked, resources, folder, planner.own.keep_images, json, command):
        raise typer.Exit(1)


def compare(first: Folder, second: Folder, json: options.Json = False) -> None:
    """Compare cells of two benchmarks that have equal settings, seeds, images and metric; checkpoints may differ."""
    from gddim_cli.cli import bench_view

    bench_view.show_comparison(first, second, json)


class DefaultCommandGroup(TyperGroup):
    """A group with a hidden default command, `run`, which is called unless the first argument names another command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        """The context of the command named first; by default that of `run`, under the group's name."""
        if args and args[0] in self.commands and args[0] != "run":
            return super().make_context(info_name, args, parent, **extra)
        return self.commands["run"].make_context(info_name, args, parent, **extra)


def make_app() -> typer.Typer:
    """The commands, with the options of every sampler that is registered now."""
    settings = {key: setting for key, setting in cell_settings().items() if key not in ("table", "published")}
    lists = [settings[key] for key in (*FIRST, *(key for key in settings if key not in FIRST))]
    run = options.quietable(options.with_settings(bench, PLAN_SETTINGS.values(), lists=lists))
    app = typer.Typer(cls=DefaultCommandGroup, rich_markup_mode="rich", context_settings=FLAGS)
    epilog = f"[bold]Examples[/bold]{EXAMPLES}".replace("\n", "\n\n")
    app.command("run", hidden=True, epilog=epilog, context_settings=FLAGS)(run)
    app.command("compare", context_settings=FLAGS)(options.quietable(compare))
    return app
