"""A fixed random choice of some of many: files are often sorted by class, so the first ones are not a fair sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def chosen(count: int, num: int) -> NDArray[np.int64]:
    """`num` of the indices 0 to `count` - 1, rising and the same in every call; a larger `num` adds others to them."""
    return np.sort(np.random.default_rng(0).permutation(count)[:num])


def some(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` rows of an array [N, ...], in their order; equal N give equal choices."""
    return rows if len(rows) <= most else rows[chosen(len(rows), most)]


def unbroken(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rising indices as the first and the end of each unbroken run."""
    for _, group in itertools.groupby(enumerate(rows), lambda pair: pair[1] - pair[0]):
        run = [row for _, row in group]
        yield run[0], run[-1] + 1
