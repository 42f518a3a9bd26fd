"""A user's own sampler, from a Python file that defines a `SamplerSpec`."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.registry import Registry
from gddim_cli.runtime.user_file import execute
from gddim_cli.samplers.base import SamplerSpec

LOADED: dict[str, SamplerSpec] = {}
"""Specs by the sha256 of their file."""


def load_user_sampler(path: Path, registry: Registry[SamplerSpec]) -> SamplerSpec:
    """The sampler of a Python file, which is also registered under its name. The file is executed once.

    Raises:
        DataError: the file is missing, raises an error, or does not define exactly one `SamplerSpec`.
        UsageError: another sampler has its name.
    """
    digest = sha256(path) if path.is_file() else ""
    if digest not in LOADED:
        specs = {id(value): value for value in vars(execute(path)).values() if isinstance(value, SamplerSpec)}
        if len(specs) != 1:
            raise DataError(f"{path}: defines {len(specs)} samplers; exactly one SamplerSpec is needed")
        (spec,) = specs.values()
        registry.add(spec)
        LOADED[digest] = spec
    return LOADED[digest]
