"""Which arrays are images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gddim_cli.errors import DataError, nearest
from gddim_cli.runtime.arrays import read_archive


def images_key(path: Path, key: str | None) -> str:
    """The array of an .npz that holds images: `key`, else `train_images`, else the only one that can.

    Raises:
        DataError: none, or several.
    """
    arrays = read_archive(path)
    if key is not None and key not in arrays:
        raise DataError(f"{path}: there is no array '{key}'; {nearest(key, arrays)}")
    found = [name for name in ([key] if key else arrays) if are_images(*arrays[name])]
    if "train_images" in found:
        return "train_images"
    if len(found) != 1:
        hint = "name the array with --key" if found else way_out([arrays[key]] if key else list(arrays.values()))
        shapes = ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in arrays.items()) or "no arrays"
        raise DataError(
            f"{path}: needs one array of uint8 images [N, H, W] or [N, H, W, C] (1 or 3 channels), found {shapes}; {hint}"
        )
    return found[0]


def are_images(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Whether an array is [N, H, W] or [N, H, W, C] of uint8; [H, W, 3] is one image, not H of them 3 wide."""
    if dtype != np.uint8 or len(shape) not in (3, 4) or min(shape) == 0:
        return False
    return (shape[3] in (1, 3)) if len(shape) == 4 else shape[2] not in (1, 3)


def way_out(arrays: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> str:
    """What to do with arrays, of these types and shapes, none of which `are_images`."""
    for dtype, shape in arrays:
        if len(shape) not in (3, 4) or min(shape) == 0:
            continue
        if dtype.kind == "f":
            return (
                "floats: [0, 1] or [-1, 1]? convert them to uint8 first: np.round(255 * x) or "
                "np.round(127.5 * (x + 1)), clipped to 0..255, .astype(np.uint8)"
            )
        if dtype != np.uint8:
            return f"{dtype}: bring them to 0..255 and convert them to uint8 first, .astype(np.uint8)"
        if len(shape) == 3:
            return "one image? give at least two, as [N, H, W, C]"
        if shape[1] in (1, 3):
            return "the channels come first: save x.transpose(0, 2, 3, 1) instead"
    return "save the images as one array, np.savez(path, images=x)"
