"""Common mistakes in the conventions of a network, each with its correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from gddim_cli.models.conventions.base import Convention, Scaling
from gddim_cli.models.conventions.registry import CONVENTIONS
from gddim_cli.models.conventions.schedules import LinearSchedule
from gddim_cli.models.conventions.vp import alpha
from gddim_cli.models.isotropic import IsotropicDenoiser
from gddim_cli.models.network import Network
from gddim_cli.verification.denoising import OwnDiffusionReading, Reading

Change = Callable[[Scaling, Tensor], Scaling]
"""A function that maps a convention's `Scaling` at noise levels sigma, and sigma, to a changed `Scaling`."""


@dataclass(frozen=True)
class Correction:
    """A model in which one convention is replaced by another.

    Attributes:
        kind: the convention that differs: `sign`, `data range`, `scale`, `time` or `parameterization`.
        message: a clause that says what is wrong with the model if this correction is right.
        reading: the corrected model.
    """

    kind: str
    message: str
    reading: Reading


class Changed(Convention, frozen=True):
    """A convention whose scaling is evaluated at `factor` times the noise levels, and then changed by `change`."""

    base: Convention
    change: Change = lambda scaling, _: scaling
    factor: float = 1.0

    def scaling(self, sigma: Tensor) -> Scaling:
        return self.change(self.base.scaling(self.factor * sigma), sigma)


def edm_output(s: Tensor) -> tuple[Tensor, Tensor]:
    """EDM's `c_skip` and `c_out` for `sigma_data = 0.5`."""
    return 0.25 / (s**2 + 0.25), 0.5 * s / (s**2 + 0.25).sqrt()


OUTPUTS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "the noise": lambda s: (s**0, -s),
    "minus the noise": lambda s: (s**0, s),
    "the score": lambda s: (s**0, s**2),
    "the clean image": lambda s: (0 * s, s**0),
    "v": lambda s: (alpha(s) ** 2, -s * alpha(s)),
    "EDM's preconditioned F": edm_output,
    "the velocity of a flow": lambda s: (1 / (1 + s), s / (1 + s)),
}
"""The quantities that a network may predict, with their `skip` and `out` (see `Scaling`) at noise levels s."""

INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "y": lambda s: s**0,
    "y / sqrt(1 + sigma^2)": alpha,
    "y / sqrt(0.25 + sigma^2)": lambda s: (s**2 + 0.25).rsqrt(),
    "y / (1 + sigma)": lambda s: 1 / (1 + s),
}
"""The inputs that a network may expect. Each is y times a factor, given here as a function of the noise levels s."""

VP_TIME = LinearSchedule(time_scale=1.0)
LEVELS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma": lambda s: s,
    "ln(sigma)": lambda s: s.log(),
    "ln(sigma)/4": lambda s: s.log() / 4,
    "ln(sigma/2)": lambda s: (s / 2).log(),
    "the time t in [0, 1] of a linear VP schedule": VP_TIME.time,
    "999 t, t the time of a linear VP schedule": lambda s: 999 * VP_TIME.time(s),
    "the time 1/(1 + sigma) of a flow": lambda s: 1 / (1 + s),
}
"""The times or noise levels that a network may expect, as functions of the noise levels s."""

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))


FACTORS = ((1000.0, "1000 times"), (1e-3, "1/1000 of"), (2.0, "twice"), (0.5, "half"))


def corrections(reading: Reading) -> Iterator[Correction]:
    """Models in which one convention is replaced by another that is often confused with it, the likeliest first."""
    if isinstance(reading, OwnDiffusionReading):
        yield from corrections_in_own_diffusion(reading)
    elif isinstance(reading, IsotropicDenoiser):
        yield from corrections_of_denoiser(reading)


def corrections_of_denoiser(denoiser: IsotropicDenoiser) -> Iterator[Correction]:
    """Corrections of the sign, data range, scale, time, output and parameterization of an isotropic denoiser."""

    def changed(kind: str, message: str, change: Change, factor: float = 1.0) -> Correction:
        convention = Changed(denoiser.convention, change, factor)
        return Correction(kind, message, dataclasses.replace(denoiser, convention=convention))

    yield changed("sign", "the sign of the network's output looks wrong", lambda c, _: c._replace(out=-c.out))
    yield changed(
        "sign",
        "the sign of the predicted noise looks wrong",
        lambda c, _: Scaling(2 - c.skip, -c.out, c.inside, c.level),
    )
    for low, high in RANGES:
        if (low, high) != denoiser.data_range:
            message = f"the range of the images looks wrong: the network expects [{low:g}, {high:g}]"
            yield Correction("data range", message, dataclasses.replace(denoiser, data_range=(low, high)))
    for factor, words in FACTORS[2:]:
        message = f"the scale of sigma looks wrong: the network expects {words} the value"
        yield changed("scale", message, lambda c, _: c, factor)
    for factor, words in FACTORS:
        yield changed("time", given(f"{words} the value"), partial(scaled_level, factor))
    for name, output in OUTPUTS.items():
        message = f"the parameterization looks wrong: the network's output is {name}"
        yield changed("parameterization", message, partial(other_output, output))
    for name, level in LEVELS.items():
        yield changed("time", given(name), partial(other_level, level))
    for name, inside in INPUTS.items():
        message = f"the scale of the network's input looks wrong: the network expects {name}"
        yield changed("scale", message, partial(other_input, inside))
    for name, spec in CONVENTIONS.items():
        message = f"the parameterization looks wrong: the network is of the kind {name}"
        yield Correction("parameterization", message, dataclasses.replace(denoiser, convention=spec.parameters()))


def corrections_in_own_diffusion(reading: OwnDiffusionReading) -> Iterator[Correction]:
    """Corrections of the sign, the time and K of a noise prediction."""

    def changed(kind: str, message: str, network: Network) -> Correction:
        return Correction(kind, message, reading.with_network(network))

    network = reading.model.network
    yield changed("sign", "the sign of the network's output looks wrong", lambda u, t: -network(u, t))
    for factor, words in FACTORS:
        yield changed("time", given(f"{words} the value"), lambda u, t, by=factor: network(u, by * t))  # type: ignore[misc]
    if reading.k == "R":
        message = "the parameterization looks wrong: the noise is predicted for K = L"
        yield Correction("parameterization", message, dataclasses.replace(reading, k="L"))


def given(expected: str) -> str:
    """The message about a wrong time or noise level."""
    return f"the time or noise level given to the network looks wrong: the network expects {expected}"


def scaled_level(factor: float, scaling: Scaling, _: Tensor) -> Scaling:
    return scaling._replace(level=factor * scaling.level)


def other_level(level: Callable[[Tensor], Tensor], scaling: Scaling, sigma: Tensor) -> Scaling:
    return scaling._replace(level=level(sigma))


def other_input(inside: Callable[[Tensor], Tensor], scaling: Scaling, sigma: Tensor) -> Scaling:
    return scaling._replace(inside=inside(sigma))


def other_output(output: Callable[[Tensor], tuple[Tensor, Tensor]], scaling: Scaling, sigma: Tensor) -> Scaling:
    skip, out = output(sigma)
    return scaling._replace(skip=skip, out=out)
