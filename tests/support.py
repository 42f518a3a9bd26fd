"""What tests of several rooms share and no fixture is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gddim_cli.errors import GddimError

OWN_DIFFUSION = """\
import numpy as np
from gddim_cli.diffusions.base import SamplingConfig
from gddim_cli.diffusions.known_variance import KnownVariance
from gddim_cli import Diffusion


class Own(Diffusion):
    name = "own"
    D = 1
    T = 1.0
    sampling = SamplingConfig(t_start=1.0, t_end=1e-3)
    Sigma_0 = np.zeros((1, 1))
    prior_factor = np.eye(1)

    def F(self, t):
        return -np.ones((*np.shape(t), 1, 1))

    def GG(self, t):
        return 2 * np.ones((*np.shape(t), 1, 1))
"""
"""A user's diffusion: VP with a constant rate."""


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


def arrays_of(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz as tensors by name."""
    with np.load(path) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def damaged(content: bytes, cases: int, seed: int = 0) -> Iterator[bytes]:
    """A file's content, damaged at random: cut, zeroed in part, with changed, doubled or foreign bytes, or large numbers."""
    draw = np.random.default_rng(seed)
    for _ in range(cases):
        changed = bytearray(content)
        for _ in range(int(draw.integers(1, 4))):
            at, length = int(draw.integers(0, max(len(changed), 1))), int(draw.integers(1, 40))
            kind = draw.integers(0, 7)
            if kind == 0:
                del changed[at:]
            elif kind == 1:
                changed[at : at + length] = bytes(min(length, len(changed) - at))
            elif kind == 2 and changed:
                changed[at] ^= 1 << int(draw.integers(0, 8))
            elif kind == 3:
                changed[at:at] = changed[at : at + length]
            elif kind == 4:
                changed[at : at + length] = draw.bytes(length)
            elif kind == 5:
                changed[at : at + 4] = b"\xff\xff\xff\x7f"
            else:
                changed[at : at + 1] = b"9" * length
        yield bytes(changed)


def refusals(
    path: Path, use: Callable[[], object], cases: int, seed: int = 4, error: type[GddimError] = GddimError
) -> int:
    """Damages a file again and again and uses it; the number of refusals, each of one line. Other errors are raised."""
    whole, count = path.read_bytes(), 0
    for content in damaged(whole, cases, seed):
        path.write_bytes(content)
        try:
            use()
        except error as refusal:
            lines = str(refusal).splitlines()
        else:
            continue
        assert len(lines) == 1
        count += 1
    path.write_bytes(whole)
    return count
