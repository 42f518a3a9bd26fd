"""Plans as they are written, in YAML or as options: checked values, each with its place. All mistakes are collected.

A place is a path, `$.rows[2].nfe`, or an option, `--nfe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gddim_cli.bench.cell import PLAN_SETTINGS, cell_settings
from gddim_cli.bench.published import require_row
from gddim_cli.errors import UsageError, nearest
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.protocols import PROTOCOLS
from gddim_cli.runtime.typed_yaml import read_yaml
from gddim_cli.samplers.registry import SAMPLERS
from gddim_cli.settings import Setting, brief, split

Values = dict[str, list[tuple[Any, str]]]
"""Values by key, each with its place."""


@dataclass
class PlanFile:
    """A plan as it was written: settings of every row and of the whole plan, and rows that add to them, with their places.

    `rows` is None where there are none.
    """

    source: str
    top: Values = field(default_factory=dict)
    rows: list[tuple[Values, str]] | None = None


class PlanError(UsageError):
    """A plan that cannot run; `lines` has a line for each mistake, in the order of the rows."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.lines = sorted(dict.fromkeys(problems), key=row_number)
        self.summary = f"{source}: {len(self.lines)} problem{'s' * (len(self.lines) != 1)}, nothing was run"
        super().__init__(f"{self.summary}: {'; '.join(self.lines)}")


def row_number(problem: str) -> int:
    """The number of the row that a problem is in; -1 where it is in none."""
    found = re.match(r"\$\.rows\[(\d+)\]", problem)
    return int(found[1]) if found else -1


def read_plan_file(path: Path, problems: list[str], name: str | None = None) -> PlanFile:
    """A plan from YAML. What is wrong with it is added to `problems` and left out.

    Raises:
        DataError: the file cannot be read, is too large, or is not YAML.
    """
    raw, plan, cells = read_yaml(path, name), PlanFile(name or str(path)), cell_settings()
    everything = {**cells, **PLAN_SETTINGS}
    if not isinstance(raw, dict):
        problems.append(f"$: a mapping of settings is needed; {nearest('', ['rows', *everything])}")
        return plan
    plan.top = values_of({key: value for key, value in raw.items() if key != "rows"}, "$", everything, problems)
    rows = raw.get("rows")
    if "rows" in raw:
        plan.rows = []
        if not isinstance(rows, list) or not rows:
            problems.append("$.rows: a list of mappings is needed, with at least one")
        for number, row in enumerate(rows if isinstance(rows, list) else []):
            place = f"$.rows[{number}]"
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
            single = [] if value is None else [(value, where)]
            listed = [(item, f"{where}[{i}]") for i, item in enumerate(value)] if isinstance(value, list) else single
            found[key] = checked(known[key], listed, where, problems, known[key].check)
        elif key in PLAN_SETTINGS:
            problems.append(f"{where}: a setting of the whole plan, not of a row")
        else:
            problems.append(f"{where}: there is no setting {brief(key)}; {nearest(str(key), [*known, 'rows'])}")
    return found


def from_options(given: Mapping[str, Any], problems: list[str]) -> Values:
    """The values of options by key: `--nfe 10,20` is `nfe: [10, 20]`. Mistakes are added to `problems`."""
    cells, found = cell_settings(), {}
    for key, text in given.items():
        setting = {**cells, **PLAN_SETTINGS}[key]
        parts = [(part, setting.flag) for part in (split(text) if key in cells else [text])]
        found[key] = checked(
            setting, parts, setting.flag, problems, setting.check if text is True or text is False else setting.parse
        )
    return found


def checked(
    setting: Setting, parts: Sequence[tuple[Any, str]], place: str, problems: list[str], read: Callable[[Any, str], Any]
) -> list[tuple[Any, str]]:
    """The values of one setting with their places; mistakes are added to `problems`."""
    if not parts:
        problems.append(f"{place}: the list is empty; give a value, or leave {setting.key} out")
    if len(parts) > 1 and setting.key in ("table", "published", *PLAN_SETTINGS):
        problems.append(f"{place}: one value is needed, not a list")
        return []
    good: list[tuple[Any, str]] = []
    for part, where in parts:
        try:
            value = read(part, where)
            require_name(setting.key, value, where)
        except UsageError as error:
            problems.append(str(error))
            continue
        if any(value == other for other, _ in good):
            problems.append(f"{where}: {part} is listed twice; leave one out")
        else:
            good.append((" ".join(value.split()) if setting.key == "table" else value, where))
    return good


def require_name(key: str, name: Any, where: str) -> None:
    """Raises UsageError for a name that nothing has; the types of settings do not know names."""
    if key in ("sampler", "metric", "published"):
        {"sampler": SAMPLERS.find, "metric": find_metric, "published": require_row}[key](name, where)
    elif key == "protocol" and name not in PROTOCOLS:
        raise UsageError(f"{where}: there is no protocol '{name}'; {nearest(name, PROTOCOLS)}")
