"""Draws charts with matplotlib, as PNG and SVG. Bands are standard errors, hollow marks are published values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.pages.chart import COLOURS, Chart, Series, band
from gddim_cli.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8, "svg.hashsalt": "gddim",  # makes the ids in SVG files reproducible
}  # fmt: skip
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "none", "markersize": 8}


def draw(chart: Chart) -> Figure:
    """The chart as a figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8.2, 4.6), dpi=150, layout="constrained")
        axes = figure.subplots()
    axes.set_ylabel(chart.ylabel)
    arrows: Counter[tuple[float, float]] = Counter()
    for number, line in enumerate(chart.series):
        style = look(number)
        if line.points:
            x, y = [point.x for point in line.points], [point.y for point in line.points]
            axes.plot(x, y, label=line.label, **style)
            if any(point.error for point in line.points):
                low, high = zip(*map(band, line.points), strict=True)
                axes.fill_between(x, low, high, color=style["color"], alpha=0.13, linewidth=0)
        draw_published(axes, line, style, arrows)
    return finish(figure, axes, chart)


def look(number: int) -> dict[str, Any]:
    """Color, marker and line style of the n-th series: 8 colors with solid lines, then again with dashed and dotted lines."""
    line, colour, mark = ("-", "--", ":")[number // 8 % 3], COLOURS[number % 8], "osD^vPX*"[number % 8]
    return {"color": colour, "marker": mark, "linestyle": line, "linewidth": 1.6, "markersize": 5}


def draw_published(axes: Axes, line: Series, style: dict[str, Any], arrows: Counter[tuple[float, float]]) -> None:
    """Draws published values as hollow marks, and lower bounds as upward arrows. Coinciding arrows are set side by side."""
    plain, above = [], []
    for mark in line.published:
        if mark.above:
            above.append((mark.x * 1.06 ** arrows[mark.x, mark.y], mark.y))
            arrows[mark.x, mark.y] += 1
        else:
            plain.append((mark.x, mark.y))
    label = None if line.points else f"{line.label}, published"
    for points, shape in ((plain, style["marker"]), (above, r"$\uparrow$")):
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker=shape, label=label, color=style["color"], markeredgewidth=1.3, **HOLLOW)
            label = None


def finish(figure: Figure, axes: Axes, chart: Chart) -> Figure:
    """Sets scales, title, ticks and the legend beside the plot."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if chart.log_y:
        axes.set_yscale("log")
    axes.set_xlabel(chart.xlabel)
    if chart.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_locator(FixedLocator(list(chart.ticks)))
    axes.xaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high / low < 1000:  # on a short axis, also label numbers between powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high / low > 8 else MaxNLocator(6))
        axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{chart.title}\n{chart.heading}".strip(), loc="left", fontsize=9.5)
    handles, names = axes.get_legend_handles_labels()
    if any(line.published for line in chart.series):
        handles.append(Line2D([], [], color="#555555", marker="o", **HOLLOW))
        names.append("hollow: published")
    if handles:
        axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Writes `STEM.png` and `STEM.svg`; the same figure gives the same bytes.

    Raises:
        OutputError: a file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for ending in ("png", "svg"):
            with replacing(stem.with_name(f"{stem.name}.{ending}")) as temporary:
                figure.savefig(temporary, format=ending, metadata={"Date": None} if ending == "svg" else None)
