"""A checkpoint that is ready to sample: the network with its card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from gddim_cli.checkpoints.card import Card, NoiseLevel
from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import CheckpointError, UsageError, nearest
from gddim_cli.models.conventions.base import Convention
from gddim_cli.models.conventions.direct import Direct
from gddim_cli.models.conventions.registry import CONVENTIONS
from gddim_cli.models.conventions.schedules import LinearSchedule
from gddim_cli.models.conventions.vp import Noise
from gddim_cli.models.denoiser import DenoiserEps, denoise
from gddim_cli.models.isotropic import IsotropicDenoiser, check_labels, check_levels
from gddim_cli.models.network import Counted
from gddim_cli.models.networks.base import Interface
from gddim_cli.models.networks.registry import NETWORKS
from gddim_cli.models.networks.skip_init import SkipInit
from gddim_cli.models.parameterization import MixedScoreEps, NoiseEps
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.typed_yaml import typed
from gddim_cli.samplers.base import Eps

OWN_DIFFUSION: dict[str, type[NoiseEps | MixedScoreEps]] = {"eps": NoiseEps, "mixed_score": MixedScoreEps}
"""Parameterizations defined only in the card's own diffusion, each with the adapter that returns a noise prediction."""


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run.

    Attributes:
        card: the model's card.
        network: the network, which counts its evaluations.
        path: the weights file.
        sha256: SHA-256 of the weights file.
    """

    card: Card
    network: Counted
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """The name in the card."""
        return self.card.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's images."""
        return self.card.images.channels, self.card.images.size, self.card.images.size

    @cached_property
    def diffusion(self) -> Diffusion:
        """The card's diffusion, in which the model is sampled by default."""
        return self.card.make_diffusion()

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The card's sampling configuration in `diffusion`."""
        return self.card.sampling.config(diffusion)

    @cached_property
    def denoiser(self) -> IsotropicDenoiser | None:
        """The model as `D(y, sigma, labels)`; None if its prediction cannot be converted to an isotropic denoiser."""
        convention = convention_of(self.card)
        if convention is None:
            return None
        low, high = noise_range(self.card, convention)
        return IsotropicDenoiser(self.network, convention, low, high, self.card.labels, self.card.data_range)

    @property
    def classes(self) -> int:
        """Number of class labels; 0 if the model takes none."""
        return self.card.labels

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The range of noise levels that the network supports, as standard deviations for images in [-1, 1].

        For a model that is not an isotropic denoiser, the range is 0 to infinity.
        """
        return (self.denoiser.sigma_min, self.denoiser.sigma_max) if self.denoiser else (0.0, math.inf)

    def sigma_range_in(self, diffusion: Diffusion) -> tuple[float, float] | None:
        """The noise levels allowed in `diffusion`; None (no limits) if the network predicts that diffusion's noise."""
        own = self.card.parameterization in OWN_DIFFUSION and diffusion == self.diffusion
        return None if own else self.sigma_range

    @property
    def sigma_min(self) -> float:
        """The lowest noise level that the network supports."""
        return self.sigma_range[0]

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the network supports."""
        return self.sigma_range[1]

    @torch.inference_mode()
    def __call__(self, y: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """The denoised images `D(y, sigma, labels)`, [N, C, H, W].

        Args:
            y: images in [-1, 1] plus noise, [N, C, H, W].
            sigma: the standard deviation of the noise, a number or [N].
            labels: class indices, [N], integers; None for no class, which few conditional networks are trained for.

        Raises:
            UsageError: the model is not an isotropic denoiser, or an argument has the wrong shape or is outside its range.
        """
        denoiser = self.denoiser
        if denoiser is None:
            raise UsageError(f"{self.name} predicts '{self.card.parameterization}' and is not an isotropic denoiser")
        check_levels(denoiser, torch.as_tensor(sigma, device=y.device).reshape(-1), self.name)
        check_labels(denoiser, labels, len(y), self.name)
        return denoise(denoiser.labelled(labels), y, sigma, self.image_shape)

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None) -> Eps:
        """The noise prediction of this model in `diffusion`, for K = `k`.

        Args:
            labels: the class of each image in a batch, [N]; None for no class.

        Raises:
            UsageError: the model cannot be sampled in that diffusion or with that K.
        """
        kind = self.card.parameterization
        if kind in OWN_DIFFUSION and diffusion == self.diffusion:
            return OWN_DIFFUSION[kind](self.network, diffusion, k, self.card.time_scale)
        if self.denoiser is None:
            raise UsageError(
                f"{self.name} predicts the noise of its own {self.diffusion.name} diffusion and of no other diffusion; "
                "leave --diffusion out, or sample a model that is a denoiser"
            )
        plain = isinstance(self.denoiser.convention, Direct) and not self.classes
        return DenoiserEps(self.network if plain else self.denoiser.labelled(labels), diffusion, k)


def convention_of(card: Card) -> Convention | None:
    """The convention that turns the card's prediction into an isotropic denoiser; None if this is impossible.

    Raises:
        CheckpointError: the parameterization is unknown, or does not have the parameters in `card.convention`.
    """
    if card.parameterization in OWN_DIFFUSION:
        diffusion = card.make_diffusion()
        if card.parameterization != "eps" or not isinstance(diffusion, VP):
            return None
        return Noise(LinearSchedule(diffusion.beta_0, diffusion.beta_1, card.time_scale))
    where = f"card of {printable(card.name)}"
    if card.parameterization not in CONVENTIONS:
        hint = nearest(card.parameterization, [*OWN_DIFFUSION, *CONVENTIONS])
        raise CheckpointError(f"{where}: there is no parameterization '{printable(card.parameterization)}'; {hint}")
    return typed(
        card.convention, CONVENTIONS[card.parameterization].parameters, f"{where}: convention", CheckpointError
    )


def noise_range(card: Card, convention: Convention) -> tuple[float, float]:
    """The lowest and highest noise level that the network supports.

    They come from the card's `noise_range`; if that is None, from the card's training recipe; without a recipe, from
    the convention.
    """
    if card.noise_range is not None:
        return card.noise_range
    try:
        trained = msgspec.convert(card.training, TrainedRange).recipe.sigma
    except msgspec.ValidationError:
        return convention.sigma_range
    return trained.min, trained.max


class Levels(msgspec.Struct):
    """The lowest and highest noise level of a training recipe."""

    min: NoiseLevel
    max: NoiseLevel

    def __post_init__(self) -> None:
        if not self.min < self.max:
            raise ValueError("min is not below max")


class Recipe(msgspec.Struct):
    """The part of a training recipe that gives the noise levels."""

    sigma: Levels


class TrainedRange(msgspec.Struct):
    """The part of a card's `training` that gives the noise levels."""

    recipe: Recipe


