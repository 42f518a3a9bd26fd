"""Solvers that `gddim tune` has fitted to a network: linear multistep methods with one evaluation per step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec

from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import SamplerSpec
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion

AUTO = "auto"

Solver = Annotated[
    str,
    about(
        "Solver fitted to the network: a file written by gddim tune, or auto. With auto, gddim looks for a solver for this "
        "checkpoint, diffusion and NFE in the cache, then among those that ship with gddim. Implies --sampler tuned. "
        "Default with --sampler tuned: auto.",
        metavar="FILE|auto",
        label="solver {}",
        complete=lambda: [AUTO],
        min_length=1,
    ),
]


class TunedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `tuned`. In a resolved `SamplingRequest`, `solver` is the sha256 of the solver file's content."""

    solver: Solver = AUTO


def prepare(diffusion: Diffusion, *_: object) -> NoReturn:
    """Always raises UsageError: a fitted solver belongs to a network, and only `runs.prepare` knows the network."""
    raise UsageError(
        f"--sampler tuned: needs the network that its solver was fitted to, not only a diffusion ({diffusion.name})"
    )


SPEC = SamplerSpec(
    "tuned",
    "tuned",
    prepare,
    order="none: fitted to one network and NFE",
    source="gddim tune",
    options=TunedOptions,
    uses_time_grid=False,
    label=lambda spec, *_: spec.title,
)
