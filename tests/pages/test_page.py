"""The page: valid HTML with everything inside; in a real browser, if one is installed, sorting, values on hover, dark mode."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddim_cli.pages.chart import Chart, Mark, Point, Series
from gddim_cli.pages.page import Cell, Page, Section
from gddim_cli.pages.svg import HEIGHT, WIDTH, svg, ticks

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
VOID = {"meta", "img", "br", "hr", "input", "link", "line", "circle", "polyline", "polygon"}
STALE = ["samples-old.png", "fid_vs_nfe-2.svg", "samples.png", "never-there.png"]


def chart(values: dict[str, list[float]], log_x: bool = True) -> Chart:
    lines = [
        Series(name, [Point(x, y, 0.1 * abs(y), f"{name}, NFE {x}: {y}") for x, y in zip((5, 10, 20), of, strict=True)])
        for name, of in values.items()
    ]
    return Chart("", "FD to mnist", "NFE", "FD", (5, 10, 20), log_x, lines)


@pytest.fixture
def page() -> Page:
    """A page with names that have to be escaped, missing values, a published number, a picture."""
    lines = chart({"gDDIM <b>": [25.0, 6.0, 4.0], "Heun & co": [60.0, 61.0, 8.5]})
    marked = Series("EM", [], [Mark(5, 100.0, above=True), Mark(10, 30.0)])
    lines = Chart(lines.title, lines.heading, lines.xlabel, lines.ylabel, lines.ticks, True, [*lines.series, marked])
    rows = [
        ("gDDIM <b>", [Cell("25.0 ± 2.5", 25.0, ["solver error 0.5"]), Cell("6.0", 6.0), Cell("4.0", 4.0)]),
        ("Heun & co", [Cell("60.0 (4)", 60.0), Cell("—"), Cell("8.5", 8.5)]),
        ("EM", [Cell("100", 100.0), Cell("30", 30.0), Cell("3.0", 3.0)]),
    ]
    picture = BytesIO()
    Image.new("RGB", (900, 300), "white").save(picture, "PNG")
    records = [
        {"sampler": name, "checkpoint": "mnist", "sha256": 64 * "a", "value": 1.5 * n}
        for n, (name, _) in enumerate(rows)
    ]
    section = Section(
        "A title",
        "FD to mnist.",
        ["sampler", "NFE 5", "NFE 10", "NFE 20"],
        rows,
        ["±: a note."],
        {"fid_vs_nfe": lines},
        {"samples.png": (picture.getvalue(), "Rows: gDDIM <b>.")},
        records,
    )
    attached = {"results.json": b'{"a": "</script>"}'}
    return Page("gddim bench: mnist", "18 cells", "gddim bench --nfe 5,10,20", [section], ["A note."], attached)


class Strict(HTMLParser):
    """Refuses elements that are not closed in order; collects attributes and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(html: str) -> Strict:
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_html_that_needs_nothing_else(page: Page) -> None:
    html = page.html()
    found = parsed(html)
    for tag, attributes in found.seen:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data"):
                assert value is not None
                assert value.startswith("data:"), (tag, name, value[:50])
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", html)
    assert "{{" not in html
    assert "default-src 'none'" in html


def test_everything_is_in_it(page: Page) -> None:
    found = parsed(page.html())
    text = " ".join(found.texts)
    for part in (
        "gDDIM <b>",
        "Heun & co",
        "25.0 ± 2.5",
        "solver error 0.5",
        "gddim bench --nfe 5,10,20",
        "A note.",
        "18 cells",
    ):
        assert part in text, part
    values = [attributes["data-value"] for tag, attributes in found.seen if tag == "td" and "data-value" in attributes]
    assert list(map(float, values)) == [25, 6, 4, 60, 8.5, 100, 30, 3]
    (link,) = [attributes for tag, attributes in found.seen if tag == "a"]
    assert link["download"] == "results.json"
    assert base64.b64decode(link["href"].partition("base64,")[2]) == page.attachments["results.json"]
    (image,) = [attributes for tag, attributes in found.seen if tag == "img"]
    assert base64.b64decode(image["src"].partition("base64,")[2]) == page.sections[0].pictures["samples.png"][0]
    titles = [text for text in found.texts if text.startswith(("gDDIM <b>, NFE", "Heun & co, NFE", "EM: published"))]
    assert len(titles) == 3 + 3 + 2
    assert "EM: published above 100" in titles
    # What all cells share stands once, what differs in a line for each.
    assert text.count("checkpoint") == 1
    assert [attributes["title"] for tag, attributes in found.seen if tag == "span"] == [64 * "a"]


