"""Finds diffusions by name, and in YAML or Python files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.parameters import check_parameters
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.user_file import load_user_diffusion
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.runtime.typed_yaml import read_yaml

__all__ = ["BDM", "CLD", "DIFFUSIONS", "PSLD", "VE", "VP", "Diffusion", "VPCosine", "find_diffusion", "make_diffusion"]

DIFFUSIONS: dict[str, type[Diffusion]] = {kind.name: kind for kind in (CLD, VP, VPCosine, VE, BDM, PSLD)}


def make_diffusion(name: str, parameters: Mapping[str, Any] | None = None) -> Diffusion:
    """The built-in diffusion `name`; `parameters` replace its defaults.

    Raises:
        UsageError: an unknown name or parameter (the nearest known one is suggested), or a value outside its range.
    """
    if name not in DIFFUSIONS:
        raise UsageError(f"there is no diffusion '{name}'; {nearest(name, DIFFUSIONS)}")
    kind = DIFFUSIONS[name]
    return kind(**check_parameters(kind, parameters or {}))


def find_diffusion(reference: str) -> Diffusion:
    """The diffusion that `--diffusion` refers to.

    Args:
        reference: a name; a YAML file with `name` and parameters; or a Python file that defines one subclass of
            `Diffusion`, which is executed.

    Raises:
        UsageError: a name or parameter is unknown, or a value is out of range. For a YAML file, the message names the
            file.
        DataError: the file cannot be read, or does not define exactly one diffusion.
    """
    path = Path(reference)
    if path.suffix in (".yaml", ".yml"):
        found = read_yaml(path)
        if not isinstance(found, dict) or "name" not in found:
            raise DataError(f"{path}: a mapping with 'name' and parameters is needed")
        try:
            return make_diffusion(str(found.pop("name")), found)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
    if path.suffix == ".py":
        return load_user_diffusion(path)
    return make_diffusion(reference)
