"""Plots of tables: a line a sampler, spread over seeds as a band, published points as hollow marks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.bench.sheets import Entry, Row, Sheet
from gddim_cli.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers tell apart; black last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
MARKS = "osD^vPX*"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "gddim",  # without it every file has other names inside
}


def distances(sheet: Sheet) -> Figure:
    """Distance against evaluations made (or lambda), both axes logarithmic (lambda's is not)."""
    figure, axes = _blank(f"{sheet.name} to {sheet.reference}")
    arrows: Counter[tuple[float, float]] = Counter()
    for number, row in enumerate(sheet.rows):
        points = [
            (place(sheet, c, e), e.mean, e.std)
            for c, e in zip(sheet.columns, row.entries, strict=True)
            if e and e.mean and not e.overspent
        ]
        look = _look(number)
        if points:
            x, y, spread = zip(*points, strict=True)
            axes.plot(x, y, label=row.label, **look)
            if any(spread):
                low = [max(mean - (std or 0.0), 0.02 * mean) for mean, std in zip(y, spread, strict=True)]
                high = [mean + (std or 0.0) for mean, std in zip(y, spread, strict=True)]
                axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
        _published(axes, sheet, row, look, arrows, alone=not points)
    return _finish(figure, axes, sheet, sheet.heading)


def errors(sheet: Sheet) -> Figure:
    """Solver error against evaluations made."""
    figure, axes = _blank("solver error (RMS, images in [-1, 1])")
    for number, row in enumerate(sheet.rows):
        points = [
            (place(sheet, c, e), e.solver_error)
            for c, e in zip(sheet.columns, row.entries, strict=True)
            if e and e.solver_error and not e.overspent
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=row.label, **_look(number))
    budget = f", NFE {sheet.nfe}" if sheet.nfe else ""
    return _finish(figure, axes, sheet, f"distance to the converged solution from the same noise{budget}")


def place(sheet: Sheet, column: float, entry: Entry) -> float:
    """Where an entry stands: at the evaluations that were made."""
    return column if sheet.axis == "lambda" else entry.nfe or entry.asked


def _look(number: int) -> dict[str, Any]:
    """Colour, mark and line of the n-th sampler: 8 colours, then the same dashed."""
    count = len(COLOURS)
    style = ("-", "--", ":")[number // count % 3]
    mark = MARKS[number % len(MARKS)]
    return {"color": COLOURS[number % count], "marker": mark, "linestyle": style, "linewidth": 1.6, "markersize": 5}


def _published(
    axes: Axes, sheet: Sheet, row: Row, look: dict[str, Any], arrows: Counter[tuple[float, float]], alone: bool
) -> None:
    """Hollow marks; an arrow up for what is printed as `>100`, beside the arrows that stand there."""
    found = [(c, e.published) for c, e in zip(sheet.columns, row.entries, strict=True) if e and e.published is not None]
    plain = [(column, value) for column, value in found if not isinstance(value, str)]
    above = [(column, float(value.lstrip(">"))) for column, value in found if isinstance(value, str)]
    hollow = {
        "color": look["color"],
        "linestyle": "none",
        "markerfacecolor": "none",
        "markersize": 8,
        "markeredgewidth": 1.3,
    }
    label = f"{row.label}, published" if alone else None
    if plain:
        axes.plot(*zip(*plain, strict=True), marker=look["marker"], label=label, **hollow)
    for at, point in enumerate(above):
        above[at] = point[0] * 1.06 ** arrows[point], point[1]
        arrows[point] += 1
    if above:
        axes.plot(*zip(*above, strict=True), marker=r"$\uparrow$", label=None if plain else label, **hollow)


def _blank(ylabel: str) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8.2, 4.6), dpi=150, layout="constrained")
        axes = figure.subplots()
    axes.set_ylabel(ylabel)
    axes.set_yscale("log")
    return figure, axes


def _finish(figure: Figure, axes: Axes, sheet: Sheet, heading: str) -> Figure:
    """Title, ticks where the columns are, and the legend beside the plot."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if sheet.axis == "lambda":
        axes.set_xlabel("λ, the noise of the reverse process")
    else:
        axes.set_xscale("log")
        axes.set_xlabel("NFE, network evaluations an image")
        axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_locator(FixedLocator(sheet.columns))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    if high / low < 1000:  # few decades: numbers between them help
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high / low > 8 else MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    title = [sheet.title] if sheet.title else []
    axes.set_title("\n".join([*title, heading]), loc="left", fontsize=9.5)
    handles, names = axes.get_legend_handles_labels()
    if any(line.get_markerfacecolor() == "none" for line in axes.lines):
        handles.append(
            Line2D([], [], color="#555555", marker="o", linestyle="none", markerfacecolor="none", markersize=8)
        )
        names.append("hollow: published")
    if handles:
        axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """`STEM.png` and `STEM.svg`, the same bytes whenever they are drawn.

    Raises:
        OutputError: they cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for ending in ("png", "svg"):
            with replacing(stem.with_name(f"{stem.name}.{ending}")) as temporary:
                figure.savefig(temporary, format=ending, metadata={"Date": None} if ending == "svg" else None)
