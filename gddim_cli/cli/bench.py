"""`gddim bench`: measure a metric against network evaluations, resume, tabulate, plot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from gddim_cli.bench.cell import PLAN_SETTINGS
from gddim_cli.bench.plan_file import PlanError, cell_settings, reader
from gddim_cli.cli import options
from gddim_cli.cli.progress import say
from gddim_cli.cli.shared_settings import Threads, use_threads
from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world
from gddim_cli.settings import about

EXAMPLES = """
gddim bench
gddim bench --checkpoint mnist --sampler gddim,em --nfe 10,20,50 --seeds 0,1,2 --out runs/digits
gddim bench plan.yaml --print-plan
gddim bench --table 1 --num 5000
gddim bench --preset few --out few
gddim bench --status bench
gddim bench compare bench other        (see gddim bench compare --help)"""
FIRST = ("nfe", "checkpoint", "sampler", "seeds")  # the settings that come first in `--help`
PLAN = "YAML file that describes the rows of the benchmark. Default: a plan for the bundled digit model."
TABLE = "Reproduce this table of the gDDIM paper."
PRESET = "Use a plan that ships with gddim. The plan `few` compares samplers at NFE 5 to 20."
STATUS = "Only print which cells in this folder are done, missing or failed."
PRINT_PLAN = "Only print the cells and an estimate of the time that they will take."
Folder = Annotated[Path, typer.Argument(help="Output folder of gddim bench.")]


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `gddim bench` that are not settings of a plan."""

    table: Annotated[int, about(TABLE, panel="Model", metavar="1|2|3", ge=1, le=3)] | None = None
    preset: Annotated[Literal["few"], about(PRESET, panel="Model")] | None = None
    print_plan: Annotated[bool, about(PRINT_PLAN, panel="Output", flag="--print-plan")] = False
    status: Annotated[Path, about(STATUS, panel="Output")] | None = None
    threads: Threads | None = None


def bench(
    given: Mapping[str, Any],
    asked: BenchSettings,
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN.yaml", help=PLAN)] = None,
    json: options.Json = False,
) -> None:
    """Measure FID or another metric at several numbers of network evaluations (NFE), and write tables and plots.

    Without arguments, the command measures the bundled digit model, offline, in a few minutes.

    Options shown with ,... take several values, such as --nfe 10,20. Every combination of values is one cell, which is one
    value to measure. If a path contains a comma, give the path in a plan file.
    """
    if world().size > 1 and (asked.print_plan or asked.status is not None):
        raise UsageError("--print-plan, --status: run as one process; start them without torchrun")
    plans_given = {"a plan file": plan, "--table": asked.table, "--preset": asked.preset}
    several = [name for name, value in plans_given.items() if value is not None]
    if len(several) > 1:
        raise UsageError(f"{' and '.join(several)} are different plans; give one of them")
    over = reader(problems := list[str]()).options(given)
    name = f"table{asked.table}" if asked.table else asked.preset
    try:
        if problems and plan is None:  # Reported before torch is imported.
            raise PlanError("the options", problems)  # noqa: TRY301
        from gddim_cli.bench import plan as plans
        from gddim_cli.bench.resources import Resources
        from gddim_cli.cli import bench_view

        if asked.status is not None:
            bench_view.show_status(asked.status, json)
            return
        planner = plans.Planner(plans.read_plan(plan, name, over, problems), over, problems)
        device = find_device(planner.own.device)
        use_threads(asked.threads, device)
        resources, folder = Resources(device, planner.own.batch_size), options.folder("--out", Path(planner.own.out))
        checked = planner.plan(resources)
    except PlanError as error:
        for line in error.lines:
            say(line)
        raise
    for note in checked.notes:
        say(f"note: {note}")
    if asked.print_plan:
        bench_view.show_plan(checked, resources, folder, json)
        return
    words = [str(plan)] if plan else []
    words += ["--table", str(asked.table)] if asked.table else ["--preset", asked.preset] if asked.preset else []
    words += options.written({key: text for key, text in given.items() if key != "out"}, reader([]).known)
    command = shlex.join(["gddim", "bench", *words])
    if bench_view.execute(checked, resources, folder, planner.own.keep_images, json, command):
        raise typer.Exit(1)


def compare(first: Folder, second: Folder, json: options.Json = False) -> None:
    """Compare two benchmarks, cell by cell.

    The command compares cells with equal settings. The two benchmarks may differ in checkpoint, dtype and batch size.
    """
    from gddim_cli.cli import bench_view

    bench_view.show_comparison(first, second, json)


def make_app() -> typer.Typer:
    """The commands, with the options of every sampler that is registered now."""
    settings = {key: setting for key, setting in cell_settings().items() if key not in ("table", "published")}
    measure = options.with_settings(bench, PLAN_SETTINGS.values(), lists=options.leading(FIRST, settings))
    epilog = f"[bold]Examples[/bold]{EXAMPLES}".replace("\n", "\n\n")
    return options.command_group(measure, {"compare": compare}, epilog)
