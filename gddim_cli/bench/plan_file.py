"""Plans as they are written: YAML or options, to checked values that know their place. All mistakes are collected.

A place is a path, `$.rows[2].nfe`, or an option, `--nfe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gddim_cli.bench.cell import PLAN_SETTINGS, cell_settings, check_name
from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.settings import Setting, brief, split

LARGEST = 1_000_000
"""Bytes of a plan."""
PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool")}
NULL = "tag:yaml.org,2002:null"

Values = dict[str, list[tuple[Any, str]]]
"""By key, each value with its place."""


@dataclass
class PlanFile:
    """A plan as it was written.

    Attributes:
        source: its name in messages.
        top: the settings of every row and of the whole plan.
        rows: settings that add to `top` or replace it, each row with its place; None where the plan lists no rows.
    """

    source: str
    top: Values = field(default_factory=dict)
    rows: list[tuple[Values, str]] | None = None


class PlanError(UsageError):
    """A plan that cannot run; `lines` has a line for each mistake, in the plan's order."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.lines = sorted(dict.fromkeys(problems), key=row_number)
        count = f"{len(self.lines)} problem{'s' * (len(self.lines) != 1)}"
        self.summary = f"{source}: {count}, nothing was run"
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
    plan = PlanFile(name or str(path))
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise DataError(f"{plan.source}: larger than {LARGEST} bytes; this is not a plan")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise DataError(f"{plan.source}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{plan.source}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DataError(f"{plan.source}: lists are nested too deep; a plan needs two levels") from error
    cells = cell_settings()
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"$: a mapping of settings is needed; {nearest('', ['rows', *cells, *PLAN_SETTINGS])}")
        return plan
    for key, place, node in entries(root, "$", problems):
        if key == "rows":
            plan.rows = list(rows(node, cells, problems))
        else:
            add(plan.top, key, place, node, {**cells, **PLAN_SETTINGS}, problems)
    return plan


def rows(node: yaml.Node, cells: Mapping[str, Setting], problems: list[str]) -> Iterator[tuple[Values, str]]:
    """The rows of a plan with their places."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.append("$.rows: a list of mappings is needed, with at least one")
        return
    for number, item in enumerate(node.value):
        place = f"$.rows[{number}]"
        if isinstance(item, yaml.MappingNode):
            found: Values = {}
            for key, where, value in entries(item, place, problems):
                add(found, key, where, value, cells, problems)
            yield found, place
        else:
            problems.append(f"{place}: a row is a mapping of settings, not {quoted(item)}")


def entries(node: yaml.MappingNode, place: str, problems: list[str]) -> Iterator[tuple[str, str, yaml.Node]]:
    """The keys of a mapping with their places and values; a key that is no word, or given twice, is refused."""
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{place}: a key is the name of a setting, not a list or a mapping")
            continue
        name = " ".join(key.value.split())[:60]
        if name in seen:
            problems.append(f"{place}.{name}: given twice; leave one out")
            continue
        seen.add(name)
        yield name, f"{place}.{name}", value


def add(
    found: Values, key: str, place: str, node: yaml.Node, known: Mapping[str, Setting], problems: list[str]
) -> None:
    """Adds the values of one key to `found`."""
    if key not in known:
        whole = f"'{key}' is a setting of the whole plan, not of a row"
        here = "" if "out" in known else " of a row"
        unknown = f"there is no setting '{key}'{here}; {nearest(key, [*known, *([] if here else ['rows'])])}"
        problems.append(f"{place}: {whole if key in PLAN_SETTINGS else unknown}")
        return
    listed = isinstance(node, yaml.SequenceNode)
    items = [(item, f"{place}[{i}]") for i, item in enumerate(node.value)] if listed else [(node, place)]
    texts = []
    for item, where in items:
        if not isinstance(item, yaml.ScalarNode):
            problems.append(f"{where}: expected one value, not {quoted(item)}")
        elif item.tag in PLAIN:
            truth = item.tag.endswith("bool") and item.style is None
            texts.append((item.value.lower() if truth else item.value, where))
        elif item.tag != NULL or listed:
            kind = item.tag.removeprefix("tag:yaml.org,2002:")
            problems.append(f"{where}: {quoted(item)} is a {kind} to YAML; put a text in quotes")
    if texts or not items or items[0][0].tag == NULL:
        found[key] = checked(known[key], texts, place, problems)
    else:
        found[key] = []


def quoted(node: yaml.Node) -> str:
    """A node's text, for messages."""
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
    return brief(str(node.value))


def checked(
    setting: Setting, texts: Sequence[tuple[Any, str]], place: str, problems: list[str]
) -> list[tuple[Any, str]]:
    """The values that texts stand for, each with its place; mistakes are added to `problems`."""
    if not texts:
        problems.append(f"{place}: the list is empty; give a value, or leave {setting.key} out")
    if len(texts) > 1 and setting.key in ("table", "published", *PLAN_SETTINGS):
        problems.append(f"{place}: one value is needed, not a list")
        return []
    good: list[tuple[Any, str]] = []
    for text, where in texts:
        try:
            value = setting.parse(text, where) if isinstance(text, str) else setting.check(text, where)
            check_name(setting.key, value, where)
        except UsageError as error:
            problems.append(str(error))
            continue
        if any(value == other for other, _ in good):
            problems.append(f"{where}: {text} is listed twice; leave one out")
        else:
            good.append((" ".join(value.split()) if setting.key == "table" else value, where))
    return good


def from_options(given: Mapping[str, Any], problems: list[str]) -> Values:
    """The values of options by key: `--nfe 10,20` is `nfe: [10, 20]`. Mistakes are added to `problems`."""
    cells, found = cell_settings(), {}
    for key, text in given.items():
        setting = {**cells, **PLAN_SETTINGS}[key]
        texts = split(text) if key in cells else [text]
        found[key] = checked(setting, [(part, setting.flag) for part in texts], setting.flag, problems)
    return found
