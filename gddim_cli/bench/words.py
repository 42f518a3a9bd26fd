"""The words of a plan as they were said: every value with its line or option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gddim_cli.bench.vocabulary import WORDS
from gddim_cli.errors import DataError, UsageError, nearest


@dataclass(frozen=True)
class Said:
    """A value, and where it was said: `plan.yaml:3`, or `--nfe`."""

    value: Any
    where: str


Words = dict[str, list[Said]]


@dataclass(frozen=True)
class Row:
    """Words that belong together: the product of their values are cells."""

    words: Words
    where: str


@dataclass
class Document:
    """A plan as it was written.

    Attributes:
        source: its name in messages.
        top: words for every row.
        rows: mappings that add to `top` or replace it; one empty row where the plan lists none.
    """

    source: str
    top: Words = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


class PlanError(UsageError):
    """A plan that cannot run.

    Attributes:
        lines: everything that is wrong with it, each line naming its place.
    """

    def __init__(self, source: str, lines: list[str]) -> None:
        self.lines = sorted(dict.fromkeys(lines), key=line_number)
        count = f"{len(self.lines)} problem{'s' if len(self.lines) > 1 else ''}"
        super().__init__(f"{source}: {count}, nothing was run: {'; '.join(self.lines)}")
        self.summary = f"{source}: {count}, nothing was run"


def line_number(problem: str) -> int:
    """The line that a problem names after the file's name; 0 for an option's."""
    found = re.match(r".*?:(\d+): ", problem)
    return int(found[1]) if found else 0


def read_document(path: Path, problems: list[str], name: str | None = None) -> Document:
    """A plan from YAML; what is wrong with it is added to `problems`, with its line, and left out.

    Raises:
        DataError: the file cannot be read or is not YAML.
    """
    source = name or str(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DataError(f"{source}: lists stand in lists too deep; a plan needs two levels") from error
    document = Document(source)
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{source}:1: a mapping of words is needed; {nearest('', ['rows', *WORDS])}")
        return document
    document.top = _mapping(root, source, problems, top=document)
    return document


def _mapping(node: yaml.MappingNode, source: str, problems: list[str], top: Document | None = None) -> Words:
    """The words of a mapping; the rows of the whole plan go to `top`."""
    found: Words = {}
    seen: dict[str, str] = {}
    allowed = [word for word, meaning in WORDS.items() if top or meaning.cell]
    for key, value in node.value:
        where = f"{source}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{where}: a word is needed before the colon, not a list or a mapping")
            continue
        word = str(key.value)
        if word in seen:
            problems.append(f"{where}: '{word}' is said before, at {seen[word]}; leave one out")
            continue
        seen[word] = where
        if top and word == "rows":
            top.rows = _rows(value, source, problems)
        elif word not in allowed:
            problems.append(
                f"{where}: there is no '{word}' here; {nearest(word, [*allowed, *(['rows'] if top else [])])}"
            )
        else:
            items = value.value if isinstance(value, yaml.SequenceNode) else [value]
            said = [Said(_construct(item), f"{source}:{item.start_mark.line + 1}") for item in items]
            found[word] = checked(word, said, where, problems, listed=isinstance(value, yaml.SequenceNode))
    return found


def _rows(node: yaml.Node, source: str, problems: list[str]) -> list[Row]:
    where = f"{source}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.append(f"{where}: rows: a list of mappings is needed, at least one")
        return []
    rows = []
    for item in node.value:
        place = f"{source}:{item.start_mark.line + 1}"
        if isinstance(item, yaml.MappingNode):
            rows.append(Row(_mapping(item, source, problems), place))
        else:
            problems.append(f"{place}: a row is a mapping of words, not {_construct(item)!r}")
    return rows


def _construct(node: yaml.Node) -> Any:
    """What a node means to `yaml.safe_load`; what it cannot make of it stays a pair that no check takes."""
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
        return node.tag.removeprefix("tag:yaml.org,2002:"), brief(node)


def brief(node: yaml.Node) -> str:
    """A node's text, for messages."""
    written = str(node.value) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
    return written if len(written) < 40 else f"{written[:36]}..."


def checked(word: str, said: list[Said], where: str, problems: list[str], listed: bool = True) -> list[Said]:
    """The values that a word may have; of the others `problems` hears."""
    meaning = WORDS[word]
    if not said or (not listed and said[0].value is None):
        problems.append(f"{where}: {word}: the list is empty; give a value or leave the word out")
        return []
    if listed and not meaning.many and len(said) > 1:
        problems.append(f"{where}: {word}: one value, not a list")
        return []
    good: list[Said] = []
    for one in said:
        try:
            value = meaning.check(one.value)
        except (ValueError, TypeError) as error:
            problems.append(f"{one.where}: {word}: {error}")
            continue
        if any(value == other.value for other in good):
            problems.append(f"{one.where}: {word}: {one.value} stands twice; leave one out")
        else:
            good.append(Said(value, one.where))
    return good


def from_options(given: Mapping[str, str | None], problems: list[str]) -> Words:
    """The words that options said: `--nfe 10,20` is `nfe: [10, 20]`."""
    found: Words = {}
    whole_texts = ("checkpoint", "diffusion", "ref", "inception", "out", "device")
    for word, value in given.items():
        if value is None:
            continue
        where = f"--{word.replace('_', '-')}"
        parts = [value] if word in whole_texts else [part.strip() for part in value.split(",")]
        said = [Said(part if word in whole_texts else _scalar(part), where) for part in parts if part]
        found[word] = checked(word, said, where, problems)
    return found


def _scalar(part: str) -> Any:
    """A number or truth that an option said, else the word; not by YAML, to which 010 is 8 and 1:30 is 90."""
    if part in ("true", "false"):
        return part == "true"
    for kind in (int, float):
        try:
            return kind(part)
        except ValueError:
            continue
    return part
