"""The images that a training run learns from, in memory, and their class labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError, nearest
from gddim_cli.images.pictures import PictureSource
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.images import open_images
from gddim_cli.runs.record import RUN
from gddim_cli.runtime.arrays import read_archive, read_member
from gddim_cli.runtime.memory import physical_memory
from gddim_cli.runtime.text import printable

BATCH = 256
LARGEST_SIDE = 1024
MOST_CLASSES = 100_000
LABELS = "train_labels"
"""The default name of the array of class labels in an .npz."""


@dataclass(frozen=True)
class Classes:
    """Class labels of images.

    Attributes:
        labels: int64 [N], from 0 to `count` - 1.
        count: number of classes.
        names: the names of the classes, if each class is a folder.
    """

    labels: NDArray[np.int64]
    count: int
    names: Sequence[str] = ()

    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of the labels as little-endian int64."""
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Square images of one size.

    Attributes:
        images: uint8 [N, C, H, W].
        classes: their class labels; None for unconditional training.
    """

    images: Pixels
    classes: Classes | None = None

    def __post_init__(self) -> None:
        """Raises DataError for images that are not square, or too large."""
        height, width = self.images.shape[2:]
        refuse_shape(height, width)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of all pixels [N, C, H, W]."""
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    def root_mean_square(self) -> float:
        """`sigma_data`: the root mean square of all pixels, scaled to [-1, 1], rounded to four decimals."""
        counts = np.zeros(256, np.int64)
        for begin in range(0, len(self.images), BATCH):
            counts += np.bincount(self.images[begin : begin + BATCH].reshape(-1), minlength=256)
        gray = np.arange(256) / 127.5 - 1
        return round(float(np.sqrt((gray**2 * counts).sum() / counts.sum())), 4)


def read_dataset(
    path: Path,
    key: str | None = None,
    num: int | None = None,
    conditional: bool = False,
    label_key: str | None = None,
) -> Dataset:
    """The images at a path, as `open_images` finds them, with class labels if asked for.

    Args:
        path: a folder, a .zip or .tar of images, an .npz, or an .npy. If the folder is a run of `gddim sample`, only the
            run's images are read.
        key: for an .npz, the name of the array with the images.
        num: at most this many images: the first ones of a run of `gddim sample`, else a fixed random subset.
        conditional: whether to read labels. They come from the first folder in each image's path, or from an array of
            the .npz.
        label_key: for an .npz, the name of the array with the labels; by default `train_labels`. Implies `conditional`.

    Raises:
        DataError: there are no images; the images are not square, differ in size or kind, or do not fit in memory;
            labels are missing or cannot be used.
    """
    source = open_images(path, key, num)
    height, width, channels = source.shape
    refuse_shape(height, width)
    size = source.count * height * width * channels
    if size > physical_memory():
        raise DataError(
            f"{path}: {source.count} images of {width}x{height}x{channels} take {size / 1e9:.3g} GB, more than the "
            f"{physical_memory() / 1e9:.3g} GB of memory; give fewer or smaller images"
        )
    classes = read_classes(path, source, label_key) if conditional or label_key is not None else None
    return Dataset(np.ascontiguousarray(source.read_all().transpose(0, 3, 1, 2)), classes)


def refuse_shape(height: int, width: int) -> None:
    """Raises DataError for images that are not square, or too large."""
    if height != width:
        raise DataError(f"the images are {width}x{height}; square images are needed: crop or pad them")
    if height > LARGEST_SIDE:
        raise DataError(f"the images are {width}x{height}; at most {LARGEST_SIDE}x{LARGEST_SIDE} is supported")


def read_classes(path: Path, source: ImageSource, label_key: str | None) -> Classes:
    """The class labels of a source's images.

    Raises:
        DataError: there are no labels, or the labels cannot be used.
    """
    if path.is_dir() and (path / RUN).exists():
        raise DataError(
            f"--conditional: {path} is a run of gddim sample, which has no class labels; leave out --conditional"
        )
    if path.suffix.lower() == ".npz" and path.is_file():
        known = array_classes(path, source.chosen_from or source.count, label_key)
    elif label_key is not None:
        raise DataError(f"--label-key: {path} is not an .npz; only an .npz has arrays")
    elif isinstance(source, PictureSource):
        known = folder_classes(path, source.pictures.names)
    else:
        raise DataError(f"--conditional: {path} has no class labels; give a folder per class, or an .npz with labels")
    return replace(known, labels=known.labels[list(source.rows[: source.count])])


def folder_classes(path: Path, names: Sequence[str]) -> Classes:
    """The class of each image, which is the first folder in its path. Classes are numbered in alphabetical order.

    Raises:
        DataError: an image is not in a folder, or there are fewer than two folders.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    if "" in folders:
        stray = printable(names[folders.index("")])
        raise DataError(f"--conditional: {path}: {stray} is in no sub-folder; give each class a folder of its own")
    known = sorted(set(folders))
    if len(known) < 2:
        raise DataError(
            f"--conditional: {path} has one sub-folder with images, {printable(known[0])}; two or more are needed"
        )
    number = {name: i for i, name in enumerate(known)}
    return Classes(
        np.array([number[name] for name in folders], np.int64), len(known), [printable(name) for name in known]
    )


def array_classes(path: Path, count: int, label_key: str | None) -> Classes:
    """The labels in an array of an .npz.

    Raises:
        DataError: there is no such array, or it does not hold one class label for each image. Class labels are whole
            numbers from 0, with 2 to `MOST_CLASSES` classes.
    """
    arrays = read_archive(path)
    name = label_key or LABELS
    if name not in arrays:
        hint = nearest(name, arrays) if label_key else f"name one with --label-key; {nearest(name, arrays)}"
        raise DataError(f"{path}: there is no array '{name}' of class labels; {hint}")
    dtype, shape = arrays[name]
    if dtype.kind not in "iu" or shape != (count,):
        raise DataError(
            f"{path}: '{name}' is {dtype}{list(shape)}; class labels are whole numbers, one per image: [{count}]"
        )
    labels: NDArray[Any] = read_member(path, name)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or not 1 <= highest < MOST_CLASSES:
        raise DataError(
            f"{path}: '{name}' has values from {lowest} to {highest}; class labels must run from 0, with 2 to "
            f"{MOST_CLASSES} classes"
        )
    return Classes(labels.astype(np.int64), highest + 1)
