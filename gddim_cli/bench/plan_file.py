"""Reads plans as users write them, in YAML or as options, and checks the settings one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gddim_cli.bench.cell import PLAN_SETTINGS, Cell
from gddim_cli.bench.published import find_row
from gddim_cli.errors import UsageError, nearest
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.protocols import find_mode, find_protocol
from gddim_cli.runs.request import sampling_settings
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.setting_lists import ListReader, Values
from gddim_cli.runtime.text import counted
from gddim_cli.runtime.typed_yaml import read_yaml
from gddim_cli.samplers.registry import find_sampler
from gddim_cli.settings import Setting, brief, declared

CHECKPOINT = "A name that `gddim checkpoints` lists, a file, or FILE.py:FUNCTION without arguments. Default: mnist."
FIND: dict[str, Callable[[Any, str], object]] = {"sampler": find_sampler, "metric": find_metric, "published": find_row}
FIND |= {"protocol": lambda name, _: find_protocol(name), "mode": lambda name, _: find_mode(name)}
FIND["device"] = lambda name, _: find_device(name)
WHOLE = dict.fromkeys(PLAN_SETTINGS, "a setting of the whole plan, not of a row")


class PlanError(UsageError):
    """A plan that cannot run; `lines` has a line for each mistake, in the order of the rows."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        row = re.compile(r"\$\.rows\[(\d+)\]")
        self.lines = sorted(dict.fromkeys(problems), key=lambda line: int(m[1]) if (m := row.match(line)) else -1)
        super().__init__(f"{source}: {counted(len(self.lines), 'problem')}, nothing was run")


@dataclass
class PlanFile:
    """A plan as the user wrote it: name, settings, rows with their YAML paths, and whether it ships with gddim."""

    source: str
    top: Values
    rows: list[tuple[Values, str]]
    preset: bool = False


def cell_settings() -> dict[str, Setting]:
    """Every setting of a cell by key, with `seeds` in place of `seed`. No defaults, so that the plan's values apply."""
    found = {**sampling_settings(), **declared(Cell)}
    seed = replace(
        found.pop("seed"), key="seeds", help="Seeds. Tables show the mean over all seeds, and its standard error."
    )
    found["seeds"] = replace(seed, about=replace(seed.about, flag="--seeds"))
    found["checkpoint"] = replace(found["checkpoint"], help=CHECKPOINT)
    return {key: replace(setting, default=None) for key, setting in found.items()}


def reader(problems: list[str]) -> ListReader:
    """A reader of the settings of plans, which adds mistakes to `problems`."""
    return ListReader({**cell_settings(), **PLAN_SETTINGS}, {"table", "published", *PLAN_SETTINGS}, FIND, problems)


def read_plan_file(path: Path, problems: list[str], name: str | None = None) -> PlanFile:
    """A plan from YAML. Wrong settings are left out and reported in `problems`. Raises DataError, see `read_yaml`."""
    raw, plan, read = read_yaml(path, name), PlanFile(name or str(path), {}, []), reader(problems)
    if not isinstance(raw, dict):
        problems.append(f"$: a mapping of settings is needed; {nearest('', ['rows', *read.known])}")
        return plan
    listed, rows = "rows" in raw, raw.pop("rows", [{}])
    plan.top = read.mapping(raw, "$")
    if not isinstance(rows, list) or not rows:
        problems.append("$.rows: a list of mappings is needed, with at least one")
        return plan
    for number, row in enumerate(rows):
        place = f"$.rows[{number}]" if listed else "$"
        if isinstance(row, dict):
            plan.rows.append((read.mapping(row, place, WHOLE), place))
        else:
            problems.append(f"{place}: a row is a mapping of settings, not {brief(row)}")
    return plan
