"""Linear diffusions as matrices, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError, nearest

__all__ = ["BDM", "CLD", "DIFFUSIONS", "PSLD", "VE", "VP", "Diffusion", "make_diffusion"]

DIFFUSIONS: dict[str, type[Diffusion]] = {kind.name: kind for kind in (CLD, VP, VE, BDM, PSLD)}


def make_diffusion(name: str, parameters: Mapping[str, Any] | None = None) -> Diffusion:
    """The diffusion called `name` with `parameters` in place of its defaults.

    Raises:
        UsageError: an unknown name or parameter (with the nearest known one).
    """
    if name not in DIFFUSIONS:
        raise UsageError(f"there is no diffusion '{name}'; {nearest(name, DIFFUSIONS)}")
    kind = DIFFUSIONS[name]
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in parameters or {}:
        if key not in known:
            raise UsageError(f"diffusion {name} has no parameter '{key}'; {nearest(key, known)}")
    return kind(**(parameters or {}))
