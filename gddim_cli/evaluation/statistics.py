"""Statistics files: mean and covariance of features, or the features themselves. gddim's files also state their origin."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.frechet import factor
from gddim_cli.evaluation.moments import Gaussian, check_finite, gaussian_of
from gddim_cli.runtime.arrays import read_archive, read_member
from gddim_cli.runtime.files import replacing, sha256
from gddim_cli.runtime.text import printable

Shape = tuple[int, int, int]
Header = tuple[np.dtype[Any], tuple[int, ...]]
ABOUT = "gddim"
ARRAYS = {"mu": 1, "sigma": 2, "pool_3": 2}
"""The arrays of statistics files, with the number of axes of each."""
LARGEST = 1 << 30
"""Maximum size of an array in a statistics file, in bytes: 131 072 Inception feature vectors in float32."""


@dataclass(frozen=True)
class Reference:
    """A reference: the mean and covariance, and perhaps the features, that the images' features are compared with.

    Attributes:
        name: the reference as the user gave it.
        title: a description of its images.
        gaussian: mean and covariance of the features.
        features: the features, or some of them, [N, d]; None if the file has only mean and covariance.
        sha256: SHA-256 of the file, or of the images' content.
        shape: height, width and channels of the images, if known.
        stated: whether the file states the network and mode that made it.
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
        """The number of images, if known."""
        return self.gaussian.n


def read_only(reference: Reference | None) -> Reference | None:
    """A copy of a reference with read-only views of its arrays, so that a user's metric cannot change them."""
    if reference is None:
        return None
    gaussian = replace(reference.gaussian, **views_of(reference.gaussian, "mean", "covariance", "factor"))
    return replace(reference, gaussian=gaussian, **views_of(reference, "features"))


def views_of(owner: object, *names: str) -> dict[str, Any]:
    """Read-only views of the arrays in these attributes of an object, by name; attributes that are None are left out."""
    found = {name: getattr(owner, name).view() for name in names if getattr(owner, name) is not None}
    for view in found.values():
        view.setflags(write=False)
    return found


class About(msgspec.Struct, frozen=True):
    """The origin of a statistics file of gddim, stored as JSON in the array `gddim`."""

    title: str
    n: Annotated[int, msgspec.Meta(ge=2, le=10**12)]
    network: str
    mode: str
    weights_sha256: str
    shape: Shape | None = None
    images_sha256: str | None = None


def is_statistics(path: Path) -> bool:
    """Whether a path is an .npz of statistics or features rather than images.

    Raises:
        DataError: the .npz cannot be read.
    """
    return path.suffix.lower() == ".npz" and path.is_file() and bool(ARRAYS.keys() & read_archive(path).keys())


def read_statistics(
    path: Path, extractor: Extractor, name: str, title: str = "", n: int | None = None, shape: Shape | None = None
) -> Reference:
    """The reference in an .npz with `mu` and `sigma`, or with the features as `pool_3` [N, d].

    Args:
        title, n, shape: title, number and shape of the reference's images; ignored if the file states them.

    Raises:
        DataError: the file cannot be read or belongs to another network, or its numbers are not finite or all zero.
    """
    arrays = read_archive(path)
    check_arrays({key: arrays[key] for key in ARRAYS if key in arrays}, extractor, name)
    about = read_about(path) if ABOUT in arrays else None
    if about:
        check_network(about, extractor, name)
        title, n, shape = printable(about.title), about.n, about.shape
    statistics = {"mu", "sigma"} <= arrays.keys()
    if not statistics and "pool_3" not in arrays:
        raise DataError(
            f"--ref {name}: {path} holds {printable(', '.join(arrays))}; mu and sigma, or pool_3, are needed"
        )
    try:
        features = read_member(path, "pool_3", LARGEST) if "pool_3" in arrays else None
        gaussian = gaussian_in(path, features, n, statistics)
    except DataError as error:
        raise DataError(f"--ref {name}: {error}") from error
    return Reference(name, title or path.name, gaussian, features, sha256(path), shape, stated=about is not None)


