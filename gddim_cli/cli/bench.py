"""`gddim bench`: a checkpoint to the table that a paper prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gddim_cli.cli import options
from gddim_cli.cli.progress import say, stdout
from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    from typer._click.core import Command, Context

    from gddim_cli.bench.folder import Folder
    from gddim_cli.bench.jobs import Program
    from gddim_cli.bench.tools import Bench

OUT = "bench"
BATCH_SIZE = 64

EPILOG = """[bold]Examples[/bold]

gddim bench

gddim bench --checkpoint mnist --sampler gddim,em --nfe 10,20,50 --seeds 0,1,2 --out runs/digits

gddim bench plan.yaml --print-plan

gddim bench --table 1 --num 5000

gddim bench --status bench

gddim bench compare bench other (its own help: gddim bench compare --help)"""


class Words(TyperGroup):
    """`gddim bench WORDS`: a command where the first word is one's name, else `run`, whose name nobody types."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        """The context of `run` under this group's own name, or the group's."""
        if args and args[0] in self.commands and args[0] != "run":
            return super().make_context(info_name, args, parent, **extra)
        run: Command = self.commands["run"]
        return run.make_context(info_name, args, parent, **extra)


app = typer.Typer(cls=Words, help="Distance against evaluations: measure, resume, tabulate, plot.")


@app.command("run", hidden=True, epilog=EPILOG)
def bench(
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN.yaml", help="A plan in the words of these options, and rows of them."),
    ] = None,
    table: Annotated[
        int | None, typer.Option(metavar="1|2|3", help="A table of the paper with its settings; --num scales it down.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="What is sampled (default: mnist).")
    ] = None,
    sampler: Annotated[str | None, typer.Option(metavar="A,B", help="Of those that gddim samplers lists.")] = None,
    nfe: Annotated[str | None, typer.Option(metavar="N,M", help="Evaluations of the network for each image.")] = None,
    order: Annotated[str | None, typer.Option(metavar="Q,P", help="Of gddim.")] = None,
    lam: Annotated[str | None, typer.Option("--lambda", metavar="X,Y", help="Of gddim and em.")] = None,
    k: Annotated[str | None, typer.Option("--k", metavar="R,L", help="The K of the noise prediction.")] = None,
    diffusion: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Default: the card's.")] = None,
    num: Annotated[
        str | None,
        typer.Option("--num", "-n", metavar="N", help="Images a cell (default: the plan's or the protocol's)."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="S,T", help="A cell each; the spread over them is shown.")
    ] = None,
    ref: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="The reference, as in gddim fid.")] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="As in gddim fid: reference, mode, rounding, N.")
    ] = None,
    inception: Annotated[str | None, typer.Option(metavar="FILE", help="As in gddim fid.")] = None,
    solver_error: Annotated[
        bool | None,
        typer.Option(
            "--solver-error/--no-solver-error", help="The distance to the converged solution, which needs no reference."
        ),
    ] = None,
    solver_error_images: Annotated[int | None, typer.Option(help="On the first so many images (default: 16).")] = None,
    keep_images: Annotated[
        bool | None, typer.Option("--keep-images", help="Keep every cell's images, as gddim sample --format npz does.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images at once (default: 64).")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda|mps", help="Where networks run (default: auto).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The benchmark's folder (default: bench); the same command goes on there.")
    ] = None,
    print_plan: Annotated[
        bool,
        typer.Option("--print-plan", help="Print what would run, with evaluations and time from a short measurement."),
    ] = False,
    status: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Print what is done there and what is missing.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure distance against evaluations: FID, or FD on the bundled digits, cell by cell, kept as it comes.

    Without arguments: the bundled checkpoint against its digits, offline, a few minutes.
    """
    from gddim_cli.cli import bench_tables, bench_view

    if world().size > 1 and (print_plan or status is not None):
        raise UsageError("--print-plan, --status: are one process's; start them without torchrun")
    if status is not None:
        bench_tables.show_status(status, json)
        return
    if plan is not None and table is not None:
        raise UsageError("--table: is a plan of its own; leave it or the plan's file out")
    if table is not None and table not in (1, 2, 3):
        raise UsageError(f"--table: {table} is not 1, 2 or 3")
    given = {
        "checkpoint": checkpoint, "sampler": sampler, "nfe": nfe, "order": order, "lambda": lam, "k": k,
        "diffusion": diffusion, "num": num, "seeds": seeds, "ref": ref, "protocol": protocol, "inception": inception,
        "solver_error": word(solver_error), "solver_error_images": word(solver_error_images),
        "keep_images": "true" if keep_images else None, "batch_size": word(batch_size), "device": device, "out": word(out),
    }  # fmt: skip
    program, tools, folder, keep = choose(plan, table, given)
    if print_plan:
        bench_tables.show_plan(program, tools, folder, json)
        return
    failed = bench_view.execute(program, tools, folder, keep, show=not json)
    if json and world().main:
        with stdout() as output:
            output.write((folder.path / "results.json").read_text())
    if failed:
        raise typer.Exit(1)


def word(value: object) -> str | None:
    """An option's value as it would stand in a plan."""
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def choose(plan: Path | None, table: int | None, given: dict[str, str | None]) -> tuple[Program, Bench, Folder, bool]:
    """The cells that were asked for, made ready, with what measures them and where they are kept.

    Raises:
        PlanError: all that is wrong with the plan; each line has been said.
    """
    from gddim_cli.bench.folder import Folder
    from gddim_cli.bench.jobs import prepare
    from gddim_cli.bench.plan import read_plan
    from gddim_cli.bench.tools import Bench
    from gddim_cli.bench.words import PlanError, from_options
    from gddim_cli.evaluation.evaluator import open_evaluator

    problems: list[str] = []
    try:
        words = from_options(given, problems)
        wanted, own = read_plan(plan, table, words, problems)
        plain = {name: said[0].value for name, said in own.items() if said}
        try:
            where = find_device(plain.get("device", "auto"))
        except UsageError as error:  # told with all else that is wrong
            said = own["device"][0].where
            problems.append(str(error) if said.startswith("--") else f"{said}: {error}")
            where = find_device("cpu")

        def judge(ref: Any, protocol: Any, mode: Any, inception: Any, shape: Any) -> Any:
            return open_evaluator(ref, protocol, mode, inception, where, shape)

        tools = Bench(judge, where, plain.get("batch_size", BATCH_SIZE))
        program = prepare(wanted, tools)
    except PlanError as error:
        for line in error.lines:
            say(line)
        raise UsageError(error.summary) from error
    folder = options.folder("--out", Path(plain.get("out", OUT)))
    return program, tools, Folder(folder), plain.get("keep_images", False)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of gddim bench.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    json: options.Json = False,
) -> None:
    """Compare two runs cell by cell: the same settings, seeds and images under the same judge; checkpoints may differ."""
    from gddim_cli.bench.compare import compare as pairs_of
    from gddim_cli.cli import bench_tables

    bench_tables.show_pairs(pairs_of(first, second), first, second, json)
