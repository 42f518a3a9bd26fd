"""Where named checkpoints are: cards and small weights ship with the package, fetched weights lie in the cache."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from gddim_cli.checkpoints.card import Card
from gddim_cli.errors import CheckpointError, nearest
from gddim_cli.files import read_yaml, typed

PACKAGE = Path(__file__).resolve().parent.parent
WEIGHTS = ".safetensors"
RELEASED = "cld-cifar10"
BUNDLED = "mnist"


def bundled_folder() -> Path:
    """`checkpoints/`: inside the installed package, or at the top of a source tree."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent / "checkpoints"


def names() -> list[str]:
    """The checkpoints that have a card."""
    return sorted(path.stem for path in bundled_folder().glob("*.yaml") if "." not in path.stem)


def card_of(name: str) -> Card:
    """The card of a named checkpoint.

    Raises:
        CheckpointError: there is none of that name (the nearest is suggested), or its card is wrong.
    """
    if name not in names():
        raise CheckpointError(
            f"there is no checkpoint '{name}'; {nearest(name, names())} (a file of your own is given by its path)"
        )
    path = bundled_folder() / f"{name}.yaml"
    return typed(read_yaml(path), Card, path, CheckpointError)


def cache_folder() -> Path:
    """Where fetched checkpoints lie: `GDDIM_HOME`, else the platform's cache folder."""
    home = os.environ.get("GDDIM_HOME")
    return Path(home) if home else Path(platformdirs.user_cache_dir("gddim"))


def find_weights(name: str) -> Path | None:
    """The native file of a named checkpoint, bundled or in the cache; None where it is not on this machine."""
    places = (bundled_folder() / f"{name}{WEIGHTS}", cache_folder() / "checkpoints" / f"{name}{WEIGHTS}")
    return next((place for place in places if place.is_file()), None)


def default_name() -> tuple[str, str]:
    """The checkpoint to sample when none is named, and why: the released CLD if it is here, else the bundled one."""
    if find_weights(RELEASED):
        return RELEASED, "the released CLD model, which has been downloaded"
    return BUNDLED, f"bundled; {RELEASED} has not been downloaded"
