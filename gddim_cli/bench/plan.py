"""A plan: from its words to cells, each one sampler at one budget with one seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.bench.vocabulary import WORDS
from gddim_cli.bench.words import Document, Row, Said, Words, read_document
from gddim_cli.samplers.registry import METHODS, Choices

PRESETS = Path(__file__).parent / "presets"
DEFAULT = "default"

OPTIONS = {"order": "order", "lambda": "lam", "eta": "eta", "corrector": "corrector", "rtol": "rtol", "atol": "atol"}
"""Words that only some samplers have, with their names in `Choices`."""
K_MATTERS = ("gddim", "heun")
"""To the others K is only how the score is written."""
CHOOSING = ("checkpoint", "diffusion", "sampler", *OPTIONS, "k", "ref", "protocol")
"""Options that say what is measured: with one of them and no plan, the default plan's rows do not stand."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"lam": "lambda"}):
    """All that a number depends on, in a plan's words; None is the checkpoint's, the protocol's or the sampler's own.

    Attributes:
        nfe: evaluations asked.
        num: images; None is the protocol's number.
        ref, protocol, mode, inception: what judges them.
    """

    checkpoint: str
    sampler: str
    nfe: int
    seed: int
    num: int | None = None
    order: int | None = None
    lam: float | None = None
    eta: float | None = None
    corrector: bool = False
    rtol: float | None = None
    atol: float | None = None
    k: str | None = None
    diffusion: str | None = None
    denoise: bool | None = None
    time_grid: float | None = None
    t_end: float | None = None
    quantize: str | None = None
    dtype: str = "float32"
    ref: str | None = None
    protocol: str | None = None
    mode: str | None = None
    inception: str | None = None

    @property
    def choices(self) -> Choices:
        """What a person may choose of the sampler."""
        return Choices(self.order, self.lam, self.eta, self.corrector, self.rtol, self.atol)

    @property
    def given(self) -> dict[str, Any]:
        """The sampling words that were said, as fields of `SamplingConfig`."""
        words = {"k": self.k, "denoise": self.denoise, "grid_power": self.time_grid, "t_end": self.t_end}
        return {name: value for name, value in {**words, "quantize": self.quantize}.items() if value is not None}


