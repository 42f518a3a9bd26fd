"""The words of a plan: what each may be, and every value with the line or option that said it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gddim_cli.bench.published import known
from gddim_cli.diffusions import number
from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.noise import LARGEST_SEED
from gddim_cli.samplers.methods import METHODS


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


def whole(lowest: int, highest: float = math.inf) -> Callable[[Any], int]:
    """A check for whole numbers in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            upper = f" to {highest:.0f}" if highest < 1e8 else " up"
            raise ValueError(f"{value!r} is not a whole number from {lowest}{upper}")
        return value

    return check


def real(value: Any) -> float:
    value = number(value)  # YAML takes 1e-3 for a word
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise ValueError(f"{value!r} is not a name")
    return str(value)


def truth(value: Any) -> bool:
    if value is not True and value is not False:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def one_of(*known: str) -> Callable[[Any], str]:
    """A check for one of a few names."""

    def check(value: Any) -> str:
        if value not in known:
            raise ValueError(f"there is no {value!r}; {nearest(str(value), known)}")
        return str(value)

    return check


def power(value: Any) -> float:
    named = {"linear": 1.0, "quadratic": 2.0}
    if value in named:
        return named[value]
    found = real(value)
    if found <= 0:
        raise ValueError(f"{value!r} is neither linear, quadratic nor a positive number (the power)")
    return found


def row_of_paper(value: Any) -> str:
    if not isinstance(value, str) or not known(value):
        raise ValueError(f"{value!r} is no row of the paper's tables; table1.R and table3.cld.em are")
    return value


@dataclass(frozen=True)
class Word:
    """What a word means.

    Attributes:
        check: a value as it is used; raises ValueError for one that cannot be.
        many: whether a list of values multiplies the cells.
        cell: whether it belongs to cells, and so may stand in a row; else to the plan as a whole.
    """

    check: Callable[[Any], Any]
    many: bool = True
    cell: bool = True


WORDS: dict[str, Word] = {
    "checkpoint": Word(text),
    "diffusion": Word(text),
    "sampler": Word(one_of(*METHODS)),
    "order": Word(whole(0, 3)),
    "lambda": Word(real),
    "eta": Word(real),
    "corrector": Word(truth),
    "rtol": Word(real),
    "atol": Word(real),
    "k": Word(one_of("R", "L")),
    "denoise": Word(truth),
    "time_grid": Word(power),
    "t_end": Word(real),
    "quantize": Word(one_of("floor", "round")),
    "dtype": Word(one_of("float32", "float64", "bfloat16", "float16")),
    "nfe": Word(whole(1, 100_000)),
    "num": Word(whole(2, 10_000_000)),
    "ref": Word(text),
    "protocol": Word(text),
    "mode": Word(text),
    "inception": Word(text),
    "seeds": Word(whole(0, LARGEST_SEED)),
    "table": Word(text, many=False),
    "published": Word(row_of_paper, many=False),
    "solver_error": Word(truth, many=False, cell=False),
    "solver_error_images": Word(whole(1, 10_000), many=False, cell=False),
    "keep_images": Word(truth, many=False, cell=False),
    "batch_size": Word(whole(1, 100_000), many=False, cell=False),
    "device": Word(text, many=False, cell=False),
    "out": Word(text, many=False, cell=False),
}


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
    """What a node means to `yaml.safe_load`; a tag that it refuses stays a word that no check takes."""
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except yaml.YAMLError:
        return (node.tag,)


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
    try:
        return yaml.safe_load(part)
    except yaml.YAMLError:
        return part