def test_the_page_and_its_files_are_written_and_old_ones_removed(page: Page, tmp_path: Path) -> None:
    for name in ("samples-old.png", "fid_vs_nfe-2.svg", "mine.png"):
        (tmp_path / name).write_text("")
    page.write(tmp_path / "report.html", STALE)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.html", "results.json", "samples.png", "fid_vs_nfe.png", "fid_vs_nfe.svg", "mine.png"}
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    page.write(tmp_path / "report.html", STALE)
    assert first == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("log_x", [True, False])
@pytest.mark.parametrize(
    "values", [[25.0, 6.0, 4.0], [3e-5, 2.0, 4e4], [-0.1, 0.2, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0], [1e-9, 1e-9, 2e-9]],
    ids=str,
)  # fmt: skip
def test_charts_stay_in_their_frame(values: list[float], log_x: bool) -> None:
    """Whatever the values are: positive over many decades, negative, all equal."""
    drawn = parsed(svg(chart({"a": values}, log_x)))
    circles = [attributes for tag, attributes in drawn.seen if tag == "circle"]
    assert len(circles) == 2 * len(values)
    for circle in circles:
        assert 0 <= float(circle["cx"]) <= WIDTH
        assert 0 <= float(circle["cy"]) <= HEIGHT
    heights = [float(circle["cy"]) for circle in circles[::2]]
    assert np.argsort(heights, kind="stable").tolist() == np.argsort([-v for v in values], kind="stable").tolist()


def test_ticks_are_few_and_round() -> None:
    for low, high, log in (
        (4.0, 96.0, True),
        (1e-4, 3e3, True),
        (2.1, 2.6, True),
        (-0.1, 0.3, False),
        (0.0, 1e6, False),
    ):
        found = ticks(low, high, log)
        assert 2 <= len(found) <= 12, (low, high, found)
        assert all(low <= value <= high and len(f"{value:g}") <= 6 for value in found)


def test_a_chart_without_points_is_left_out() -> None:
    assert svg(Chart("", "", "NFE", "FD", (5,), True, [Series("a", [])])) == ""


def browse(html: str, folder: Path, width: int, *words: str) -> tuple[dict, str]:
    """What the page's probe found in a frame of this width, narrower than any window, and what was written to the console."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    path = folder / "frame.html"
    path.write_text(FRAME.format(width=width), encoding="utf-8")
    own = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'browser'}",
        "--virtual-time-budget=2000",
    ]
    command = [str(BROWSER), *own, "--enable-logging=stderr", *words, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout)[1]))
    return found, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


FRAME = """<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>
<script>onmessage = event => document.getElementById("found").textContent = event.data</script>
<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>
"""


PROBE = """
<script>
{
const column = () => [...document.querySelector(".sortable").tBodies[0].rows].map(row => row.cells[0].textContent).join("|");
const heads = document.querySelectorAll(".sortable thead button"), found = {};
heads[2].click(); found.up = column();
heads[2].click(); found.down = column();
heads[0].click(); found.names = column();
const point = document.querySelector(".point");
point.dispatchEvent(new PointerEvent("pointerenter"));
const tip = document.getElementById("tip"), box = tip.getBoundingClientRect();
found.tip = getComputedStyle(tip).display + " " + tip.textContent;
found.inside = box.left >= 0 && box.right <= innerWidth && box.top >= 0;
point.dispatchEvent(new PointerEvent("pointerleave"));
found.hidden = getComputedStyle(tip).display;
found.fits = document.documentElement.scrollWidth <= innerWidth;
found.paper = getComputedStyle(document.body).backgroundColor;
found.ink = getComputedStyle(document.body).color;
found.chart = Math.round(document.querySelector("svg").getBoundingClientRect().width);
found.width = innerWidth;
parent.postMessage(JSON.stringify(found), "*");
}
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium (chromium, chromium-browser, google-chrome or chrome)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400], ids=["desk", "phone"])
def test_in_a_browser_it_sorts_shows_values_and_fits(page: Page, tmp_path: Path, dark: bool, width: int) -> None:
    words = ("--window-size=1300,1000", f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    html = page.html().replace("</body>", f"{PROBE}</body>")
    found, console = browse(html, tmp_path, width, *words)
    assert console == ""
    # A place without a value comes last in either order.
    assert (found["up"], found["down"]) == ("gDDIM <b>|EM|Heun & co", "EM|gDDIM <b>|Heun & co")
    assert found["names"] == "EM|gDDIM <b>|Heun & co"
    assert (found["tip"], found["hidden"], found["inside"]) == ("block gDDIM <b>, NFE 5: 25.0", "none", True)
    assert (found["width"], found["fits"]) == (width, True)
    assert found["chart"] <= width
    shades = [sum(map(int, re.findall(r"\d+", found[name])[:3])) / 765 for name in ("paper", "ink")]
    assert (shades[0] < 0.2 and shades[1] > 0.8) if dark else (shades[0] > 0.9 and shades[1] < 0.2)
