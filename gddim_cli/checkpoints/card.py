"""A checkpoint's card: everything about a model that its tensors do not say."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import msgspec

from gddim_cli.diffusions import make_diffusion
from gddim_cli.diffusions.base import Defaults, Diffusion, KChoice
from gddim_cli.errors import CheckpointError, UsageError


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the images a model makes."""

    channels: int
    size: int


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model is sampled unless the person says otherwise; what is absent is the diffusion's default."""

    t_start: float | None = None
    t_end: float | None = None
    grid_power: float | None = None
    denoise: bool | None = None
    k: KChoice | None = None
    quantize: Literal["floor", "round"] | None = None

    def defaults(self, diffusion: Diffusion) -> Defaults:
        """These values, and the diffusion's own where there is none."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return dataclasses.replace(diffusion.defaults, **own)


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One checkpoint.

    Attributes:
        name: what `--checkpoint` calls it.
        title: one line on what it is.
        parameterization: what the network predicts; `denoiser` is `E[x_0 | x_0 + N(0, sigma^2)]`.
        network: its kind (`kind`) and its arguments.
        diffusion: its name (`name`) and parameters.
        sha256: of the weights file, where it is pinned.
        training: data, steps, time, machine: how it came about.
        license: of weights and data.
    """

    name: str
    title: str
    images: Images
    network: dict[str, Any]
    parameterization: Literal["denoiser"]
    diffusion: dict[str, Any]
    sampling: Sampling = Sampling()
    sha256: str | None = None
    training: dict[str, Any] = {}
    license: dict[str, str] = {}
    cite: list[str] = []

    def make_diffusion(self) -> Diffusion:
        """The diffusion that the card names.

        Raises:
            CheckpointError: the card names none that there is.
        """
        parameters = dict(self.diffusion)
        try:
            return make_diffusion(str(parameters.pop("name", "")), parameters)
        except UsageError as error:
            raise CheckpointError(f"card of {self.name}: {error}") from error
