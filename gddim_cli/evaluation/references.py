"""What images are measured against: named references, statistics files, or features."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.checkpoints.store import bundled_folder, find_file
from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.evaluation.extractors import Extractor
from gddim_cli.evaluation.moments import Gaussian, check_finite, gaussian_of
from gddim_cli.files import read_archive, read_member, replacing, sha256

KEPT = 5000
"""Features of a bundled reference that are kept, for KID and PRDC."""
ABOUT = "gddim"


@dataclass(frozen=True)
class Named:
    """A reference that has a name.

    Attributes:
        title: what it is of.
        files: the published file of each mode; one under None serves every mode of that network.
        shape: height, width and channels of its images.
    """

    title: str
    files: dict[str, str]
    shape: tuple[int, int, int]


def inception_of_2015(name: str) -> dict[str, str]:
    """One file of features of TensorFlow's Inception, which legacy_tensorflow's network is."""
    return {"legacy_tensorflow": name}


def cleanfid_files(split: str) -> dict[str, str]:
    return {
        "legacy_tensorflow": f"stats-cifar10-legacy-tensorflow{split}",
        "clean": f"stats-cifar10-clean{split}",
        "legacy_pytorch": f"stats-cifar10-legacy-pytorch{split}",
    }


CIFAR = (32, 32, 3)
DIGITS = (28, 28, 1)
REFERENCES = {
    "mnist": Named("MNIST train, 60 000", {"lenet": "stats-mnist-train.npz"}, DIGITS),
    "mnist:test": Named("MNIST test, 10 000", {"lenet": "stats-mnist-test.npz"}, DIGITS),
    "cifar10": Named("CIFAR-10 train, 50 000, clean-fid's statistics", cleanfid_files(""), CIFAR),
    "cifar10:test": Named("CIFAR-10 test, 10 000, clean-fid's statistics", cleanfid_files("-test"), CIFAR),
    "cifar10-edm": Named("CIFAR-10 train, 50 000, EDM's", inception_of_2015("stats-cifar10-edm"), CIFAR),
    "cifar10-tf": Named("CIFAR-10 train, 50 000, the gDDIM authors'", inception_of_2015("stats-cifar10-tf"), CIFAR),
    "cifar10-scoresde": Named(
        "CIFAR-10 train, 50 000, Song et al.'s", inception_of_2015("stats-cifar10-scoresde"), CIFAR
    ),
}
ALIASES = {f"{name}:train": name for name in ("mnist", "cifar10")}


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
    """

    name: str
    title: str
    gaussian: Gaussian
    features: NDArray[np.floating] | None
    sha256: str
    shape: tuple[int, int, int] | None = None

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
    shape: tuple[int, int, int] | None = None


def canonical(name: str) -> str:
    """The name under which a reference is known: `cifar10:train` is `cifar10`."""
    return ALIASES.get(name, name)


def named_file(name: str, mode: str) -> Path:
    """The statistics file of a named reference for a mode.

    Raises:
        UsageError: the reference does not go with the mode.
        DataError: it is not on this machine; the message says how to get it.
    """
    known = REFERENCES[name]
    if mode not in known.files:
        raise UsageError(
            f"--ref {name}: was made with {', '.join(known.files)}, not with --mode {mode}; "
            "features of different networks do not compare"
        )
    file = known.files[mode]
    path = bundled_folder() / file if mode == "lenet" else find_file(file)
    if path is None:
        raise DataError(f"--ref {name}: its statistics are not on this machine; get them with: gddim download {file}")
    return path


def read_named(name: str, extractor: Extractor) -> Reference:
    """A named reference.

    Raises:
        UsageError, DataError: as `named_file` and `read_statistics`.
    """
    known = REFERENCES[name]
    return read_statistics(named_file(name, extractor.mode), extractor, name, known.title, known.shape)


def is_statistics(path: Path) -> bool:
    """Whether a path is an .npz of statistics or features, not of images.

    Raises:
        DataError: an .npz that cannot be read.
    """
    return path.suffix == ".npz" and path.is_file() and bool({"mu", "pool_3"} & set(read_archive(path)))


def read_statistics(
    path: Path, extractor: Extractor, name: str, title: str = "", shape: tuple[int, int, int] | None = None
) -> Reference:
    """An .npz with `mu` and `sigma`, or with the features themselves as `pool_3` [N, d]; ours says more of itself.

    Raises:
        DataError: not readable, of another dimension or another network than the images' features, or not finite.
    """
    arrays = read_archive(path)
    about = read_about(path) if ABOUT in arrays else None
    if about and (about.weights_sha256, about.mode) != (extractor.sha256, extractor.mode):
        raise DataError(
            f"--ref {name}: made by {about.network} in mode {about.mode} (weights {about.weights_sha256[:12]}...), the "
            f"images are measured by {extractor.name} in mode {extractor.mode} ({extractor.sha256[:12]}...); "
            "features of different networks do not compare"
        )
    for array in {"mu", "sigma", "pool_3"} & set(arrays):
        wrong = arrays[array][1][-1:] != (extractor.dimension,)
        if wrong:
            raise DataError(
                f"--ref {name}: {array} is {list(arrays[array][1])}, but {extractor.name} gives features of "
                f"{extractor.dimension} numbers; another network's statistics"
            )
    features = read_member(path, "pool_3") if "pool_3" in arrays else None
    if features is not None:
        check_finite(features)
    if features is not None and about and len(features) == about.n:
        gaussian = gaussian_of(features)  # exact, where there are no more of them than dimensions
    elif {"mu", "sigma"} <= set(arrays):
        gaussian = checked(read_member(path, "mu"), read_member(path, "sigma"), about.n if about else None, name)
    elif features is not None:
        gaussian = gaussian_of(features)
    else:
        raise DataError(f"--ref {name}: {path} holds {', '.join(arrays)}; mu and sigma, or pool_3, are needed")
    title, shape = (about.title or title, about.shape or shape) if about else (title or path.name, shape)
    return Reference(name, title, gaussian, features, sha256(path), shape)


def checked(mean: NDArray[Any], covariance: NDArray[Any], n: int | None, name: str) -> Gaussian:
    """The Gaussian of a file's arrays.

    Raises:
        DataError: shapes that do not fit, NaN or infinity, or a matrix that is not symmetric.
    """
    d = mean.size
    if mean.shape != (d,) or covariance.shape != (d, d):
        raise DataError(
            f"--ref {name}: mu is {list(mean.shape)} and sigma {list(covariance.shape)}; [d] and [d, d] are needed"
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(f"--ref {name}: mu or sigma holds NaN or infinity; the file is damaged, fetch or make it again")
    if np.abs(covariance - covariance.T).max() > 1e-5 * np.abs(covariance).max():
        raise DataError(f"--ref {name}: sigma is not symmetric; the file is damaged, fetch or make it again")
    return Gaussian(mean, (covariance + covariance.T) / 2, n)


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
    shape: tuple[int, int, int] | None = None,
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


def find(name: str) -> str | Path:
    """A known reference's name, or a path.

    Raises:
        DataError: neither.
    """
    name = canonical(name)
    if name in REFERENCES:
        return name
    if not Path(name).exists():
        raise DataError(f"--ref {name}: no such file or folder, nor a known reference; {nearest(name, REFERENCES)}")
    return Path(name)
