"""A checkpoint by name or path, as a network with its card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from gddim_cli.checkpoints.card import Card
from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.errors import CheckpointError, UsageError, nearest
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.models.network import Counted
from gddim_cli.models.networks.base import Interface, keywords
from gddim_cli.models.networks.registry import NETWORKS
from gddim_cli.models.networks.skip_init import SkipInit
from gddim_cli.models.parameterization import MixedScoreEps, NoiseEps
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.typed_yaml import typed
from gddim_cli.samplers.base import Eps

ADAPTERS: dict[str, type[NoiseEps | MixedScoreEps]] = {"eps": NoiseEps, "mixed_score": MixedScoreEps}


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run.

    Attributes:
        card: what it is.
        network: counts its evaluations.
        path: of the weights.
        sha256: of the weights file.
    """

    card: Card
    network: Counted
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """What the card calls it."""
        return self.card.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.card.images.channels, self.card.images.size, self.card.images.size

    @cached_property
    def diffusion(self) -> Diffusion:
        """The card's diffusion, in which it is sampled by default."""
        return self.card.make_diffusion()

    @property
    def sigma_range(self) -> tuple[float, float] | None:
        """The noise levels that a denoiser was trained on, where the card says them."""
        levels = self.card.training.get("recipe", {}).get("sigma", {})
        return (levels["min"], levels["max"]) if {"min", "max"} <= levels.keys() else None

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """How the card says that it is sampled in `diffusion`."""
        return self.card.sampling.config(diffusion)

    def eps(self, diffusion: Diffusion, k: KChoice) -> Eps:
        """The noise prediction of this model in `diffusion`, for `k`.

        Raises:
            UsageError: the model cannot be sampled in that diffusion, or not with that K.
        """
        if self.card.parameterization == "denoiser":
            return DenoiserEps(self.network, diffusion, k)
        if diffusion != self.diffusion:
            raise UsageError(
                f"{self.card.name} predicts the noise of its own {self.diffusion.name} and of no other diffusion; "
                "leave --diffusion out, or sample a denoiser"
            )
        return ADAPTERS[self.card.parameterization](self.network, diffusion, k, self.card.time_scale)


def build(card: Card, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The card's network with these weights: every tensor used once, none missing, shapes equal.

    Raises:
        CheckpointError: naming the first tensor or argument that does not fit.
    """
    module = empty_network(card, path)
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointError(f"{path}: tensor {name} is missing; the network of the card has one")
        if name not in expected:
            raise CheckpointError(f"{path}: unexpected tensor {printable(name)}; the network of the card has none")
        if expected[name].shape != tensors[name].shape:
            shapes = list(tensors[name].shape), list(expected[name].shape)
            raise CheckpointError(f"{path}: tensor {name} is {shapes[0]}; the network of the card needs {shapes[1]}")
        if not tensors[name].is_floating_point():
            raise CheckpointError(f"{path}: tensor {name} is {tensors[name].dtype}; floating-point numbers are needed")
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)


def empty_network(card: Card, path: Path) -> nn.Module:
    """The card's network, its weights uninitialised memory.

    Raises:
        CheckpointError: the card describes no network, or one that does not fit its images or what it predicts.
    """
    given = dict(card.network)
    kind = str(given.pop("kind", ""))
    if kind not in NETWORKS:
        raise CheckpointError(f"{path}: its card names a network '{printable(kind)}'; {nearest(kind, NETWORKS)}")
    spec = NETWORKS[kind]
    arguments = typed(given, spec.arguments, f"{path}: network of the card", CheckpointError)
    check_interface(card, kind, spec.interface(arguments), path)
    try:
        with SkipInit():
            return spec.build(**keywords(arguments))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its card does not describe a {kind}: {error}") from error


def check_interface(card: Card, kind: str, interface: Interface, path: Path) -> None:
    """Refuses a network that does not take the card's images, or does not predict what the card says.

    Raises:
        CheckpointError: naming both.
    """
    if (kind == "denoiser") != (card.parameterization == "denoiser"):
        raise CheckpointError(f"{path}: its card says that a {kind} predicts '{card.parameterization}'")
    channels, dimension = card.images.channels, 1 if kind == "denoiser" else card.make_diffusion().D
    out = channels * dimension if card.parameterization == "eps" else channels
    if card.parameterization == "mixed_score" and dimension != 2:
        raise CheckpointError(f"{path}: its card says mixed_score, which needs a diffusion with a velocity")
    expected = Interface(channels * dimension, out, card.images.size)
    if interface != expected:
        raise CheckpointError(
            f"{path}: its card says {describe(expected)}, but its network is for {describe(interface)}"
        )


def describe(interface: Interface) -> str:
    """An interface in words."""
    size = interface.image_size
    return f"{interface.in_channels} input and {interface.out_channels} output channels of {size}x{size} pixels"
