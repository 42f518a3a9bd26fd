"""The interface of samplers: a spec, declared beside the sampler's code, and a prepared sampler, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gddim_cli.errors import UsageError
from gddim_cli.runtime.registry import Spec
from gddim_cli.settings import declared

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.coefficients import Coefficients

Eps: TypeAlias = "Callable[[Tensor, float], Tensor]"
"""The noise prediction `eps(u, t)`: states [B, D, ...] and a time to a tensor of the same shape."""
Draw: TypeAlias = "Callable[[int], Tensor]"
"""The k-th independent draw of N(0, I) in the shape of the states."""
Step: TypeAlias = "tuple[float, Tensor]"
"""A time and the state there; after the denoising step the time is 0."""
Solve: TypeAlias = "Callable[[Eps, Tensor, Draw], Iterator[Step]]"
"""Maps eps, the states u_T and the noise draws to a `Step` after each step; the last one is the result."""


class NoOptions(msgspec.Struct, frozen=True):
    """The options of samplers without options."""


@dataclass(frozen=True)
class PreparedSampler:
    """A sampler prepared for one diffusion, time grid and budget.

    Attributes:
        nfe: network evaluations per image; it may be one below the budget. None for an adaptive sampler.
        steps: how many `Step`s `solve` yields, including the denoising step; an estimate for an adaptive sampler.
        solve: runs the sampler.
        options: the sampler's options, with every default filled in.
        coefficients: the constants, for linear multistep samplers.
        batch_dependent: whether the images of a batch depend on each other.
        tolerance: the relative tolerance of an adaptive sampler.
        calibrate_tolerance: maps eps and a few states u_T to the sampler with the tolerance that spends the budget; or None.
        with_tolerance: returns the sampler with a tolerance that was calibrated earlier; or None.
        expected: an estimate of `nfe` where it is None, and of the evaluations of one state in the calibration; or None.
    """

    nfe: int | None
    steps: int
    solve: Solve
    options: msgspec.Struct
    coefficients: Coefficients | None = None
    batch_dependent: bool = False
    tolerance: float | None = None
    calibrate_tolerance: Callable[[Eps, Tensor], PreparedSampler] | None = None
    with_tolerance: Callable[[float], PreparedSampler] | None = None
    expected: tuple[int, int] | None = None


def title_and_options(spec: SamplerSpec, options: msgspec.Struct, hidden: str | None) -> str:
    """The label of a sampler in tables: its title, and the options that differ from their defaults.

    Args:
        hidden: the key of an option that the table's columns show.
    """
    parts = [spec.title]
    for key, setting in declared(type(options)).items():
        value = getattr(options, setting.name)
        if key != hidden and value is not None and value != setting.default:
            parts.append(setting.labelled(value))
    return parts[0] + (f" {', '.join(parts[1:])}" if parts[1:] else "")


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(Spec):
    """One sampler.

    Attributes:
        title: its name in tables.
        prepare: maps a diffusion, its sampling configuration, the budget without the denoising step and the options to a
            `PreparedSampler`. Raises UsageError for a diffusion that it does not support, options that exclude each other, or a
            budget that leaves no step.
        order: global order of convergence, in words.
        evaluations: network evaluations per step, in words.
        stochastic: True, False, or the key of the option that scales the noise: deterministic if that option is 0.
        supports: the supported diffusions, in words.
        source: the source of the method.
        options: the struct that declares the sampler's options (see `gddim_cli.settings`).
        uses_k: whether the choice of K changes the images, and not only how the score is written.
        uses_time_grid: whether it steps along the time grid.
        defaults: returns fields of the sampling configuration that it sets unless the user does, given the diffusion, the
            configuration, the evaluations in all, and its options.
        label: its label in tables with these options; the last argument is the key of an option that the columns show.
    """

    title: str = field(kw_only=False)
    prepare: Callable[[Diffusion, SamplingConfig, int, Any], PreparedSampler] = field(kw_only=False)
    order: str
    evaluations: str = "1"
    stochastic: bool | str = False
    supports: str = "all"
    source: str
    options: type[msgspec.Struct] = NoOptions
    uses_k: bool = False
    uses_time_grid: bool = True
    defaults: Callable[[Diffusion, SamplingConfig, int, Any], dict[str, Any]] = lambda *_: {}
    label: Callable[[SamplerSpec, Any, str | None], str] = title_and_options

    @property
    def noise(self) -> str:
        """Deterministic or stochastic, and by which option, in words."""
        if isinstance(self.stochastic, bool):
            return "stochastic" if self.stochastic else "deterministic"
        setting = declared(self.options)[self.stochastic]
        if setting.default:
            return f"stochastic; deterministic with {setting.flag} 0"
        return f"deterministic; stochastic with {setting.flag} above 0"

    def is_deterministic(self, options: Any) -> bool:
        """Whether the sampler, with these options, solves the probability flow, which has an exact solution."""
        if isinstance(self.stochastic, bool):
            return not self.stochastic
        return not getattr(options, declared(self.options)[self.stochastic].name)


def time_grid(diffusion: Diffusion, config: SamplingConfig, budget: int, steps: int) -> Array:
    """The time grid of `steps` steps, [steps + 1], decreasing, float64.

    Args:
        budget: network evaluations excluding the denoising step, for the message.

    Raises:
        UsageError: the budget leaves no step, or t_end is not below t_start.
    """
    from gddim_cli.samplers.time_grids import grid_times

    if steps < 1:
        besides = "besides the denoising step, " if config.denoise else ""
        raise UsageError(
            f"--nfe: {budget + config.denoise} is too few: {besides}{budget} evaluations do not make a step; give a larger --nfe"
        )
    return grid_times(diffusion, config.t_start, config.t_end, steps, config.grid_power)


def multistep_sampler(coefficients: Coefficients, options: msgspec.Struct) -> PreparedSampler:
    """A sampler that runs the multistep loop on these coefficients."""

    def solve(eps: Eps, u: Tensor, draw: Draw) -> Iterator[Step]:
        from gddim_cli.samplers.multistep import multistep

        return multistep(eps, u, coefficients, draw)

    return PreparedSampler(coefficients.nfe, coefficients.nfe, solve, options, coefficients)