@dataclass(frozen=True)
class Wanted:
    """A cell in its place.

    Attributes:
        table: the title of the table that it stands in; "" is the only one.
        published: where its published number is, as `table1.R`, or None.
        where: of every word, and of the row as "row": for messages.
    """

    cell: Cell
    table: str
    published: str | None
    where: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        source: its name.
        wanted: every cell in its table, in order.
        problems: what is wrong with it already; the rest comes to light where its cells are built.
        solver_error: images whose distance to the converged solution is measured; 0 for none.
        lenient: whether cells that the chosen model cannot make are left out, as in a preset with another checkpoint.
        overridden: whether options replaced words, so that rows may have become equal.
    """

    source: str
    wanted: list[Wanted]
    problems: list[str]
    solver_error: int = 0
    lenient: bool = False
    overridden: bool = False


SOLVER_ERROR_IMAGES = 16


def make_plan(document: Document, options: Words, problems: list[str], preset: bool = False) -> Plan:
    """The plan of a document, its words replaced by those that options said; it may not run yet, see its `problems`."""
    over = {word: said for word, said in options.items() if WORDS[word].cell}
    used: set[str] = set()
    rows = document.rows or [Row({}, document.source)]
    wanted = [cell for row in rows for cell in _cells(document.top, row, over, used, problems)]
    for words in (document.top, over):
        for word in OPTIONS.keys() & words.keys() - used:
            if words[word]:
                names = ", ".join(method.name for method in METHODS.values() if OPTIONS[word] in method.options)
                problems.append(f"{words[word][0].where}: {word}: no sampler of this plan has it; {names} have")
                used.add(word)
    top = {**document.top, **options}
    measured = top["solver_error"][0].value if top.get("solver_error") else bool(top.get("solver_error_images"))
    images = top["solver_error_images"][0].value if top.get("solver_error_images") else SOLVER_ERROR_IMAGES
    return Plan(
        document.source,
        wanted,
        problems,
        images if measured else 0,
        lenient=preset and bool(set(CHOOSING) & over.keys()),
        overridden=bool(over),
    )


def _cells(top: Words, row: Row, over: Words, used: set[str], problems: list[str]) -> list[Wanted]:
    """The cells of a row: the product of its words' values, those that a sampler has not left out of it."""
    below = {word: values for word, values in {**top, **row.words}.items() if not replaced(word, over)}
    said = {word: values for word, values in {**below, **over}.items() if WORDS[word].cell}
    if not all(said.get(word, True) for word in ("sampler", "checkpoint", "nfe")):
        return []  # what was said of them has been refused
    said = {word: values for word, values in said.items() if values}
    for word, plain in (("sampler", "gddim"), ("checkpoint", "mnist"), ("seeds", 0)):
        said.setdefault(word, [Said(plain, row.where)])
    if "nfe" not in said:
        problems.append(f"{row.where}: nfe: is missing; say how many evaluations, as in nfe: [10, 20, 50]")
        return []
    own = over if "sampler" in over else {**row.words, **over}
    for word in OPTIONS.keys() & said.keys():
        names = [one.value for one in said["sampler"]]
        if any(OPTIONS[word] in METHODS[name].options for name in names):
            used.add(word)
        elif names and word in own and own[word]:
            used.add(word)
            problems.append(f"{own[word][0].where}: {word}: {', '.join(names)} has none; leave it out")
    if (
        "rk45" in {one.value for one in said["sampler"]}
        and (said.get("rtol") or said.get("atol"))
        and len(said["nfe"]) > 1
    ):
        problems.append(f"{said['nfe'][1].where}: nfe: rk45 with rtol or atol spends what these take; give it one NFE")
        return []
    where = {"row": row.where, **{word: values[0].where for word, values in said.items() if values}}
    names, lists = list(said), list(said.values())
    found: dict[Cell, Wanted] = {}
    for values in itertools.product(*lists):
        words = dict(zip(names, values, strict=True))
        table, published = words.pop("table", None), words.pop("published", None)
        cell = _cell({word: one.value for word, one in words.items()}, len(said.get("k", [])) > 1)
        places = {**where, **{word: one.where for word, one in words.items()}}
        place = Wanted(cell, table.value if table else "", published.value if published else None, places)
        found.setdefault(cell, place)
    return list(found.values())


def replaced(word: str, over: Words) -> bool:
    """Whether options put another judge in place of the one that this word of a plan is about."""
    return word in ("ref", "protocol", "mode") and bool({"ref", "protocol"} & over.keys())


def _cell(words: dict[str, Any], several_k: bool) -> Cell:
    """A cell of these words, without those that its sampler has not."""
    have = METHODS[words["sampler"]].options
    words = {word: value for word, value in words.items() if word not in OPTIONS or OPTIONS[word] in have}
    if several_k and words["sampler"] not in K_MATTERS:
        del words["k"]
    return Cell(**{{"lambda": "lam", "seeds": "seed"}.get(word, word): value for word, value in words.items()})


def read_plan(path: Path | None, table: int | None, options: Words, problems: list[str]) -> tuple[Plan, Words]:
    """The plan that was asked for, and the words that are the plan's as a whole.

    A file, one of the paper's tables, or, with neither, what the options say on the bundled checkpoint; without
    options too, the default plan.

    Raises:
        DataError: the file cannot be read.
    """
    if path is not None:
        document = read_document(path, problems)
    else:
        name = f"table{table}" if table else DEFAULT
        document = read_document(
            PRESETS / f"{name}.yaml", problems, f"--table {table}" if table else "the default plan"
        )
        if not table and options.keys() & set(CHOOSING):
            document = Document("the options", _without_reference(document.top, options))
    plan = make_plan(document, options, problems, preset=table is not None)
    return plan, {word: said for word, said in {**document.top, **options}.items() if not WORDS[word].cell}


def _without_reference(top: Words, options: Words) -> Words:
    """The default plan's words for a plan of options; its reference is of digits, and goes with another checkpoint."""
    other = any(one.value != "mnist" for one in options.get("checkpoint", []))
    dropped = {"solver_error", *(("ref",) if other or "protocol" in options else ())}
    dropped |= {"num"} if "protocol" in options else set()
    return {word: said for word, said in top.items() if word not in dropped}
