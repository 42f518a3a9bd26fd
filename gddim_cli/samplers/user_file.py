"""Samplers from users' files and from plugins: errors in them are reported in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from numbers import Real
from types import NoneType
from typing import Any

import msgspec
from torch import Tensor

from gddim_cli.errors import DataError, GddimError, UsageError
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.runtime.registry import origin
from gddim_cli.runtime.tensors import is_real, unlike_dense
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.user_file import guarded
from gddim_cli.samplers.base import Draw, Eps, PreparedSampler, SamplerSpec, Solve, Step

NUMBERS: dict[str, tuple[type, ...]] = {
    "nfe": (int, NoneType),
    "steps": (int,),
    "tolerance": (int, float, NoneType),
    "batch_dependent": (bool,),
}
"""The types of a `PreparedSampler`'s numbers."""


def checked(spec: SamplerSpec, prepare: Callable[[], Any]) -> PreparedSampler:
    """The sampler that `prepare` returns. If `spec` comes from a user's file or a plugin, errors name this origin.

    Raises:
        UsageError: as in the spec's `prepare`.
        DataError: `prepare` raised another error, or did not return a `PreparedSampler` whose values can be recorded.
    """
    source = origin(spec)

    def passes(error: BaseException) -> bool:
        return isinstance(error, UsageError) or is_out_of_memory(error)

    sampler = guarded(source, "prepare", prepare, passes) if source else prepare()
    if not isinstance(sampler, PreparedSampler):
        raise DataError(f"sampler {spec.name}: prepare returned {type(sampler).__name__}; a PreparedSampler is needed")
    for name, kinds in NUMBERS.items():
        if not isinstance(value := getattr(sampler, name), kinds):
            raise DataError(f"sampler {spec.name}: prepare returned a PreparedSampler with {name} = {value!r:.80}")
    try:
        msgspec.json.encode(sampler.options)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"sampler {spec.name}: its options cannot be recorded as JSON: {printable(error)}") from error
    return replace(sampler, solve=guarded_solve(source, sampler.solve)) if source else sampler


def guarded_solve(source: str, solve: Solve) -> Solve:
    """The function `solve` of a sampler from a user's file or a plugin; errors that it raises name this origin."""

    def passes(error: BaseException) -> bool:  # The noise prediction, which `solve` calls, raises gddim's own errors.
        return isinstance(error, GddimError) or is_out_of_memory(error)

    def guarded_steps(steps: Iterator[Step]) -> Iterator[Step]:
        while (step := guarded(source, "solve", lambda: next(steps, None), passes)) is not None:
            yield step

    def guarded_call(eps: Eps, u: Tensor, draw: Draw) -> Any:
        def checked_eps(states: Tensor, t: float) -> Tensor:
            if unlike_dense(states) or not is_real(states):
                raise DataError(f"{source}: solve called eps with something other than a dense floating-point tensor")
            if not isinstance(t, Real) and not (isinstance(t, Tensor) and is_real(t)):
                raise DataError(f"{source}: solve called eps with the time {t!r:.80}, which is not a real number")
            return eps(states, t)

        steps: Any = guarded(source, "solve", lambda: solve(checked_eps, u, draw), passes)
        return guarded_steps(iter(steps)) if isinstance(steps, Iterable) else steps

    return guarded_call
