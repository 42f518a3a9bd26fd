"""Plans as they are written, in YAML or as options: checked values with their places, and all mistakes.

A place is a path, `$.rows[2].nfe`, or an option, `--nfe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gddim_cli.bench.cell import PLAN_SETTINGS, Cell
from gddim_cli.bench.published import find_row
from gddim_cli.errors import GddimError, UsageError, nearest
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.protocols import find_protocol
from gddim_cli.runs.request import sampling_settings
from gddim_cli.runtime.typed_yaml import read_yaml
from gddim_cli.samplers.registry import find_sampler
from gddim_cli.settings import Setting, brief, declared, split

FIND: dict[str, Callable[[Any, str], object]] = {"sampler": find_sampler, "metric": find_metric, "published": find_row}
FIND["protocol"] = lambda name, _: find_protocol(name)
"""What refuses a name that nothing has, called with the name and its place."""
Values = dict[str, list[tuple[Any, str]]]
"""Values by key, each with its place."""


class PlanError(UsageError):
    """A plan that cannot run; `lines` has a line for each mistake, in the order of the rows."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        row = re.compile(r"\$\.rows\[(\d+)\]")
        self.lines = sorted(dict.fromkeys(problems), key=lambda line: int(m[1]) if (m := row.match(line)) else -1)
        super().__init__(f"{source}: {len(self.lines)} problem{'s' * (len(self.lines) != 1)}, nothing was run")


@dataclass
class PlanFile:
    """A plan as it was written: its name, its settings, and its rows with their places."""

    source: str
    top: Values
    rows: list[tuple[Values, str]]


def cell_settings() -> dict[str, Setting]:
    """Every setting of a cell by key; `seeds` is a list of `seed`. Without a value the plan's holds."""
    found = {**sampling_settings(), **declared(Cell)}
    seed, which = (
        found.pop("seed"),
        "Checkpoint: a name that `gddim checkpoints` lists, or a file's path. Default: mnist.",
    )
    about = replace(seed.about, flag="--seeds")
    found["seeds"] = replace(seed, key="seeds", help="Seeds; tables show mean and spread.", about=about)
    found["checkpoint"] = replace(found["checkpoint"], help=which)
    return {key: replace(setting, default=None) for key, setting in found.items()}


def read_plan_file(path: Path, problems: list[str], name: str | None = None) -> PlanFile:
    """A plan from YAML, without what is wrong with it, which is added to `problems`.

    Raises:
        DataError: the file cannot be read, is too large, or is not YAML.
    """
    raw, plan, cells = read_yaml(path, name), PlanFile(name or str(path), {}, []), cell_settings()
    if not isinstance(raw, dict):
        problems.append(f"$: a mapping of settings is needed; {nearest('', ['rows', *cells, *PLAN_SETTINGS])}")
        return plan
    top = {key: value for key, value in raw.items() if key != "rows"}
    plan.top = values_of(top, "$", {**cells, **PLAN_SETTINGS}, problems)
    rows = raw.get("rows", [{}])
    if not isinstance(rows, list) or not rows:
        problems.append("$.rows: a list of mappings is needed, with at least one")
        return plan
    for number, row in enumerate(rows):
        place = f"$.rows[{number}]" if "rows" in raw else "$"
        if isinstance(row, dict):
            plan.rows.append((values_of(row, place, cells, problems), place))
        else:
            problems.append(f"{place}: a row is a mapping of settings, not {brief(row)}")
    return plan


def values_of(raw: Mapping[Any, Any], place: str, known: Mapping[str, Setting], problems: list[str]) -> Values:
    """The checked values of a mapping."""
    found: Values = {}
    for key, value in raw.items():
        where = f"{place}.{str(key)[:60]}"
        if key in known:
            parts = (
                [(item, f"{where}[{i}]") for i, item in enumerate(value)]
                if isinstance(value, list)
                else [(value, where)]
            )
            found[key] = checked(known[key], [] if value is None else parts, where, problems, known[key].check)
        elif key in PLAN_SETTINGS:
            problems.append(f"{where}: a setting of the whole plan, not of a row")
        else:
            problems.append(f"{where}: there is no setting {brief(key)}; {nearest(str(key), [*known, 'rows'])}")
    return found


def from_options(given: Mapping[str, Any], problems: list[str]) -> Values:
    """The checked values of options by key: `--nfe 10,20` is `nfe: [10, 20]`."""
    cells, found = cell_settings(), {}
    for key, text in given.items():
        setting = cells.get(key) or PLAN_SETTINGS[key]
        parts = [(part, setting.flag) for part in (split(text) if key in cells else [text])]
        read = setting.parse if isinstance(text, str) else setting.check
        found[key] = checked(setting, parts, setting.flag, problems, read)
    return found


def checked(
    setting: Setting, parts: Sequence[tuple[Any, str]], place: str, problems: list[str], read: Callable[[Any, str], Any]
) -> list[tuple[Any, str]]:
    """The values of a setting that `read` accepts, each once."""
    if not parts:
        problems.append(f"{place}: the list is empty; give a value, or leave {setting.key} out")
    if len(parts) > 1 and setting.key in ("table", "published", *PLAN_SETTINGS):
        problems.append(f"{place}: one value is needed, not a list")
        return []
    good: list[tuple[Any, str]] = []
    for part, where in parts:
        try:
            value = read(part, where)
            if setting.key in FIND:
                FIND[setting.key](value, where)
        except GddimError as error:
            problems.append(str(error).replace(f"{setting.flag}:", f"{where}:", 1))
            continue
        if any(value == other for other, _ in good):
            problems.append(f"{where}: {part} is listed twice; leave one out")
        else:
            good.append((" ".join(value.split()) if setting.key == "table" else value, where))
    return good
