"""The class of each image of a conditional model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from gddim_cli.errors import UsageError
from gddim_cli.models.guidance import EVALUATIONS
from gddim_cli.numerics.noise import to_unit

STREAM = 2**63
"""The number of the random stream from which classes are drawn. The streams of the samplers' steps have lower numbers."""
UNIFORM, ALL = "uniform", "all"


def check_classes(text: str | None, classes: int, model: str) -> str | None:
    """The resolved `--class`: None for an unconditional model. For a conditional model, the default is `uniform`.

    Raises:
        UsageError: labels for an unconditional model, or a label that is not one of the model's classes.
    """
    if not classes:
        if text is not None:
            raise UsageError(f"--class: {model} is an unconditional model; leave --class out")
        return None
    if text is None or text in (UNIFORM, ALL):
        return text or UNIFORM
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) >= classes:
            raise UsageError(
                f"--class: '{part.strip()}' is not one of the classes 0 to {classes - 1}, {UNIFORM} or {ALL}"
            )
    return ",".join(str(int(part)) for part in text.split(","))


def check_guidance(weight: float | None, classes: int, model: str, nfe: int) -> float | None:
    """The resolved `--guidance`. None means no guidance: no weight is given, or the weight is 1.

    Raises:
        UsageError: guidance for an unconditional model, or too few evaluations for a step.
    """
    if weight is None:
        return None
    if not classes:
        raise UsageError(f"--guidance: {model} is an unconditional model; leave --guidance out")
    if weight != 1 and nfe < 2 * EVALUATIONS:
        raise UsageError(f"--guidance: each prediction takes {EVALUATIONS} evaluations, so --nfe {nfe} allows no step")
    return None if weight == 1 else weight


def labels_of(text: str, classes: int, seed: int, indices: Sequence[int]) -> NDArray[np.int64]:
    """The class of each image, [N], which depends only on the seed and the image's index.

    `uniform` draws each class at random, `all` cycles through all classes, and a list cycles through its entries.
    """
    if text == UNIFORM:
        drawn = [
            Philox(key=np.array([seed, index], np.uint64), counter=np.array([0, 0, 0, STREAM], np.uint64)).random_raw(1)
            for index in indices
        ]
        return np.floor(to_unit(np.concatenate(drawn)) * classes).astype(np.int64)
    listed = range(classes) if text == ALL else [int(part) for part in text.split(",")]
    return np.array([listed[index % len(listed)] for index in indices], np.int64)


def rows_by_class(count: int, classes: int) -> list[int]:
    """Sorts the indices below `count` by class, for images whose classes cycle through 0 to `classes` - 1."""
    return sorted(range(count), key=lambda index: (index % classes, index))
