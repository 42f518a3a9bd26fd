"""A chart as data: series of points with errors. `figure` draws charts for papers, `svg` draws them for web pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# The colors of Okabe & Ito, which color-blind readers can tell apart, but with purple in place of yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")


@dataclass(frozen=True)
class Point:
    """A point of a series.

    Attributes:
        x, y: its coordinates.
        error: the standard error of y; None if unknown.
        text: the text shown on hover.
    """

    x: float
    y: float
    error: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Mark:
    """A published value of a series, at (x, y); `above` means that the value is only known to be greater than y."""

    x: float
    y: float
    above: bool = False


@dataclass(frozen=True)
class Series:
    """A line through points, and the published values that belong to it."""

    label: str
    points: Sequence[Point]
    published: Sequence[Mark] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over shared axes.

    Attributes:
        title, heading: the two lines above the chart; the title may be empty.
        ticks: the values at which the x axis has labels.
        log_x: whether the x axis is logarithmic. (The y axis is logarithmic if all y are positive.)
    """

    title: str
    heading: str
    xlabel: str
    ylabel: str
    ticks: Sequence[float]
    log_x: bool
    series: Sequence[Series]

    @property
    def log_y(self) -> bool:
        """Whether the y axis is logarithmic."""
        return all(y > 0 for _, y in self.places())

    def places(self) -> Iterator[tuple[float, float]]:
        """The coordinates (x, y) of all points and published values."""
        for line in self.series:
            yield from ((point.x, point.y) for point in line.points)
            yield from ((mark.x, mark.y) for mark in line.published)


def band(point: Point) -> tuple[float, float]:
    """The ends of a point's error bar. If y is positive, so is the lower end, as a logarithmic axis requires."""
    low, high = point.y - (point.error or 0.0), point.y + (point.error or 0.0)
    return max(low, 0.02 * point.y) if point.y > 0 else low, high
