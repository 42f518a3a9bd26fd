"""Tables of `gddim bench` on stdout: the plan, what is done, two runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.cli.progress import duration, say, show_table, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from gddim_cli.bench.compare import Pair
    from gddim_cli.bench.folder import Folder
    from gddim_cli.bench.jobs import Job, Program
    from gddim_cli.bench.sheets import Row, Sheet
    from gddim_cli.bench.tools import Bench


def sheet_table(sheet: Sheet, current: tuple[str, str] | None) -> Table:
    """A table of distances; `current` is the key of the cell at work and what is shown of it."""
    from gddim_cli.bench import figures

    grid = figures.distances(sheet)
    if current:
        lines = {line[0]: line for line in grid}
        for row in sheet.rows:
            for place, keys in enumerate(row.keys, start=1):
                if current[0] in keys:
                    lines[row.label][place] = f"{lines[row.label][place].strip('… *')} {current[1]}".strip()
    title = f"{sheet.title}: {sheet.heading}" if sheet.title else sheet.heading
    return grid_table(grid, title, figures.notes(sheet))


def grid_table(grid: list[list[str]], title: str, notes: list[str] | None = None) -> Table:
    from rich.table import Table
    from rich.text import Text

    head, *body = grid
    table = Table(
        title=Text(title),
        title_justify="left",
        caption=Text("\n".join(notes)) if notes else None,
        caption_justify="left",
    )
    table.add_column(head[0])
    for name in head[1:]:
        table.add_column(name, justify="right")
    for line in body:
        style = "dim" if line[0] in ("published", "difference") else ""
        cells = [Text(cell, style="red" if cell.startswith("failed") else style) for cell in line]
        table.add_row(*cells)
    return table


def show_plan(program: Program, tools: Bench, folder: Folder, json: bool) -> None:
    """`--print-plan`: every row with its evaluations, and what they will take, measured on two batches."""
    from gddim_cli.bench.estimate import costs
    from gddim_cli.bench.jobs import describe
    from gddim_cli.bench.sheets import collect, sheets

    cost = costs(program, tools, folder)
    evaluations, seconds = sum(one.evaluations for one in cost.values()), sum(one.seconds for one in cost.values())
    asked = describe(program)
    if json:
        cells = [
            {
                "table": one.table,
                "cell": one.cell,
                "key": one.key,
                "evaluations": cost[one.key].evaluations,
                "done": cost[one.key].done,
            }
            for one in asked.placed
        ]
        write_json({"plan": asked, "cells": cells, "evaluations": evaluations, "seconds": seconds})
        return
    for note in program.notes:
        say(f"left out: {note}")
    jobs = {job.key: job for job in program.jobs}
    for sheet in sheets(collect(asked, folder)):
        show_table(plan_table(sheet, jobs))
    done = sum(one.done for one in cost.values())
    before = f" ({done} of them done)" if done else ""
    images = sum(job.num for job in program.jobs)
    say(
        f"{len(jobs)} cells{before}, {images} images, {evaluations} evaluations to go, those for solver errors and tuning "
        "included, counted for each image: "
        f"about {duration(seconds)} on {tools.device}, by two batches of {tools.batch_size}"
    )


def plan_table(sheet: Sheet, jobs: dict[str, Job]) -> Table:
    """A table of what would run: evaluations that each place will make, in all seeds."""
    from gddim_cli.bench.figures import column_names

    def place(keys: list[str]) -> str:
        if not keys:
            return ""
        first = jobs[keys[0]]
        real = "about " if first.plan.nfe is None else f"({first.nfe}) " if first.nfe != first.cell.nfe else ""
        return f"{real}{sum(jobs[key].nfe * jobs[key].num for key in keys)}"

    def seeds(row: Row) -> str:
        return ", ".join(map(str, sorted({jobs[key].cell.seed for keys in row.keys for key in keys})))

    grid = [["sampler", "seeds", *column_names(sheet)]]
    grid += [[row.label, seeds(row), *(place(keys) for keys in row.keys)] for row in sheet.rows]
    title = f"{sheet.title}: {sheet.heading}" if sheet.title else sheet.heading
    return grid_table(grid, f"{title}; evaluations, counted for each image")


def show_status(path: Path, json: bool) -> None:
    """`--status DIR`: what is done, what is missing, what failed."""
    from gddim_cli.bench.folder import Folder
    from gddim_cli.bench.report import results

    folder = Folder(path)
    asked = folder.asked()
    found = results(asked, folder)
    cells = {cell.key: cell.result for cell in found.cells}
    failed = {cell.key: cell.result.failed for cell in found.cells if cell.result.failed}
    failed |= {cell.key: f"solver error: {cell.solver_failed}" for cell in found.cells if cell.solver_failed}
    done = [key for key, result in cells.items() if result.distance is not None and key not in failed]
    begun = {key: folder.rows_done(key) for key in cells if key not in done}
    missing = {key: {"images": begun[key], "of": cells[key].num} for key in begun if key not in failed}
    if json:
        write_json({"source": asked.source, "cells": len(cells), "done": done, "missing": missing, "failed": failed})
        return
    for sheet in found.tables:
        show_table(sheet_table(sheet, None))
    say(f"{path}: {len(done)} of {len(cells)} cells are done, {len(missing)} missing, {len(failed)} failed")
    for key, images in begun.items():
        if images:
            settings = cells[key].settings
            say(
                f"{settings['sampler']}, NFE {settings['nfe']}, seed {settings['seed']}: {images} of {cells[key].num} images"
            )


def show_pairs(pairs: list[Pair], first: Path, second: Path, json: bool) -> None:
    """`compare A B`: a line a cell, then what only one has."""
    from gddim_cli.bench.figures import figure, signed

    if json:
        write_json(pairs)
        return
    grid = [["sampler", "NFE", "seed", "images", "metric", "A", "B", "B - A", "B / A - 1"]]
    for pair in pairs:
        a, b = (
            figure(value) if value is not None else "no number" if there else "not there"
            for value, there in ((pair.a, pair.in_a), (pair.b, pair.in_b))
        )
        change = "" if pair.ratio is None else f"{100 * pair.ratio:+.2f} %"
        grid.append(
            [
                pair.sampler,
                str(pair.nfe),
                str(pair.seed),
                str(pair.images),
                pair.metric,
                a,
                b,
                signed(pair.difference, pair.a),
                change,
            ]
        )
    show_table(grid_table(grid, f"A: {first}, B: {second}"))
    both = sum(pair.in_a and pair.in_b for pair in pairs)
    only = [sum(pair.in_a and not pair.in_b for pair in pairs), sum(pair.in_b and not pair.in_a for pair in pairs)]
    say(f"{both} cells in both, {only[0]} only in {first}, {only[1]} only in {second}")


def write_json(value: Any) -> None:
    import msgspec

    with stdout() as out:
        out.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
