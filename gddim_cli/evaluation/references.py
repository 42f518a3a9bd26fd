"""Named references: published statistics, and bundled statistics of MNIST. This module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gddim_cli.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from gddim_cli.evaluation.extractors.base import Extractor
    from gddim_cli.evaluation.statistics import Reference, Shape

KEPT = 5000
"""Number of feature vectors that a bundled reference stores, for KID and PRDC."""


@dataclass(frozen=True)
class Named:
    """A named reference.

    Attributes:
        title: a description of its images.
        n: the number of images.
        files: the published file for each mode; the keys are the modes that the reference supports.
        shape: height, width and channels of its images.
    """

    title: str
    n: int
    files: dict[str, str]
    shape: Shape


def inception_of_2015(name: str) -> dict[str, str]:
    """The `files` of a reference with a single file, made with TensorFlow's Inception (mode legacy_tensorflow)."""
    return {"legacy_tensorflow": name}


def cleanfid_files(split: str) -> dict[str, str]:
    """clean-fid's files for a split of CIFAR-10."""
    return {
        "legacy_tensorflow": f"stats-cifar10-legacy-tensorflow{split}",
        "clean": f"stats-cifar10-clean{split}",
        "legacy_pytorch": f"stats-cifar10-legacy-pytorch{split}",
    }


CIFAR = (32, 32, 3)
DIGITS = (28, 28, 1)
REFERENCES = {
    "mnist": Named("MNIST train", 60_000, {"lenet": "stats-mnist-train.npz"}, DIGITS),
    "mnist:test": Named("MNIST test", 10_000, {"lenet": "stats-mnist-test.npz"}, DIGITS),
    "cifar10": Named("CIFAR-10 train, clean-fid's statistics", 50_000, cleanfid_files(""), CIFAR),
    "cifar10:test": Named("CIFAR-10 test, clean-fid's statistics", 10_000, cleanfid_files("-test"), CIFAR),
    "cifar10-edm": Named("CIFAR-10 train, EDM's", 50_000, inception_of_2015("stats-cifar10-edm"), CIFAR),
    "cifar10-tf": Named("CIFAR-10 train, the gDDIM authors'", 50_000, inception_of_2015("stats-cifar10-tf"), CIFAR),
    "cifar10-scoresde": Named(
        "CIFAR-10 train, Song et al.'s", 50_000, inception_of_2015("stats-cifar10-scoresde"), CIFAR
    ),
}
ALIASES = {f"{name}:train": name for name in ("mnist", "cifar10")}


def canonical(name: str) -> str:
    """The main name of a reference: `cifar10` for its alias `cifar10:train`."""
    return ALIASES.get(name, name)


def named_file(name: str, mode: str) -> Path:
    """The statistics file of a named reference for a mode.

    Raises:
        UsageError: the reference does not support the mode.
        DataError: the file is not on this machine; the message names the command that fetches it.
    """
    from gddim_cli.hub.store import bundled_folder, find_file

    known = REFERENCES[name]
    if mode not in known.files:
        chosen = "--features" if mode == "own" else f"--mode {mode}"
        raise UsageError(
            f"--ref {name}: was made with {', '.join(known.files)}, not with {chosen}; "
            "features of different networks are not comparable"
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
    from gddim_cli.evaluation.statistics import read_statistics

    known = REFERENCES[name]
    found = read_statistics(named_file(name, extractor.mode), extractor, name, known.title, known.n, known.shape)
    check_recorded(known.files[extractor.mode], found)
    return replace(found, stated=True)


def check_recorded(file: str, found: Reference) -> None:
    """Raises DataError if the file has changed since it was downloaded."""
    from gddim_cli.hub.store import file_names, read_record

    record = read_record(file) if file in file_names() else None
    if record and record.sha256 != found.sha256:
        raise DataError(
            f"--ref {found.name}: {file} has changed since it was downloaded (its sha256 was {record.sha256[:12]}... "
            f"and is now {found.sha256[:12]}...); remove the file and run: gddim download {file}"
        )


def find(name: str) -> str | Path:
    """The main name of a known reference, or a path.

    Raises:
        UsageError: the name is empty.
        DataError: `name` is neither a known name nor an existing path.
    """
    if not name:
        raise UsageError(f"--ref: is empty; known: {', '.join(REFERENCES)}, or a path")
    name = canonical(name)
    if name in REFERENCES:
        return name
    if not Path(name).exists():
        raise DataError(f"--ref {name}: neither a file, a folder nor a known reference; {nearest(name, REFERENCES)}")
    return Path(name)
