"""A checkpoint by name or path, as a network with its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from gddim_cli.acceleration import Accelerated, Speed
from gddim_cli.checkpoints import native, store
from gddim_cli.checkpoints.card import Card
from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import CheckpointError, UsageError, nearest
from gddim_cli.files import sha256
from gddim_cli.networks.blank import Blank
from gddim_cli.networks.denoiser import Denoiser
from gddim_cli.networks.ncsnpp import NCSNpp
from gddim_cli.samplers.linear import Eps
from gddim_cli.score import Counted, DenoiserEps, MixedScoreEps, NoiseEps

NETWORKS: dict[str, Callable[..., nn.Module]] = {"denoiser": Denoiser, "ncsnpp": NCSNpp}
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

    def eps(self, diffusion: Diffusion, k: KChoice) -> Eps:
        """The noise prediction of this model in `diffusion`, for `k`.

        Raises:
            UsageError: the model cannot be sampled in that diffusion, or not with that K.
        """
        if self.card.parameterization == "denoiser":
            return DenoiserEps(self.network, diffusion, k)
        own = self.card.make_diffusion()
        if diffusion != own:
            raise UsageError(
                f"{self.card.name} predicts the noise of its own {own.name} and of no other diffusion; "
                "leave --diffusion out, or sample a denoiser"
            )
        return ADAPTERS[self.card.parameterization](self.network, diffusion, k, self.card.time_scale)


def load(reference: str, device: torch.device, speed: Speed | None = None) -> Checkpoint:
    """The checkpoint that `--checkpoint reference` means: a name with a card, or the path of a native file.

    Args:
        speed: how it runs; None: plainly, in float32.

    Raises:
        UsageError: the device has not what `speed` asks for.
        CheckpointError: unknown, not on this machine, damaged, or a card that its weights contradict.
    """
    path, pinned = locate(reference)
    card, tensors = native.read(path)
    digest = sha256(path)
    if pinned is not None:
        check_pinned(pinned, card, digest, path)
        card = pinned
    module = build(card, tensors, path)
    run = Accelerated(module, device, speed or Speed(), store.cache_folder() / "compiled")
    return Checkpoint(card, Counted(run), path, digest)


def locate(reference: str) -> tuple[Path, Card | None]:
    """The weights file that `reference` means, and, where it is a name, its card.

    Raises:
        CheckpointError: neither a file nor a known name, or a name whose weights are not on this machine.
    """
    path = Path(reference)
    if path.is_dir() and reference not in store.names():
        inside = sorted(path.glob(f"*{store.WEIGHTS}"))
        hint = f"; it holds {inside[0]}" if inside else f"; a {store.WEIGHTS} file is needed"
        raise CheckpointError(f"{reference} is a folder{hint}")
    if path.suffix in (".yaml", ".yml") and path.with_suffix(store.WEIGHTS).is_file():
        raise CheckpointError(f"{reference} is a card; give the weights, {path.with_suffix(store.WEIGHTS)}")
    if path.is_file() and reference not in store.names():  # a name wins: ./NAME is the file
        return path, None
    if path.suffix or len(path.parts) > 1:
        raise CheckpointError(f"{reference}: no such file; named checkpoints: {', '.join(store.names())}")
    card = store.card_of(reference)
    weights = store.find_weights(reference)
    if weights is None:
        raise CheckpointError(f"{reference} has not been downloaded; get it with: gddim download {reference}")
    if card.sha256 is None and (seen := store.read_record(reference)):
        card = msgspec.structs.replace(card, sha256=seen.native_sha256)
    return weights, card


def check_pinned(pinned: Card, inside: Card, digest: str, path: Path) -> None:
    """Refuses weights that are not the ones their card is of.

    Raises:
        CheckpointError: another sha256 than the card's, or a card inside that describes another model.
    """
    if pinned.sha256 and pinned.sha256 != digest:
        raise CheckpointError(
            f"{path}: sha256 {digest[:16]}... is not the {pinned.sha256[:16]}... of its card; install or fetch it again"
        )
    for field in ("images", "network", "parameterization"):
        if getattr(pinned, field) != getattr(inside, field):
            raise CheckpointError(
                f"{path}: its own '{field}' ({getattr(inside, field)}) contradicts the card of {pinned.name}"
            )


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
        with Blank():
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
