"""Fixed random subsets. Files are often sorted by class, so the first ones would not be a fair sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def chosen(count: int, num: int) -> NDArray[np.int64]:
    """A fixed random choice of `num` indices below `count`, in rising order. A larger `num` only adds indices."""
    return np.sort(np.random.default_rng(0).permutation(count)[:num])


def some(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` rows of an array [N, ...], in their order. The choice depends only on N and `most`."""
    return rows if len(rows) <= most else rows[chosen(len(rows), most)]


def unbroken(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Splits rising indices into runs of consecutive numbers: the first index and the end (exclusive) of each run."""
    for _, group in itertools.groupby(enumerate(rows), lambda pair: pair[1] - pair[0]):
        run = [row for _, row in group]
        yield run[0], run[-1] + 1
