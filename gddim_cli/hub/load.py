"""A checkpoint by name or path."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card
from gddim_cli.checkpoints.load import Checkpoint, build
from gddim_cli.errors import CheckpointError
from gddim_cli.hub import store
from gddim_cli.models.acceleration import Accelerated, Speed
from gddim_cli.models.network import Counted
from gddim_cli.runtime.files import sha256


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
