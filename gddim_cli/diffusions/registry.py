"""Linear diffusions as matrices, by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.runtime.typed_yaml import read_yaml

__all__ = ["BDM", "CLD", "DIFFUSIONS", "PSLD", "VE", "VP", "Diffusion", "VPCosine", "find_diffusion", "make_diffusion"]

DIFFUSIONS: dict[str, type[Diffusion]] = {kind.name: kind for kind in (CLD, VP, VPCosine, VE, BDM, PSLD)}


def make_diffusion(name: str, parameters: Mapping[str, Any] | None = None) -> Diffusion:
    """The diffusion called `name` with `parameters` in place of its defaults.

    Raises:
        UsageError: an unknown name or parameter (with the nearest known one).
    """
    if name not in DIFFUSIONS:
        raise UsageError(f"there is no diffusion '{name}'; {nearest(name, DIFFUSIONS)}")
    kind = DIFFUSIONS[name]
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    parameters = {str(key): number(value) for key, value in (parameters or {}).items()}
    for key in parameters:
        if key not in known:
            raise UsageError(f"diffusion {name} has no parameter '{key}'; {nearest(key, known)}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value = parameters.get(field.name, field.default)
        check_parameter(name, field.name, value, field.default)
    return kind(**parameters)


def number(value: Any) -> Any:
    """A number that YAML took for a word, as it does with 1e-6; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


MAY_BE_ZERO = ("beta_0", "beta_1", "gamma", "numerical_eps", "sigma_blur_max")


def check_parameter(diffusion: str, name: str, value: object, default: object) -> None:
    """Refuses what no diffusion can have: another type than the default's, NaN, infinity, or a number below its range.

    Raises:
        UsageError: naming diffusion, parameter and value.
    """
    if isinstance(default, bool) or isinstance(value, bool):
        if type(value) is not type(default):
            raise UsageError(f"diffusion {diffusion}: {name}: {value!r} is not {type(default).__name__}")
        return
    if value is None and default is None:
        return
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"diffusion {diffusion}: {name}: {value!r} is not a number")
    if isinstance(default, int) and not isinstance(value, int):
        raise UsageError(f"diffusion {diffusion}: {name}: {value:g} is not a whole number")
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO and (diffusion, name) != ("psld", "Gamma")):
        raise UsageError(f"diffusion {diffusion}: {name}: {value:g} is not above 0")


def find_diffusion(reference: str) -> Diffusion:
    """A diffusion by name, from a YAML file (`name` and parameters), or from a Python file that defines one class of it.

    A Python file is run, as any program of yours is.

    Raises:
        UsageError: an unknown name or parameter.
        DataError: a file that cannot be read, or that does not define exactly one diffusion.
    """
    path = Path(reference)
    if path.suffix in (".yaml", ".yml"):
        found = read_yaml(path)
        if not isinstance(found, dict) or "name" not in found:
            raise DataError(f"{path}: a mapping with 'name' and parameters is needed")
        return make_diffusion(str(found["name"]), {key: value for key, value in found.items() if key != "name"})
    if path.suffix == ".py":
        return _from_python(path)
    return make_diffusion(reference)


def _from_python(path: Path) -> Diffusion:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"gddim_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        # Registered first: dataclasses look their module up while they are made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Diffusion) and kind.__module__ == spec.name
    ]
    if len(kinds) != 1:
        raise DataError(f"{path}: defines {len(kinds)} diffusions, one class is needed")
    try:
        made = kinds[0]()
    except TypeError as error:
        raise DataError(f"{path}: {kinds[0].__name__}() cannot be made: {error}") from error
    check_shapes(made, path)
    return made


def check_shapes(diffusion: Diffusion, path: Path) -> None:
    """Refuses a person's diffusion that lacks `name` or `D`, or whose matrices have other shapes than their times ask for.

    Raises:
        DataError: naming the first that is wrong.
    """
    for attribute in ("name", "D"):
        if not hasattr(diffusion, attribute):
            raise DataError(f"{path}: the class needs '{attribute}'")
    size, times = (diffusion.D, diffusion.D), np.array([0.25, 0.5, 0.75])
    wanted = {"F": (3, *size), "GG": (3, *size), "Sigma_0": size, "prior_factor": size}
    for name, shape in wanted.items():
        try:
            found = getattr(diffusion, name)
            found = np.shape(found(times) if callable(found) else found)
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise DataError(f"{path}: {name} fails on times of shape [3]: {error}") from error
        if found != shape:
            raise DataError(
                f"{path}: {name} has shape {list(found)} where {list(shape)} is needed (times [3], D = {size[0]})"
            )
