"""Draws charts as SVG for an HTML page, whose style sheet colors them. Each point has a text that appears on hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from gddim_cli.pages.chart import COLOURS, Chart, Point, Series, band

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 14, 12, 46
APART = 30
"""The minimum distance between two labels of the x axis, in SVG units."""
Scale = Callable[[float], float]


def svg(chart: Chart) -> str:
    """The chart as an SVG element, without the title and the heading, which the page shows."""
    places = list(chart.places())
    if not places:
        return ""
    ends = [end for line in chart.series for point in line.points for end in band(point)] if chart.series else []
    x_low, x_high = spread([*chart.ticks, *(x for x, _ in places)], chart.log_x)
    y_low, y_high = spread([*ends, *(y for _, y in places)], chart.log_y)
    across = scale(x_low, x_high, LEFT, WIDTH - RIGHT, chart.log_x)
    up = scale(y_low, y_high, HEIGHT - BOTTOM, TOP, chart.log_y)
    parts = [*axes(chart, across, up, y_low, y_high)]
    for number, line in enumerate(chart.series):
        parts += series(line, number, across, up)
    name = escape(f"{chart.ylabel} against {chart.xlabel}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def spread(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The range of an axis: the range of the values, extended by 4 % at each end."""
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.04, 1.02)
        return low / margin, high * margin
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def scale(low: float, high: float, start: float, end: float, log: bool) -> Scale:
    """The map from a value in [low, high] to a coordinate between `start` and `end`."""
    of = math.log if log else float
    return lambda value: start + (end - start) * (of(value) - of(low)) / (of(high) - of(low))


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers in [low, high]: about five or, on a logarithmic axis, powers of ten (on a short one, also times 2 and 5)."""
    if log and high / low > 6:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 1500 else (1,)
        found = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    else:
        rough = (high - low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        found = [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [value for value in found if low <= value <= high]


def axes(chart: Chart, across: Scale, up: Scale, low: float, high: float) -> list[str]:
    """The SVG elements of the axes: grid lines, tick labels and names."""
    right, bottom, found = WIDTH - RIGHT, HEIGHT - BOTTOM, []
    for value in ticks(low, high, chart.log_y):
        y = f"{up(value):.1f}"
        found.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        found.append(f'<text x="{LEFT - 8}" y="{y}" dy="0.35em" text-anchor="end">{value:g}</text>')
    last = -math.inf
    for value in chart.ticks:
        x = across(value)
        if x - last >= APART:
            found.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
            found.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
            last = x
    middle = (TOP + bottom) / 2
    found.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.xlabel)}</text>')
    turned = f'class="turned" transform="rotate(-90 14 {middle})"'
    found.append(f'<text x="14" y="{middle}" {turned} text-anchor="middle">{escape(chart.ylabel)}</text>')
    return found


def series(line: Series, number: int, across: Scale, up: Scale) -> list[str]:
    """The SVG elements of a series: a band, a line, points and published values."""
    found, style = [], look(number)
    places = [(across(point.x), up(point.y)) for point in line.points]
    if any(point.error for point in line.points):
        ends = [(across(point.x), *map(up, band(point))) for point in line.points]
        outline = [(x, y) for x, y, _ in ends] + [(x, y) for x, _, y in reversed(ends)]
        found.append(f'<polygon class="band" {style} points="{joined(outline)}"/>')
    if len(places) > 1:
        dash = ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 4"')[number // len(COLOURS) % 3]
        found.append(f'<polyline class="line" {style}{dash} points="{joined(places)}"/>')
    for mark in line.published:
        text = f"{line.label}: published {'above ' if mark.above else ''}{mark.y:g}"
        found.append(dot(Point(mark.x, mark.y, text=text), across, up, f'class="point hollow" {style}'))
    found += [dot(point, across, up, f'class="point" {style}') for point in line.points]
    return found


def look(number: int) -> str:
    """The attribute that sets the color of the n-th series. Black is replaced by the color of the page's text."""
    colour = COLOURS[number % len(COLOURS)]
    return f'style="--c:{"var(--ink)" if colour == "#000000" else colour}"'


def joined(places: Sequence[tuple[float, float]]) -> str:
    """Coordinates in the format of SVG's `points` attribute."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def dot(point: Point, across: Scale, up: Scale, attributes: str) -> str:
    """A point, with a larger invisible circle around it that is easier to hit with the pointer."""
    at = f'cx="{across(point.x):.1f}" cy="{up(point.y):.1f}"'
    text = escape(point.text, quote=True)
    return (
        f'<g {attributes} tabindex="0"><title>{text}</title><circle class="near" {at} r="11"/><circle {at} r="4"/></g>'
    )
