"""A fixed random choice of some of many rows: files are often sorted by class, so the first ones are no sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def some(features: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many rows of [N, d], in their order, the same ones for the same N."""
    if len(features) <= most:
        return features
    return features[np.sort(np.random.default_rng(0).choice(len(features), most, replace=False))]