def gaussian_in(path: Path, features: NDArray[Any] | None, n: int | None, statistics: bool) -> Gaussian:
    """The Gaussian of a statistics file.

    It is computed from the features if the file has those of all n images, or has no mean and covariance. Otherwise, it
    is the file's mean and covariance.

    Args:
        n: the number of images, if known.
        statistics: whether the file has a mean and a covariance.

    Raises:
        DataError: the features are not finite, all zero, too few or too many; or as in `checked`.
    """
    if features is not None:
        check_finite(features)
        if n is not None and len(features) > n:
            raise DataError(
                f"pool_3 has {len(features)} rows for {n} images; the file is damaged, fetch or make it again"
            )
    if features is not None and (len(features) == n or not statistics):
        gaussian = gaussian_of(features)  # Has an exact factor even if the covariance is singular.
    else:
        gaussian = checked(read_member(path, "mu", LARGEST), read_member(path, "sigma", LARGEST), n)
    if not gaussian.mean.any() and not gaussian.covariance.any():
        raise DataError("all numbers are zero; the file is damaged, fetch or make it again")
    return gaussian


def check_arrays(arrays: dict[str, Header], extractor: Extractor, name: str) -> None:
    """Raises DataError for arrays that cannot be statistics of the extractor's features."""
    for key, (dtype, shape) in arrays.items():
        if dtype.kind not in "fiu" or len(shape) != ARRAYS[key]:
            raise DataError(
                f"--ref {name}: {key} is {dtype}{list(shape)}; real numbers with {ARRAYS[key]} axes are needed"
            )
        if shape[-1] != extractor.dimension:
            raise DataError(
                f"--ref {name}: {key} is {list(shape)}, but {extractor.name} gives features of "
                f"{extractor.dimension} numbers: these are another network's statistics"
            )


def check_network(about: About, extractor: Extractor, name: str) -> None:
    """Raises DataError for a file that was made with another network or mode."""
    if (about.weights_sha256, about.mode) != (extractor.sha256, extractor.mode):
        raise DataError(
            f"--ref {name}: made by {printable(about.network)} in mode {printable(about.mode)} (weights "
            f"{printable(about.weights_sha256, 12)}), but the images are measured by {extractor.name} in mode "
            f"{extractor.mode} (weights {extractor.sha256[:12]}...); features of different networks are not comparable"
        )


def checked(mean: NDArray[Any], covariance: NDArray[Any], n: int | None) -> Gaussian:
    """Checks a file's mean and covariance, and returns their Gaussian.

    Raises:
        DataError: the shapes do not match, a number is not finite, or the matrix is not symmetric or not a covariance.
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
    # Refuses a matrix that is not a covariance. If it were refused only later, the error would not name the file.
    factor(gaussian)
    return gaussian


def mode_of(path: Path) -> str | None:
    """The mode that a statistics file states; None if the file does not state its mode.

    Raises:
        DataError: the file cannot be read.
    """
    return read_about(path).mode if ABOUT in read_archive(path) else None


def origin_of(path: Path) -> About | None:
    """The origin of a statistics file of gddim; None for any other file, and for a damaged one."""
    try:
        return read_about(path) if is_statistics(path) and ABOUT in read_archive(path) else None
    except DataError:
        return None


def read_about(path: Path) -> About:
    """The origin of a statistics file of gddim.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return msgspec.json.decode(str(read_member(path, ABOUT, most=1 << 20)), type=About)
    except (UnicodeError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: its array '{ABOUT}' is damaged: {error}; make the file again") from error


def write_statistics(
    path: Path,
    gaussian: Gaussian,
    extractor: Extractor,
    features: NDArray[np.floating] | None,
    title: str,
    shape: Shape | None = None,
    images_sha256: str | None = None,
) -> None:
    """Writes `mu`, `sigma`, any features as `pool_3`, and their origin as `gddim`. Equal content gives equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    about = About(title, gaussian.n or 0, extractor.name, extractor.mode, extractor.sha256, shape, images_sha256)
    arrays: dict[str, NDArray[Any]] = {"mu": gaussian.mean, "sigma": gaussian.covariance}
    if features is not None:
        arrays["pool_3"] = np.asarray(features, dtype=np.float32)
    arrays[ABOUT] = np.array(msgspec.json.encode(about).decode())
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            # The date is fixed. NumPy would write the current time, and files of equal statistics would differ.
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
