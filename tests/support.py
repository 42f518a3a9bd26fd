"""What tests of several rooms share and no fixture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pictures(n: int, size: int = 32, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random images, uint8 [n, size, size, channels]."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (n, 5, 5, channels), dtype=np.uint8)
    large = [
        np.stack([np.asarray(Image.fromarray(c[..., k]).resize((size, size), 3)) for k in range(channels)], -1)
        for c in coarse
    ]
    return np.stack(large)


def folder_of(path: Path, images: NDArray[np.uint8]) -> Path:
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(path / f"{i:05d}.png")
    return path
