"""The registry of samplers by name, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.errors import UsageError
from gddim_cli.runtime.registry import Registry
from gddim_cli.runtime.user_file import spec_of
from gddim_cli.samplers import (
    ancestral,
    ddim,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    edm,
    em,
    gddim,
    heun,
    ipndm,
    rk45,
    sscs,
    tuned,
    unipc,
)
from gddim_cli.samplers.base import SamplerSpec
from gddim_cli.settings import Setting, build, declared

MODULES = (
    gddim, em, heun, rk45, sscs, ddim, ancestral, edm, dpm_solver_2m, dpm_solver_3m, unipc, deis, ipndm, tuned,
)  # fmt: skip
SAMPLERS = Registry("sampler", SamplerSpec, [module.SPEC for module in MODULES])


def sampler_options() -> dict[str, Setting]:
    """The options of all samplers by key. Samplers that share an option share its declaration."""
    return {key: setting for spec in SAMPLERS.values() for key, setting in declared(spec.options).items()}


def find_sampler(reference: str, where: str = "--sampler") -> SamplerSpec:
    """The sampler with this name, or the one that a Python file defines.

    Args:
        reference: a name, or the path of a Python file.
        where: the option or key that gave the name, for messages.

    Raises:
        UsageError: the name is unknown.
        DataError: the file does not define exactly one sampler.
    """
    if reference.endswith(".py"):
        return spec_of(Path(reference), SAMPLERS)
    return SAMPLERS.find(reference, where)


def having(key: str) -> list[str]:
    """The names of the samplers that have the option `key`."""
    return [spec.name for spec in SAMPLERS.values() if key in declared(spec.options)]


def options_of(name: str, given: Mapping[str, Any], where: Mapping[str, str] | None = None) -> msgspec.Struct:
    """The options struct of a sampler, built from values by key. A value of None means that the option was not given.

    Args:
        where: maps the key of an option to the flag or configuration key that gave its value, for messages. Default:
            the flag of the option.

    Raises:
        UsageError: the sampler is unknown or does not support an option, or a value is outside its range.
    """
    spec = find_sampler(name, (where or {}).get("sampler", "--sampler"))
    known = declared(spec.options)
    places = {key: (where or {}).get(key, f"--{key.replace('_', '-')}") for key in given}
    for key, value in given.items():
        others = having(key)
        # A flag that is switched off has no effect, so it is accepted for every sampler.
        if key not in known and others and value is not None and value is not False:
            raise UsageError(f"{places[key]}: unsupported by {name}; an option of {', '.join(others)}")
    kept = {key: value for key, value in given.items() if key in known or not having(key)}
    return build(spec.options, kept, name, lambda key: places[key])
