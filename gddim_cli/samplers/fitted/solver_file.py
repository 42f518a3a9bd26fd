"""Solver files: the times and matrices of a solver fitted to one network in one diffusion, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from gddim_cli.diffusions.base import KChoice
from gddim_cli.errors import DataError
from gddim_cli.numerics.quadrature import Array
from gddim_cli.runtime.files import read_plain, replacing
from gddim_cli.samplers.coefficients import HIGHEST_ORDER, Coefficients

MAX_BYTES = 1 << 25
"""The largest solver file that is read."""
LARGEST = 1e12
"""The largest magnitude allowed for a time or a number in a matrix."""
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a solver was fitted.

    Attributes:
        num: the number of images that the solver was fitted to. Their indices are 0 to num - 1.
        held_out: the number of further images, with indices from `num` on. One half was used to select the best round of
            the search, the other half to compute `rmse_before` and `rmse_after`.
        seed: the seed of the initial noises.
        classes: how class labels were drawn; None for an unconditional model.
        start: the solver that the fit had to beat. If no search did better, the file holds this solver itself.
        improved: whether a search did better.
        rmse_before, rmse_after: the root mean square distance to the images that many steps would give, for `start` and
            for this solver.
    """

    num: Count
    held_out: Count
    seed: Annotated[int, msgspec.Meta(ge=0)]
    classes: Text | None
    start: Text
    improved: bool
    rmse_before: float
    rmse_after: float


class SolverFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"psi": "Psi", "c": "C"}):
    """A fitted solver: its model and diffusion, how it was fitted, and its `Coefficients` as nested lists.

    `t_start` is the time at which the initial states are drawn from the prior. If it is None, that time is t[0].
    """

    format: Literal["gddim solver 1"]
    checkpoint: Text
    checkpoint_sha256: Text
    diffusion: Text
    parameters: dict[str, int | float | bool | str | None]
    diffusion_sha256: Text | None
    nfe: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    k: KChoice
    denoise: bool
    fit: Fit
    t: list[float]
    psi: list[Any]
    c: list[Any]
    last: list[Any] | None = None
    prediction: list[Any] | None = None
    first: list[Any] | None = None
    t_start: float | None = None

    @property
    def coefficients(self) -> Coefficients:
        """The solver's `Coefficients`, checked and converted from the lists.

        Raises:
            ValueError: the lists do not form matrices of equal size, a number is not finite, the times do not decrease, or
                the number of steps contradicts `nfe`.
        """
        t = block("t", self.t, (len(self.t),))
        if not (len(t) >= 2 and t[-1] > 0 and (np.diff(t) < 0).all()):
            raise ValueError("t: at least two times are needed, positive and decreasing")
        psi = np.asarray(self.psi, dtype=np.float64)
        steps, size = len(t) - 1, psi.shape[1:]
        psi, c = block("Psi", psi, (steps, *size)), np.asarray(self.c, dtype=np.float64)
        past = c.shape[1] if c.ndim > 1 else 0
        if len(size) not in (2, 4) or size[-1] != size[-2] or not 1 <= past <= HIGHEST_ORDER + 1:
            shapes = f"{list(psi.shape)} and {list(c.shape)}"
            raise ValueError(f"Psi and C have the shapes {shapes}, not [N, D, D] and [N, order + 1, D, D]")
        last = None if self.last is None else block("last", self.last, (2, *size))
        if self.t_start is not None and not self.t_start >= t[0]:
            raise ValueError(f"t_start: {self.t_start:g} is less than t[0] = {t[0]:g}")
        first = None if self.first is None else block("first", self.first, size)
        prediction = None if self.prediction is None else block("prediction", self.prediction, (steps, 2, *size))
        found = Coefficients(
            t, psi, block("C", c, (steps, past, *size)), self.k, last, prediction=prediction, first=first
        )
        if found.nfe != self.nfe:
            raise ValueError(f"nfe: {self.nfe}, but the steps take {found.nfe} evaluations")
        return found


def block(name: str, numbers: Any, shape: tuple[int, ...]) -> Array:
    """The numbers as a float64 array of this shape; raises ValueError for anything else."""
    found = np.asarray(numbers, dtype=np.float64)
    if found.shape != shape:
        raise ValueError(f"{name}: has the shape {list(found.shape)}, not {list(shape)}")
    if not (np.abs(found) <= LARGEST).all():  # false for NaN
        raise ValueError(f"{name}: a number is NaN, infinite, or larger than {LARGEST:g} in magnitude")
    return found


def matrices_of(c: Coefficients) -> dict[str, Any]:
    """The fields of a `SolverFile` that hold coefficients."""
    lists = {"t": c.t, "psi": c.Psi, "c": c.C, "last": c.last, "prediction": c.prediction, "first": c.first}
    return {name: None if array is None else array.tolist() for name, array in lists.items()}


def write_solver(path: Path, solver: SolverFile) -> None:
    """Writes a solver file atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(solver) + b"\n")


def read_solver(path: Path) -> SolverFile:
    """Reads a solver file and checks its coefficients.

    Raises:
        DataError: the file is missing, too large, or not a solver file.
    """
    try:
        found = msgspec.json.decode(read_plain(path, MAX_BYTES), type=SolverFile)
        found.coefficients  # noqa: B018 (checks them)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: not a solver file of gddim tune ({text}); make one with: gddim tune") from error
    return found
