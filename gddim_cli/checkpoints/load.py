"""A checkpoint by name or path, as a network with its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from gddim_cli.checkpoints.card import Card
from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.errors import CheckpointError, UsageError, nearest
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.models.network import Counted
from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.skip_init import SkipInit
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.models.parameterization import MixedScoreEps, NoiseEps
from gddim_cli.samplers.base import Eps

NETWORKS: dict[str, Callable[..., nn.Module]] = {"denoiser": DenoisingUNet, "ncsnpp": NCSNpp}
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
    """The card's network with the file's weights: every tensor used once, none missing, shapes equal.

    Raises:
        CheckpointError: naming the first tensor or argument that does not fit.
    """
    arguments = dict(card.network)
    kind = str(arguments.pop("kind", ""))
    if kind not in NETWORKS:
        raise CheckpointError(f"{path}: its card names a network '{kind}'; {nearest(kind, NETWORKS)}")
    check_channels(card, kind, path)
    try:
        with SkipInit():
            module = NETWORKS[kind](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its card does not describe a {kind}: {error}") from error
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointError(f"{path}: tensor {name} is missing, which the network of its card has")
        if name not in wanted:
            raise CheckpointError(f"{path}: tensor {name} is there, which the network of its card has not")
        if wanted[name].shape != tensors[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name} is {list(tensors[name].shape)}, the network of its card wants {list(wanted[name].shape)}"
            )
        if not tensors[name].is_floating_point():
            raise CheckpointError(f"{path}: tensor {name} is {tensors[name].dtype}; floating-point numbers are needed")
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)


def check_channels(card: Card, kind: str, path: Path) -> None:
    """Refuses a network that does not take the card's images, or does not predict what the card says.

    Raises:
        CheckpointError: naming both.
    """
    if (kind == "denoiser") != (card.parameterization == "denoiser"):
        raise CheckpointError(f"{path}: its card says that a {kind} predicts '{card.parameterization}'")
    one, blocks = card.images.channels, 1
    wanted = {"image_channels": one, "image_size": card.images.size}
    if kind == "ncsnpp":
        blocks = card.make_diffusion().D
        out = one * blocks if card.parameterization == "eps" else one
        wanted = {"in_channels": one * blocks, "out_channels": out, "image_size": card.images.size}
    if card.parameterization == "mixed_score" and blocks != 2:
        raise CheckpointError(f"{path}: its card says mixed_score, which needs a diffusion with a velocity")
    made = {key: card.network.get(key) for key in wanted}
    if made != wanted:
        raise CheckpointError(
            f"{path}: its card says images {card.images}, but a network for {tuple(made.values())}: {', '.join(made)}"
        )
