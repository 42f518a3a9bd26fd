"""EDM's four preconditionings (Karras et al., arXiv 2206.00364, Table 1), and the card fields that follow from each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from gddim_cli.errors import CheckpointError
from gddim_cli.models.conventions.schedules import DiscreteSchedule, LinearSchedule, Positive, Steps
from gddim_cli.models.networks.ranges import Channels, Classes, Scale, Side
from gddim_cli.runtime.typed_yaml import typed

SAMPLED = (0.002, 80.0)
"""The range of noise levels in EDM's sampler. It is used for `EDMPrecond`, which itself sets no limits."""
MOST_EXPONENT = 40.0
"""The largest accepted value of `int_0^1 beta`; it corresponds to a noise level of 5e8."""


class Preconditioning(msgspec.Struct, frozen=True):
    """The attributes that all preconditionings have. Subclasses add more; a file's other attributes are ignored."""

    img_channels: Channels
    img_resolution: Side
    label_dim: Classes = 0

    def card_fields(self) -> dict[str, Any]:
        """The fields of the card that describe what the network predicts."""
        raise NotImplementedError


class EDMPrecond(Preconditioning, frozen=True):
    """EDM's own preconditioning: `D = c_skip y + c_out F`."""

    sigma_data: Scale = 0.5

    def card_fields(self) -> dict[str, Any]:
        low, high = SAMPLED
        return {
            "parameterization": "edm",
            "convention": {"sigma_data": self.sigma_data},
            "noise_range": SAMPLED,
            "diffusion": {"name": "ve", "sigma_min": low, "sigma_max": high},
        }


class VPPrecond(Preconditioning, frozen=True):
    """The preconditioning of Score-SDE's VP: `D = y - sigma eps`."""

    beta_min: Positive = 0.1
    beta_d: Positive = 19.9
    M: Steps = 1000
    epsilon_t: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-5

    def __post_init__(self) -> None:
        if self.beta_min + self.beta_d / 2 > MOST_EXPONENT:
            raise ValueError(f"beta_min {self.beta_min:g} and beta_d {self.beta_d:g} are too large")

    def card_fields(self) -> dict[str, Any]:
        schedule = LinearSchedule(self.beta_min, self.beta_d, float(self.M - 1), self.epsilon_t)
        return {
            "parameterization": "vp_eps",
            "convention": {"schedule": msgspec.to_builtins(schedule)},
            "noise_range": schedule.sigma_range,
            "diffusion": {"name": "vp", "beta_0": schedule.beta_0, "beta_1": schedule.beta_1},
        }


class VEPrecond(Preconditioning, frozen=True):
    """The preconditioning of Score-SDE's VE: `D = y + sigma F`."""

    sigma_min: Positive = 0.02
    sigma_max: Positive = 100.0

    def __post_init__(self) -> None:
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}")

    def card_fields(self) -> dict[str, Any]:
        return {
            "parameterization": "ve_residual",
            "noise_range": (self.sigma_min, self.sigma_max),
            "diffusion": {"name": "ve", "sigma_min": self.sigma_min, "sigma_max": self.sigma_max},
        }


class IDDPMPrecond(Preconditioning, frozen=True):
    """The preconditioning of improved DDPM: `D = y - sigma eps`, with the nearest of the M steps as the time."""

    M: Steps = 1000

    def card_fields(self) -> dict[str, Any]:
        schedule = DiscreteSchedule("cosine", steps=self.M, nearest=True)
        return {
            "parameterization": "vp_eps",
            "convention": {"schedule": msgspec.to_builtins(schedule)},
            "noise_range": schedule.sigma_range,
            "diffusion": {"name": "vp-cosine"},
        }


PRECONDITIONINGS: dict[str, type[Preconditioning]] = {
    "EDMPrecond": EDMPrecond,
    "VPPrecond": VPPrecond,
    "VEPrecond": VEPrecond,
    "iDDPMPrecond": IDDPMPrecond,
}


def preconditioning_of(name: str, attributes: dict[str, Any], path: Path) -> Preconditioning:
    """The preconditioning of the class `name` with these attributes.

    Raises:
        CheckpointError: an attribute is missing, of the wrong type, or outside its range.
    """
    return typed(attributes, PRECONDITIONINGS[name], f"{path}: its {name}", CheckpointError)
