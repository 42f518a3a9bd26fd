"""Self-contained HTML pages with sortable tables, charts with values on hover, pictures, settings and attachments."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from gddim_cli.pages.chart import Chart
from gddim_cli.pages.figure import draw, save
from gddim_cli.pages.svg import look, svg
from gddim_cli.runtime.files import replacing, writing

LONG = 24
"""Values with more characters and no spaces, such as checksums, are shortened; the whole value appears on hover."""


@dataclass(frozen=True)
class Cell:
    """An entry of a table: its text, the number that it is sorted by, and smaller lines below."""

    text: str
    number: float | None = None
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A table with its notes, charts, pictures and records.

    Attributes:
        title, heading: the two lines above the table; the title may be empty.
        head: the names of the table's columns.
        rows: the rows of the table, each a name and its entries.
        notes: sentences below the table.
        charts: charts by name; the name is also the stem of the chart's PNG and SVG files beside the page.
        pictures: PNG files by name, each with its alternative text.
        records: for each entry, a mapping (perhaps nested) of everything that the entry depends on.
    """

    title: str
    heading: str
    head: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[Cell]]] = ()
    notes: Sequence[str] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    pictures: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        summary: a line below the title.
        command: the command line that reproduces the page.
        notes: sentences at the end of the page.
        attachments: files by name; the page offers them for download, and they are also written beside the page.
    """

    title: str
    summary: str
    command: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    attachments: Mapping[str, bytes] = field(default_factory=dict)

    def html(self) -> str:
        """The page as HTML: the template, with the names in double braces replaced by their values."""
        parts = {
            "title": escape(self.title),
            "summary": escape(self.summary),
            "command": escape(self.command),
            "sections": "".join(map(section, self.sections)),
            "notes": paragraphs(self.notes),
            "attachments": "".join(
                f'<a class="file" download="{escape(name)}" href="data:application/octet-stream;base64,{encoded(content)}">'
                f"{escape(name)}</a> "
                for name, content in self.attachments.items()
            ),
        }
        template = (files("gddim_cli.pages") / "template.html").read_text(encoding="utf-8")
        return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)

    @property
    def files(self) -> list[str]:
        """The names of the charts' and pictures' files."""
        charts = [
            f"{stem}.{ending}" for section in self.sections for stem in section.charts for ending in ("png", "svg")
        ]
        return charts + [name for section in self.sections for name in section.pictures]

    def write(self, path: Path, stale: Collection[str] = ()) -> None:
        """Writes the page, and beside it the attachments, the charts as PNG and SVG, and the pictures.

        Args:
            stale: the names of files that an earlier page had; they are removed unless they are written now.

        Raises:
            OutputError: a file cannot be written.
        """
        charts = {stem: chart for section in self.sections for stem, chart in section.charts.items()}
        pictures = {name: png for section in self.sections for name, (png, _) in section.pictures.items()}
        contents = {**self.attachments, **pictures, path.name: self.html().encode()}
        for name, content in contents.items():
            with replacing(path.with_name(name)) as temporary:
                temporary.write_bytes(content)
        for stem, chart in charts.items():
            save(draw(chart), path.with_name(stem))
        with writing(path.parent):
            for name in {Path(name).name for name in stale} - {*self.files}:
                path.with_name(name).unlink(missing_ok=True)


def section(of: Section) -> str:
    """A section as HTML."""
    title = f"<h2>{escape(of.title)}</h2>" if of.title else ""
    table = grid(of.head, ((name, cells) for name, cells in of.rows)) if of.rows else ""
    charts = "".join(map(figure, of.charts.values()))
    pictures = "".join(picture(name, *content) for name, content in of.pictures.items())
    heading = f'<p class="heading">{escape(of.heading)}</p>'
    return f"<section>{title}{heading}{table}{paragraphs(of.notes)}{charts}{pictures}{details(of.records)}</section>"


def paragraphs(texts: Iterable[str]) -> str:
    """Each text as a paragraph."""
    return "".join(f'<p class="note">{escape(text)}</p>' for text in texts)


def grid(head: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]]) -> str:
    """A table that can be sorted by any column."""
    names = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in head)
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(map(entry, cells))}</tr>' for name, cells in rows)
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def entry(cell: Cell) -> str:
    """An entry of a table."""
    number = "" if cell.number is None else f' data-value="{cell.number!r}"'
    return f"<td{number}>{escape(cell.text)}{''.join(f'<small>{escape(line)}</small>' for line in cell.lines)}</td>"


def figure(chart: Chart) -> str:
    """A chart with its legend."""
    drawn = svg(chart)
    if not drawn:
        return ""
    lines = [(number, line) for number, line in enumerate(chart.series) if line.points or line.published]
    legend = "".join(f"<li {look(number)}>{escape(line.label)}</li>" for number, line in lines)
    hollow = "<li>hollow: published</li>" if any(line.published for line in chart.series) else ""
    text = chart.heading if chart.heading.startswith(chart.ylabel) else f"{chart.ylabel}: {chart.heading}"
    caption = f"<figcaption>{escape(text)}</figcaption>"
    return f'<figure>{caption}<div class="wide">{drawn}</div><ul class="legend">{legend}{hollow}</ul></figure>'


def picture(name: str, png: bytes, alt: str) -> str:
    """A picture with its alternative text; a picture that is wider than the screen can be scrolled."""
    image = f'<img alt="{escape(alt)}" src="data:image/png;base64,{encoded(png)}">'
    return f'<figure><figcaption>{escape(name)}</figcaption><div class="wide">{image}</div></figure>'


def details(records: Sequence[Mapping[str, Any]]) -> str:
    """The settings that the entries depend on: first those that all entries share, then a row of the others for each entry."""
    if not records:
        return ""
    records = [flat(record) for record in records]
    names = list(dict.fromkeys(name for record in records for name in record))
    shared = [name for name in names if len({repr(record.get(name)) for record in records}) == 1]
    common = "".join(
        f"<tr><th>{escape(name)}</th><td>{value(records[0].get(name))}</td></tr>"
        for name in shared
        if records[0].get(name) not in (None, "")
    )
    own = [name for name in names if name not in shared]
    head = "".join(f"<th>{escape(name)}</th>" for name in own)
    lines = "".join(f"<tr>{''.join(f'<td>{value(record.get(name))}</td>' for name in own)}</tr>" for record in records)
    each = f'<h3>Each cell</h3><div class="wide"><table><tr>{head}</tr>{lines}</table></div>' if own else ""
    return (
        "<details><summary>What each number depends on</summary>"
        f'<h3>All cells</h3><div class="wide"><table>{common}</table></div>{each}</details>'
    )


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested mapping; nested names are joined by dots, as in `request.seed`."""
    found: dict[str, Any] = {}
    for name, of in record.items():
        found |= flat(of, f"{prefix}{name}.") if isinstance(of, Mapping) else {f"{prefix}{name}": of}
    return found


def value(of: Any) -> str:
    """A plain value as HTML. Long values without spaces are shortened, and shown in full on hover."""
    text = "" if of is None else f"{of:.6g}" if isinstance(of, float) else str(of)
    if len(text) > LONG and " " not in text:
        return f'<span title="{escape(text)}">{escape(text[:12])}…</span>'
    return escape(text)


def encoded(content: bytes) -> str:
    """Bytes in base64."""
    return b64encode(content).decode("ascii")
