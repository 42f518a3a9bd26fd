"""Files of statistics: what they hold, what ours say of themselves, what is refused."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors import Extractor
from gddim_cli.evaluation.frechet import factor
from gddim_cli.evaluation.moments import Gaussian, check_finite, gaussian_of
from gddim_cli.runtime.arrays import read_archive, read_member
from gddim_cli.runtime.files import replacing, sha256

Shape = tuple[int, int, int]
Header = tuple[np.dtype[Any], tuple[int, ...]]
ABOUT = "gddim"
ARRAYS = {"mu": 1, "sigma": 2, "pool_3": 2}
"""What statistics files hold, and of how many axes."""


@dataclass(frozen=True)
class Reference:
    """The features that others are compared with.

    Attributes:
        name: as it was given.
        title: what it is of, in words.
        gaussian: their mean and covariance.
        features: they themselves, or some of them, [N, d]; None where the file has statistics only.
        sha256: of the file; of the content, where they are images.
        shape: height, width and channels of the images, where that is known.
        stated: whether it says by which network and mode it was made.
    """

    name: str
    title: str
    gaussian: Gaussian
    features: NDArray[np.floating] | None
    sha256: str
    shape: Shape | None = None
    stated: bool = True

    @property
    def n(self) -> int | None:
        return self.gaussian.n


class About(msgspec.Struct, frozen=True):
    """What our own statistics files say of themselves, as JSON in the array `gddim`."""

    title: str
    n: int
    network: str
    mode: str
    weights_sha256: str
    shape: Shape | None = None


def is_statistics(path: Path) -> bool:
    """Whether a path is an .npz of statistics or features, not of images.

    Raises:
        DataError: an .npz that cannot be read.
    """
    return path.suffix.lower() == ".npz" and path.is_file() and bool(ARRAYS.keys() & read_archive(path).keys())


def read_statistics(
    path: Path, extractor: Extractor, name: str, title: str = "", n: int | None = None, shape: Shape | None = None
) -> Reference:
    """An .npz with `mu` and `sigma`, or with the features themselves as `pool_3` [N, d]; ours says more of itself.

    Args:
        title, n, shape: what is known of the images, where the file does not say.

    Raises:
        DataError: not readable, of another dimension or another network than the images' features, or not finite.
    """
    arrays = read_archive(path)
    check_arrays({key: arrays[key] for key in ARRAYS if key in arrays}, extractor, name)
    about = read_about(path) if ABOUT in arrays else None
    if about:
        check_network(about, extractor, name)
        title, n, shape = about.title, about.n, about.shape
    statistics = {"mu", "sigma"} <= arrays.keys()
    if not statistics and "pool_3" not in arrays:
        raise DataError(f"--ref {name}: {path} holds {', '.join(arrays)}; mu and sigma, or pool_3, are needed")
    features = read_member(path, "pool_3") if "pool_3" in arrays else None
    try:
        if features is not None:
            check_finite(features)
        if features is not None and (len(features) == n or not statistics):
            gaussian = gaussian_of(features)  # exact, where there are no more of them than dimensions
        else:
            gaussian = checked(read_member(path, "mu"), read_member(path, "sigma"), n)
    except DataError as error:
        raise DataError(f"--ref {name}: {error}") from error
    return Reference(name, title or path.name, gaussian, features, sha256(path), shape, stated=about is not None)


def check_arrays(arrays: dict[str, Header], extractor: Extractor, name: str) -> None:
    """Raises DataError for arrays that are no statistics of the extractor's features."""
    for key, (dtype, shape) in arrays.items():
        if dtype.kind not in "fiu" or len(shape) != ARRAYS[key]:
            raise DataError(
                f"--ref {name}: {key} is {dtype}{list(shape)}; real numbers of {ARRAYS[key]} axes are needed: no statistics"
            )
        if shape[-1] != extractor.dimension:
            raise DataError(
                f"--ref {name}: {key} is {list(shape)}, but {extractor.name} gives features of "
                f"{extractor.dimension} numbers; another network's statistics"
            )


def check_network(about: About, extractor: Extractor, name: str) -> None:
    """Raises DataError where a file of ours was made by another network, or in another mode."""
    if (about.weights_sha256, about.mode) != (extractor.sha256, extractor.mode):
        raise DataError(
            f"--ref {name}: made by {about.network} in mode {about.mode} (weights {about.weights_sha256[:12]}...), the "
            f"images are measured by {extractor.name} in mode {extractor.mode} ({extractor.sha256[:12]}...); "
            "features of different networks do not compare"
        )


def checked(mean: NDArray[Any], covariance: NDArray[Any], n: int | None) -> Gaussian:
    """The Gaussian of a file's arrays.

    Raises:
        DataError: shapes that do not fit, NaN or infinity, or a matrix that is not symmetric.
    """
    d = mean.size
    if covariance.shape != (d, d):
        raise DataError(f"mu is {list(mean.shape)} and sigma {list(covariance.shape)}; [d] and [d, d] are needed")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError("mu or sigma holds NaN or infinity; the file is damaged, fetch or make it again")
    if np.abs(covariance - covariance.T).max() > 1e-5 * np.abs(covariance).max():
        raise DataError("sigma is not symmetric; the file is damaged, fetch or make it again")
    gaussian = Gaussian(mean, covariance / 2 + covariance.T / 2, n)
    factor(gaussian)  # what is no covariance is refused here, by its file's name
    return gaussian


def mode_of(path: Path) -> str | None:
    """The mode that a statistics file was made with, where it is one of ours.

    Raises:
        DataError: it cannot be read.
    """
    return read_about(path).mode if ABOUT in read_archive(path) else None


def read_about(path: Path) -> About:
    """What a statistics file of ours says of itself.

    Raises:
        DataError: damaged.
    """
    try:
        return msgspec.json.decode(str(read_member(path, ABOUT)), type=About)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: its array '{ABOUT}' is damaged: {error}; make the file again") from error


def write_statistics(
    path: Path,
    gaussian: Gaussian,
    extractor: Extractor,
    features: NDArray[np.floating] | None,
    title: str,
    shape: Shape | None = None,
) -> None:
    """Writes `mu`, `sigma`, `pool_3` where there are features, and `gddim`: what they are of. Equal content, equal bytes.

    Raises:
        OutputError: it cannot be written.
    """
    about = About(title, gaussian.n or 0, extractor.name, extractor.mode, extractor.sha256, shape)
    arrays: dict[str, NDArray[Any]] = {"mu": gaussian.mean, "sigma": gaussian.covariance}
    if features is not None:
        arrays["pool_3"] = np.asarray(features, dtype=np.float32)
    arrays[ABOUT] = np.array(msgspec.json.encode(about).decode())
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            # A date of its own: NumPy writes the time, and the same statistics would differ.
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
