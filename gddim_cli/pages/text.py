"""Tables as text: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gddim_cli.runtime.grids import Grid, latex_grid, markdown_grid


@dataclass(frozen=True)
class Block:
    """A table of texts, with a title (perhaps empty) and a heading above it, and notes below it."""

    title: str
    heading: str
    grid: Grid
    notes: Sequence[str]


def markdown(blocks: Iterable[Block], notes: Sequence[str]) -> str:
    """The tables in Markdown, followed by notes on all of them."""
    parts = []
    for block in blocks:
        parts += [*([f"### {block.title}\n"] if block.title else []), f"{block.heading}.\n", markdown_grid(block.grid)]
        parts += [f"{note}\n" for note in block.notes]
    return "\n".join([*parts, *(f"{note}\n" for note in notes)])


def tex(blocks: Iterable[Block]) -> str:
    """The tables in LaTeX."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for block in blocks:
        title = [f"{block.title}."] if block.title else []
        parts.append(latex_grid(block.grid, " ".join([*title, f"{block.heading}.", *block.notes])))
    return "\n".join(parts)


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Rows of values as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()
