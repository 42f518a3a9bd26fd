"""Converts images in [-1, 1] to uint8."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import NumericsError

Pixels = NDArray[np.uint8]


Quantize = Literal["floor", "round"]


def quantize(x: NDArray[np.floating], how: Quantize) -> Pixels:
    """Images in [-1, 1], [N, C, H, W], as uint8 [N, H, W, C].

    - `floor`: `floor(clip(255 (x + 1) / 2, 0, 255))`, as in the programs of CLD-SGM and gDDIM
    - `round`: `127.5 x + 128`, clipped and truncated, as in NVlabs/edm

    The choice changes FID a little, so every reported FID should state it.

    Raises:
        NumericsError: a value is not finite.
    """
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2, 3)))
        raise NumericsError(
            f"{len(bad)} of {len(x)} images of a batch are not finite; try a higher --nfe, a lower --order or --dtype float32"
        )
    scaled = 127.5 * (x + 1) if how == "floor" else 127.5 * x + 128
    return np.clip(scaled, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
