"""Checks that a file of statistics matches its card, before the file is kept in the cache."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddim_cli.checkpoints.card import FileCard
from gddim_cli.errors import DataError, DownloadError
from gddim_cli.runtime.archives import refuse_packed
from gddim_cli.runtime.arrays import read_archive, read_member
from gddim_cli.runtime.text import printable

LARGEST = 2 << 30
"""Maximum size of an array, in bytes. The largest array in a published file takes 0.4 GB."""


def check_content(card: FileCard, path: Path) -> None:
    """Refuses a file in which an array that the card names is missing or does not hold statistics.

    Raises:
        DownloadError: the file does not match its card; the message says why.
    """
    if not card.arrays:
        return
    check_zip(card, path)
    try:
        found = read_archive(path)
    except DataError as error:
        raise refused(card, path, reason(error, path)) from error
    for name in card.arrays:
        if name not in found:
            raise refused(card, path, f"it has no array {name}")
        dtype, shape = found[name]
        claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.kind != "f" or not all(shape) or claimed > LARGEST:
            raise refused(card, path, f"its {name} holds {dtype} of shape {list(shape)}")
    values = {}
    for name in card.arrays:
        try:
            values[name] = read_member(path, name)
        except DataError as error:
            raise refused(card, path, reason(error, path)) from error
        if not np.isfinite(values[name]).all():
            raise refused(card, path, f"its {name} holds NaN or infinity")
    check_statistics(card, path, values)


def check_zip(card: FileCard, path: Path) -> None:
    """Refuses a damaged archive, and an archive with a member of more than `LARGEST` bytes.

    Raises:
        DownloadError: the archive is damaged, or a member is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > LARGEST for member in archive.infolist()):
                raise refused(card, path, "one of its members is too large")
            refuse_packed(archive.infolist(), path)
            broken = archive.testzip()
    except DataError as error:
        raise refused(card, path, reason(error, path)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise refused(card, path, f"not a complete .npz file ({printable(error)})") from error
    if broken:
        raise refused(card, path, f"its member {printable(broken)} is damaged")


def check_statistics(card: FileCard, path: Path, values: dict[str, NDArray[np.floating]]) -> None:
    """Refuses arrays that cannot be a mean and a covariance, or features of images.

    Raises:
        DownloadError: an array is wrong; the message names the first such array.
    """
    if "mu" in values and "sigma" in values:
        mu, sigma = values["mu"], values["sigma"]
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise refused(card, path, f"mu of shape {list(mu.shape)} with sigma of shape {list(sigma.shape)}")
        if not (np.diagonal(sigma) > 0).any() or (np.diagonal(sigma) < 0).any():
            raise refused(card, path, "its sigma is not a covariance")
    if "pool_3" in values:
        features = values["pool_3"]
        if features.ndim != 2 or len(features) < 2 or not features.any():
            raise refused(card, path, f"its pool_3, of shape {list(features.shape)}, holds no features")


def reason(error: DataError, path: Path) -> str:
    """The error's text without the leading path. `refused` adds the path."""
    return printable(str(error).removeprefix(f"{path}: "))


def refused(card: FileCard, path: Path, what: str) -> DownloadError:
    """The DownloadError for a file that does not match its card; `what` says what is wrong."""
    return DownloadError(f"{path}: not the statistics of {card.name}: {what}; not kept")
