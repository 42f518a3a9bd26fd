"""All images of a folder or an .npz in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gddim_cli.errors import DataError
from gddim_cli.images.arrays import images_key
from gddim_cli.images.decode import decode, find_images, refuse_mixed
from gddim_cli.images.quantize import Pixels
from gddim_cli.runtime.arrays import read_member


def read_images(path: Path, key: str | None = None) -> Pixels:
    """A person's images as uint8 [N, C, H, W]: a folder (searched through) or an .npz.

    Args:
        path: a folder of images of one size, or an .npz with uint8 [N, H, W] or [N, H, W, C].
        key: the array in the .npz; by default the only one that is images, or `train_images`.

    Raises:
        DataError: nothing there, images of several sizes, or an array that is not uint8 images.
    """
    if path.is_dir():
        if key is not None:
            raise DataError(f"--key: {path} is a folder; only an .npz has arrays")
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder of images or an .npz")
    images = read_member(path, images_key(path, key))
    return np.ascontiguousarray(images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2))


def _read_folder(folder: Path) -> Pixels:
    names, _ = find_images(folder)
    arrays: list[Pixels] = []
    for name in names:
        arrays.append(decode(_content(folder / name), folder / name))
        refuse_mixed(arrays[-1].shape, folder / name, arrays[0].shape, names[0])
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
