"""The interface of samplers: `SamplerSpec` describes a sampler, and `PreparedSampler` is ready to run."""

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
"""The noise prediction `eps(u, t)`: maps states [B, D, ...] and a time to a tensor of the states' shape."""
Draw: TypeAlias = "Callable[[int], Tensor]"
"""Maps k to the k-th independent draw from N(0, I), in the shape of the states."""
Step: TypeAlias = "tuple[float, Tensor]"
"""A time and the state at that time. After the denoising step, the time is 0."""
Solve: TypeAlias = "Callable[[Eps, Tensor, Draw], Iterator[Step]]"
"""Takes eps, the states u_T and a `Draw`; yields a `Step` after each step. The last `Step` holds the result."""


class NoOptions(msgspec.Struct, frozen=True):
    """The empty options struct, for samplers that have no options."""


@dataclass(frozen=True)
class PreparedSampler:
    """A sampler prepared for one diffusion, time grid and budget.

    Attributes:
        nfe: network evaluations per image, which may be one fewer than requested. None for an adaptive sampler.
        steps: the number of `Step`s that `solve` yields, including the denoising step. Estimated for an adaptive
            sampler.
        solve: runs the sampler.
        options: the sampler's options, with every default filled in.
        coefficients: the coefficients of a linear multistep sampler; None for other samplers.
        batch_dependent: whether the images of a batch depend on each other.
        tolerance: the relative tolerance. None for a sampler that is not adaptive, or not calibrated yet.
        calibrate_tolerance: takes eps and a few states u_T; returns the sampler with a tolerance that leads to about
            the requested number of evaluations. None if no tolerance has to be calibrated.
        with_tolerance: takes a tolerance that was calibrated earlier; returns the sampler with this tolerance. None if
            no tolerance has to be calibrated.
        expected: the estimated network evaluations per image, and the estimated evaluations per state during
            calibration. None if no tolerance has to be calibrated.
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
        hidden: the key of an option that the label omits, because the table shows its values as columns; or None.
    """
    parts = [spec.title]
    for key, setting in declared(type(options)).items():
        value = getattr(options, setting.name)
        if key != hidden and value is not None and value != setting.default:
            parts.append(setting.labelled(value))
    return parts[0] + (f" {', '.join(parts[1:])}" if parts[1:] else "")


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(Spec):
    """Describes one sampler. The spec is declared in the module that implements the sampler.

    Attributes:
        title: the sampler's name in tables.
        prepare: takes a diffusion, its sampling configuration, the budget (network evaluations, not counting the
            denoising step) and the options; returns a `PreparedSampler`. Raises UsageError for an unsupported
            diffusion, options that exclude each other, or a budget that is too small for one step.
        order: global order of convergence, in words.
        evaluations: network evaluations per step, in words.
        stochastic: True, False, or the key of the option that scales the noise. If this option is 0, the
            sampler is deterministic.
        supports: the supported diffusions, in words.
        source: the source of the method.
        options: the struct that declares the sampler's options (see `gddim_cli.settings`).
        uses_k: whether the choice of K changes the images. Otherwise K only changes how the score is expressed.
        uses_time_grid: whether the sampler steps along the time grid.
        defaults: takes the diffusion, the sampling configuration, the total number of evaluations and the options;
            returns the fields of the configuration that the sampler sets, by name. Settings of the user take
            precedence.
        label: takes the spec, the options, and `hidden` as in `title_and_options`; returns the label in tables.
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
        """Whether the sampler is deterministic or stochastic, in words, and which option decides this."""
        if isinstance(self.stochastic, bool):
            return "stochastic" if self.stochastic else "deterministic"
        setting = declared(self.options)[self.stochastic]
        if setting.default:
            return f"stochastic; deterministic with {setting.flag} 0"
        return f"deterministic; stochastic with {setting.flag} above 0"

    def is_deterministic(self, options: Any) -> bool:
        """Whether the sampler adds no noise with these options. A sampler without noise solves the probability flow."""
        if isinstance(self.stochastic, bool):
            return not self.stochastic
        return not getattr(options, declared(self.options)[self.stochastic].name)


def time_grid(diffusion: Diffusion, config: SamplingConfig, budget: int, steps: int) -> Array:
    """The time grid with `steps` steps, [steps + 1], decreasing, float64.

    Args:
        budget: network evaluations, not counting the denoising step; used only in the error message.

    Raises:
        UsageError: the budget is too small for one step, or t_end is not below t_start.
    """
    from gddim_cli.samplers.time_grids import grid_times

    if steps < 1:
        besides = "the denoising step takes one, and " if config.denoise else ""
        raise UsageError(
            f"--nfe: {budget + config.denoise} is too few: {besides}{budget} evaluations are not enough for one step; "
            "give a larger --nfe"
        )
    return grid_times(diffusion, config.t_start, config.t_end, steps, config.grid_power)


def multistep_sampler(coefficients: Coefficients, options: msgspec.Struct) -> PreparedSampler:
    """A sampler that runs the multistep loop with these coefficients."""

    def solve(eps: Eps, u: Tensor, draw: Draw) -> Iterator[Step]:
        from gddim_cli.samplers.multistep import multistep

        return multistep(eps, u, coefficients, draw)

    return PreparedSampler(coefficients.nfe, coefficients.nfe, solve, options, coefficients)
