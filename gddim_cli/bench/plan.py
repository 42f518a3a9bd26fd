"""From a plan file and options to cells: lists multiply, rows add to what stands above them, options replace both."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.bench.cell import PLAN_SETTINGS, Cell, PlanSettings
from gddim_cli.bench.check import Checker, Where
from gddim_cli.bench.plan_file import PlanFile, Values, read_plan_file
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan
from gddim_cli.hub.store import BUNDLED
from gddim_cli.samplers.registry import SAMPLERS, having, sampler_options
from gddim_cli.settings import declared

PRESETS = Path(__file__).parent / "presets"
ELSEWHERE = {*PLAN_SETTINGS, "nfe", "num", "seeds", "metric", "mode", "inception", "dtype", "tf32"}
"""Options that leave the rows of the default plan as they are."""
MOST_CELLS, SOLVER_ERROR_IMAGES = 10_000, 16


def read_plan(path: Path | None, table: int | None, options: Values, problems: list[str]) -> PlanFile:
    """The plan of a file, one of the paper's tables, or the default plan.

    Options that choose other images or another reference than the default plan's replace its rows by one row of gddim.

    Raises:
        DataError: the file cannot be read.
    """
    if path is not None:
        return read_plan_file(path, problems)
    title = f"--table {table}" if table else "the default plan"
    plan = read_plan_file(PRESETS / (f"table{table}.yaml" if table else "default.yaml"), problems, title)
    changed = {key for key in options.keys() - ELSEWHERE if plain(options, key) != plain(plan.top, key)}
    if table or not changed:
        return plan
    dropped = {"solver_error"} | ({"ref"} if changed & {"checkpoint", "protocol"} else set())
    dropped |= {"num"} if "protocol" in changed else set()
    return PlanFile("the options", {key: values for key, values in plan.top.items() if key not in dropped})


def plain(values: Values, key: str) -> list[Any]:
    """The values of a setting without their places."""
    return [value for value, _ in values.get(key, [])]


def plan_settings(plan: PlanFile, options: Values) -> PlanSettings:
    """The settings of the plan as a whole."""
    given = {**plan.top, **options}
    return PlanSettings(**{key: given[key][0][0] for key in PLAN_SETTINGS if given.get(key)})


def make_plan(plan: PlanFile, options: Values, resources: Resources, problems: list[str], preset: bool) -> BenchPlan:
    """The checked plan.

    Args:
        preset: whether cells that a chosen checkpoint or sampler cannot make are left out.

    Raises:
        PlanError: everything that is wrong with the plan, `problems` included.
    """
    replaced = options.keys() - PLAN_SETTINGS.keys()
    checker = Checker(resources, problems, [], preset and bool(replaced - ELSEWHERE), bool(replaced))
    over = {key: values for key, values in options.items() if key in replaced}
    for cell, where in expand(plan, over, problems, checker.notes):
        checker.check(cell, where)
    own = plan_settings(plan, options)
    wanted = bool(own.solver_error_images) if own.solver_error is None else own.solver_error
    return checker.plan(plan.source, (own.solver_error_images or SOLVER_ERROR_IMAGES) if wanted else 0)


def expand(plan: PlanFile, over: Values, problems: list[str], notes: list[str]) -> list[tuple[Cell, Where]]:
    """Every cell of every row, with the places of its settings and, as "row", of its row."""
    hidden = {"ref", "protocol", "mode"} if {"ref", "protocol"} & over.keys() else set()  # options replace all of them
    top = {key: values for key, values in plan.top.items() if key not in PLAN_SETTINGS and key not in hidden}
    found: list[tuple[Cell, Where]] = []
    used: set[str] = set()
    for row, place in [({}, "$")] if plan.rows is None else plan.rows:
        own = {**{key: values for key, values in row.items() if key not in hidden}, **over}
        given = complete({**top, **own}, place, problems)
        samplers = plain(given, "sampler")
        for key in sampler_options().keys() & given.keys():
            chosen = over if "sampler" in over else own
            if set(having(key)) & set(samplers):
                used.add(key)
            elif key in chosen:
                used.add(key)
                where, others = chosen[key][0][1], ", ".join(having(key))
                problems.append(f"{where}: unsupported by {', '.join(samplers)}; an option of {others}")
        if len(given.get("k", [])) > 1:
            without = [name for name in samplers if not SAMPLERS[name].uses_k]
            notes += [f"K has no effect on {name}; one row stands for all." for name in without]
        found += product(given, place)
    unused = {key: over.get(key) or top.get(key) for key in sampler_options() if key not in used}
    problems += [
        f"{of[0][1]}: no sampler of this plan has it; {', '.join(having(key))} do" for key, of in unused.items() if of
    ]
    return found


def complete(given: Values, place: str, problems: list[str]) -> Values:
    """A row's values with defaults, checkpoints first so that each is loaded once; nothing where no cell can be made."""
    if any(key in given and not given[key] for key in ("sampler", "checkpoint", "nfe")):
        return {}  # refused already
    defaults = {key: [(value, place)] for key, value in (("checkpoint", BUNDLED), ("sampler", "gddim"), ("seeds", 0))}
    found = {**defaults, **{key: values for key, values in given.items() if values}}
    own_tolerance = "rk45" in plain(found, "sampler") and {"rtol", "atol"} & found.keys()
    if "nfe" not in given:
        problems.append(f"{place}: nfe is missing; give the network evaluations, as in nfe: [10, 20, 50]")
    elif own_tolerance and len(given["nfe"]) > 1:
        problems.append(f"{given['nfe'][1][1]}: rk45 with rtol or atol spends what these take; give one NFE")
    elif math.prod(map(len, found.values())) > MOST_CELLS:
        problems.append(f"{place}: more than {MOST_CELLS} cells")
    else:
        return found
    return {}


def product(given: Values, place: str) -> list[tuple[Cell, Where]]:
    """The cells of a row, each once: a sampler takes no notice of options that it does not have."""
    found: dict[bytes, tuple[Cell, Where]] = {}
    options = sampler_options().keys()
    for values in itertools.product(*given.values()) if given else []:
        where = {"row": place, **{key: place for key, (_, place) in zip(given, values, strict=True)}}
        own = {key: value for key, (value, _) in zip(given, values, strict=True)}
        spec = SAMPLERS[own["sampler"]]
        unused = options - declared(spec.options).keys() | (set() if spec.uses_k else {"k"})
        cell = Cell.of({key: value for key, value in own.items() if key not in unused}, where)
        found.setdefault(msgspec.json.encode(cell), (cell, where))
    return list(found.values())