def build(card: Card, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The card's network with these weights, in evaluation mode and without gradients.

    `tensors` must have the names and shapes of the network's state dict and hold floating-point numbers.

    Raises:
        CheckpointError: a tensor does not fit, or the card does not describe a valid network.
    """
    module = empty_network(card, path)
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointError(f"{path}: tensor {name} is missing; the network of the card needs it")
        if name not in expected:
            raise CheckpointError(
                f"{path}: unexpected tensor {printable(name)}; the network of the card has no such tensor"
            )
        if expected[name].shape != tensors[name].shape:
            shapes = list(tensors[name].shape), list(expected[name].shape)
            raise CheckpointError(f"{path}: tensor {name} is {shapes[0]}; the network of the card needs {shapes[1]}")
        if not tensors[name].is_floating_point():
            raise CheckpointError(f"{path}: tensor {name} is {tensors[name].dtype}; floating-point numbers are needed")
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)


def empty_network(card: Card, path: Path) -> nn.Module:
    """The card's network with uninitialized weights.

    Raises:
        CheckpointError: the card does not describe a valid network, or the network does not match the card's images or
            parameterization.
    """
    given = dict(card.network)
    kind = str(given.pop("kind", ""))
    if kind not in NETWORKS:
        raise CheckpointError(
            f"{path}: its card names an unknown network '{printable(kind)}'; {nearest(kind, NETWORKS)}"
        )
    spec = NETWORKS[kind]
    arguments = typed(given, spec.arguments, f"{path}: network of the card", CheckpointError)
    check_interface(card, kind, spec.interface(arguments), path)
    try:
        with SkipInit():
            return spec.build(**msgspec.structs.asdict(arguments))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its card does not describe a {kind}: {error}") from error


def check_interface(card: Card, kind: str, interface: Interface, path: Path) -> None:
    """Refuses a network whose input or output does not match the card.

    Raises:
        CheckpointError: the card and the network's interface contradict each other; the message gives both.
    """
    if (kind == "denoiser") != (card.parameterization == "denoiser"):
        raise CheckpointError(
            f"{path}: its card combines the network '{kind}' with the parameterization "
            f"'{printable(card.parameterization)}'; both must be 'denoiser', or neither"
        )
    convention_of(card)
    channels, own = card.images.channels, card.parameterization in OWN_DIFFUSION
    diffusion = card.make_diffusion()
    dimension = diffusion.D if own else 1
    if card.parameterization == "mixed_score" and dimension != 2:
        raise CheckpointError(f"{path}: its card says mixed_score, which requires a diffusion with a velocity")
    out = channels * dimension if card.parameterization == "eps" else channels
    # A network with 2 * out channels also predicts a variance, in the second half of the channels.
    outs = (out,) if own or kind == "denoiser" else (out, 2 * out)
    found = (interface.in_channels, interface.image_size, interface.classes)
    if found != (channels * dimension, card.images.size, card.labels) or interface.out_channels not in outs:
        expected = Interface(channels * dimension, out, card.images.size, card.labels)
        raise CheckpointError(
            f"{path}: its card requires {describe(expected)}, but its network has {describe(interface)}"
        )


def describe(interface: Interface) -> str:
    """A description of an interface, for messages."""
    size, classes = interface.image_size, f" and {interface.classes} classes" if interface.classes else ""
    channels = f"{interface.in_channels} input and {interface.out_channels} output channels"
    return f"{channels} of {size}x{size} pixels{classes}"
