"""Score-SDE's training states (Song et al., arXiv 2011.13456): VE, VP and subVP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from gddim_cli.checkpoints.formats import ncsnpp
from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.checkpoints.formats.torch_outline import ncsnpp_channels
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.checkpoints.card import Card

LIKE = {"vesde": "ve-cifar10", "vpsde": "vp-cifar10", "subvpsde": "subvp-cifar10"}
"""For each SDE, the catalogue name of a released model that was trained in it."""


class Options(ncsnpp.Options, frozen=True, kw_only=True):
    """Settings that the tensors do not determine, named as in Score-SDE's configurations."""

    sde: (
        Annotated[
            Literal["vesde", "vpsde", "subvpsde"],
            about("SDE used in training. Default: vesde if the embedding is Fourier, else vpsde."),
        ]
        | None
    ) = None
    sigma_max: (
        Annotated[
            float, about("Highest noise level of vesde, for images in [0, 1]. Default: from the file.", gt=0, le=1e6)
        ]
        | None
    ) = None
    beta_max: Annotated[float, about("beta at t = 1, for vpsde and subvpsde. Default: 20.", gt=0.1, le=1e3)] | None = (
        None
    )


def detect(path: Path) -> bool:
    """Whether the file is a training state whose network maps one image to one image."""
    channels = ncsnpp_channels(path)
    return channels is not None and channels[0] == channels[1]


def read(path: Path) -> Contents:
    """The averaged weights by name (`3.weight` and so on), and the lowest and highest of the file's noise levels."""
    from gddim_cli.checkpoints.formats import torch_pickle

    weights, levels = torch_pickle.training_state(path)
    return Contents(weights, {"sigmas": levels})


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The tensors of the file, and a card for them; see `ncsnpp.convert`.

    The card is that of the model released for the file's SDE. If the file may be a variant of this model, the card gets
    the variant's noise levels or betas.
    """
    like = conversion.like
    if like is None:
        like = conversion.find_card(LIKE[sde_of(contents, conversion)])
    if not conversion.exact:
        like = with_rates(like, contents, conversion.options)
    return ncsnpp.convert(contents, conversion, "torch", like)


def sde_of(contents: Contents, conversion: Conversion) -> str:
    """The SDE that the user names, else the SDE in which the released models with the same embedding were trained."""
    named: str | None = conversion.options.sde
    if named is not None:
        return named
    found = "vesde" if "0.W" in contents.tensors else "vpsde"
    conversion.say(f"sde={found} is assumed, because the tensors do not determine it; change it with --set sde=...")
    return found


def with_rates(card: Card, contents: Contents, options: Options) -> Card:
    """The card, with the noise levels or betas of its SDE taken from the file or the user."""
    diffusion: dict[str, Any] = dict(card.diffusion)
    if card.parameterization == "ve_score":
        low, high = contents.facts.get("sigmas") or (0.01, 50.0)
        # The file's levels are for images in [0, 1]. For images in [-1, 1], as in the card, they are twice as high.
        low, high = 2 * low, 2 * (options.sigma_max or high)
        return msgspec.structs.replace(
            card, noise_range=(low, high), diffusion={**diffusion, "sigma_min": low, "sigma_max": high}
        )
    if options.beta_max is None:
        return card
    rates = {"beta_0": 0.1, "beta_1": options.beta_max - 0.1}
    if card.parameterization == "eps":
        return msgspec.structs.replace(card, diffusion={**diffusion, **rates})
    schedule = {**card.convention.get("schedule", {"kind": "linear"}), **rates}
    return msgspec.structs.replace(card, convention={"schedule": schedule}, noise_range=None)


SPEC = FormatSpec("score-sde", "training state of Score-SDE's program (torch)", detect, read, convert, options=Options)
