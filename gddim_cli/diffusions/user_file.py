"""A user's own diffusion, from a Python file."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.errors import DataError
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.user_file import execute, guarded

TIMES = np.linspace(1 / 64, 63 / 64, 32)
"""The times at which the matrices are evaluated to check them, as fractions of T."""

LONGEST_NAME = 100
LONGEST_CONFIG = 300
"""Maximum lengths of a diffusion's name, and of its sampling settings in messages, in characters."""


def load_user_diffusion(path: Path) -> Diffusion:
    """Executes a Python file; returns an instance of the diffusion class in it, constructed without arguments.

    Raises:
        DataError: the file is missing, raises an error or does not define exactly one subclass of `Diffusion`, or the
            class does not fulfill the contract (see `check_contract`). The message names the file.
    """
    module = execute(path)
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Diffusion) and kind.__module__ == module.__name__
    ]
    if len(kinds) != 1:
        names = f" ({', '.join(kind.__name__ for kind in kinds)})" if kinds else ""
        raise DataError(f"{path}: defines {len(kinds)} subclasses of Diffusion{names}; exactly one is needed")
    diffusion = guarded(path, f"{kinds[0].__name__}()", kinds[0])
    check_contract(diffusion, path)
    return diffusion


def check_contract(diffusion: Diffusion, path: Path) -> None:
    """Checks the attributes of a user's diffusion, and the shapes of its matrices for times of several shapes.

    Raises:
        DataError: a member does not fulfill the contract; the message names the first such member.
    """
    check_attributes(diffusion, path)
    block = _matrix(diffusion, path, "Sigma_0").shape
    if block[-2:] != (diffusion.D, diffusion.D) or (len(block) != 2 and not diffusion.spectral):
        raise DataError(f"{path}: Sigma_0 has shape {list(block)}; [D, D] with D = {diffusion.D} is needed")
    factor = _matrix(diffusion, path, "prior_factor").shape
    if factor not in (block, block[-2:]):
        raise DataError(f"{path}: prior_factor has shape {list(factor)}; {list(block)} is needed")
    for member in ("Sigma_0", "prior_factor"):
        if not np.isfinite(_matrix(diffusion, path, member)).all():
            raise DataError(f"{path}: {member} is not finite")
    inside = TIMES * diffusion.T
    for member in ("F", "GG", "Psi", "Sigma"):
        for t in (inside[7], inside, inside.reshape(4, 8)):
            found = _matrix(diffusion, path, member, *((t, 0.5 * t) if member == "Psi" else (t,)))
            if found.shape != (*np.shape(t), *block):
                raise DataError(
                    f"{path}: {member} of times of shape {list(np.shape(t))} has shape {list(found.shape)}; "
                    f"{[*np.shape(t), *block]} is needed"
                )
            if not np.isfinite(found).all():
                raise DataError(f"{path}: {member} is not finite at some time between 0 and T = {diffusion.T:g}")
    for t in (0.0, diffusion.T):  # At both ends, F and GG must return numbers, but these need not be finite.
        for member in ("F", "GG"):
            _matrix(diffusion, path, member, t)


def check_attributes(diffusion: Diffusion, path: Path) -> None:
    """Raises DataError for a name, a dimension, a last time or sampling settings of the wrong type or out of range."""
    for attribute, kind, expected in (
        ("name", str, "a text"),
        ("D", int, "a whole number, the state dimension per pixel"),
        ("T", (int, float), "a number, the last time"),
        ("sampling", SamplingConfig, "a SamplingConfig"),
    ):
        value = getattr(diffusion, attribute, None)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{path}: the class needs '{attribute}', {expected}")
    check_sampling(diffusion.sampling, path)
    name, d, last = diffusion.name, _as_float(diffusion.D), _as_float(diffusion.T)
    named = type(name) is str and name.strip() and name.isprintable() and len(name) <= LONGEST_NAME
    if not named or not 1 <= d < math.inf or not 0 < last < math.inf:
        raise DataError(
            f"{path}: name {printable(name, LONGEST_NAME)!r}, D = {d:g}, T = {last:g}: the name must be a str of 1 to "
            f"{LONGEST_NAME} printable characters, D must be at least 1, and T must be finite and above 0"
        )


def check_sampling(config: SamplingConfig, path: Path) -> None:
    """Raises DataError for a SamplingConfig whose values have the wrong types."""
    times, grid = (config.t_start, config.t_end), config.grid_power
    # Subclasses of these types are refused: run.json records the values, and JSON cannot represent subclasses.
    fits = (
        all(_is_number(t) for t in times)
        and (_is_number(grid) or type(grid) is str)
        and isinstance(config.denoise, bool)
        and all(type(choice) is str for choice in (config.k, config.quantize))
        and config.k in get_args(KChoice)
        and config.quantize in ("floor", "round")
    )
    if not fits:
        shown = guarded(path, "sampling", lambda: printable(repr(config), LONGEST_CONFIG))
        raise DataError(
            f"{path}: sampling = {shown}: t_start and t_end must be finite numbers (int or float); grid_power must be "
            "a finite number or the name of a grid; denoise must be True or False; k must be 'R' or 'L'; quantize must be "
            "'floor' or 'round'"
        )


def _is_number(value: object) -> bool:
    """Whether a value is a finite int or float. False for a bool and for a NumPy number."""
    return type(value) in (int, float) and math.isfinite(_as_float(value))


def _as_float(value: Any) -> float:
    """An int or float as a float; infinity if the value is too large for a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _matrix(diffusion: Diffusion, path: Path, member: str, *times: Any) -> np.ndarray:
    """The value of a member of a user's diffusion as an array. If `times` are given, the member is called with them.

    Raises:
        DataError: the member raises an error, or does not consist of real numbers of a type that NumPy's linear algebra
            and torch both compute with.
    """

    def call() -> np.ndarray:
        value = getattr(diffusion, member)
        found = np.asarray(value(*times) if times else value)
        if found.dtype.kind not in "fiu":
            raise TypeError(f"an array of real numbers is needed, not of {found.dtype}")
        if not found.dtype.isnative or (found.dtype.kind == "f" and found.dtype.itemsize not in (4, 8)):
            raise TypeError(f"an array of float64 is needed, not of {found.dtype.str}; convert it with .astype(float)")
        return found

    with np.errstate(all="ignore"):
        found: np.ndarray = guarded(path, member, call)
    return found
