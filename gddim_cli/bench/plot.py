"""Plots of tables: a line for each sampler, spread over seeds as a band, published values as hollow marks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.bench.tables import Entry, Table
from gddim_cli.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers tell apart; black last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
STYLE: dict[str, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8, "svg.hashsalt": "gddim",  # names inside the file stay the same
}  # fmt: skip
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "none", "markersize": 8}


def values(table: Table) -> Figure:
    """Values against evaluations made, or against lambda, and published ones beside them."""
    return draw(table, "mean", f"{table.metric} against {table.evaluator['reference']}", table.heading)


def errors(table: Table) -> Figure:
    """Solver errors against evaluations made, or against lambda."""
    budget = f", NFE {table.nfe}" if table.nfe else ""
    heading = f"distance to the converged solution from the same noise{budget}"
    return draw(table, "solver_error", "solver error (RMS, images in [-1, 1])", heading)


def draw(table: Table, name: str, ylabel: str, heading: str) -> Figure:
    """A line for each row, through the evaluations that were made, with the spread of means as a band."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8.2, 4.6), dpi=150, layout="constrained")
        axes = figure.subplots()
    axes.set_ylabel(ylabel)
    arrows: Counter[tuple[float, float]] = Counter()
    for number, (label, row) in enumerate(table.rows.items()):
        style, means = look(number), name == "mean"
        places = [(column, e) for column, e in zip(table.columns, row, strict=True) if e and not e.overspent]
        at = [(c if table.axis == "lambda" else e.nfe or e.asked, getattr(e, name), e.std or 0.0) for c, e in places]
        if points := [point for point in at if point[1]]:
            x, y, spread = zip(*points, strict=True)
            axes.plot(x, y, label=label, **style)
            if means and any(spread):
                low = [max(mean - std, 0.02 * mean) for mean, std in zip(y, spread, strict=True)]
                high = [mean + std for mean, std in zip(y, spread, strict=True)]
                axes.fill_between(x, low, high, color=style["color"], alpha=0.13, linewidth=0)
        if means:
            draw_published(axes, table, row, style, arrows, None if points else f"{label}, published")
    return finish(figure, axes, table, heading)


def look(number: int) -> dict[str, Any]:
    """Colour, mark and line of the n-th row: 8 colours, then the same dashed."""
    line, colour, mark = ("-", "--", ":")[number // 8 % 3], COLOURS[number % 8], "osD^vPX*"[number % 8]
    return {"color": colour, "marker": mark, "linestyle": line, "linewidth": 1.6, "markersize": 5}


def draw_published(
    axes: Axes, table: Table, row: list[Entry | None], style: dict[str, Any], arrows: Counter[Any], label: str | None
) -> None:
    """Hollow marks; for what is printed as `>100` an arrow up, beside the arrows that stand there."""
    plain, above = [], []
    for column, entry in zip(table.columns, row, strict=True):
        number = entry.published if entry else None
        if isinstance(number, str):
            point = column, float(number.lstrip(">"))
            above.append((column * 1.06 ** arrows[point], point[1]))
            arrows[point] += 1
        elif number is not None:
            plain.append((column, number))
    for points, mark in ((plain, style["marker"]), (above, r"$\uparrow$")):
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker=mark, label=label, color=style["color"], markeredgewidth=1.3, **HOLLOW)
            label = None


def finish(figure: Figure, axes: Axes, table: Table, heading: str) -> Figure:
    """Scales, title, ticks where the columns are, and the legend beside the plot."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if axes.dataLim.y0 > 0 or not axes.lines:
        axes.set_yscale("log")
    axes.set_xlabel("λ, the noise of the reverse process")
    if table.axis == "nfe":
        axes.set_xscale("log")
        axes.set_xlabel("NFE, network evaluations per image")
        axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_locator(FixedLocator(table.columns))
    axes.xaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high / low < 1000:  # few decades: numbers between them help
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high / low > 8 else MaxNLocator(6))
        axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{table.title}\n{heading}".strip(), loc="left", fontsize=9.5)
    handles, names = axes.get_legend_handles_labels()
    if any(line.get_markerfacecolor() == "none" for line in axes.lines):
        handles.append(Line2D([], [], color="#555555", marker="o", **HOLLOW))
        names.append("hollow: published")
    if handles:
        axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Writes `STEM.png` and `STEM.svg`, the same bytes each time; raises OutputError where they cannot be written."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for ending in ("png", "svg"):
            with replacing(stem.with_name(f"{stem.name}.{ending}")) as temporary:
                figure.savefig(temporary, format=ending, metadata={"Date": None} if ending == "svg" else None)
