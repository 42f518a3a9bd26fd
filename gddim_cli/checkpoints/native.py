"""The native format: a safetensors file that also holds the model card, as JSON under the metadata key `gddim_card`."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gddim_cli.checkpoints.card import Card
from gddim_cli.errors import CheckpointError
from gddim_cli.runtime.files import replacing
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.typed_yaml import typed

CARD = "gddim_card"
SUFFIX = ".safetensors"


def is_native(path: Path) -> bool:
    """Whether a file is in the native format (safetensors), judging by its first bytes.

    A damaged file with the suffix `.safetensors` counts as native, unless it begins like a pickle or a .zip.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return head[8:] == b"{" or (path.suffix == SUFFIX and not head.startswith((b"PK", b"\x80")))


def write(path: Path, card: Card, tensors: dict[str, Tensor]) -> None:
    """Writes weights and card to one file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        save(temporary, card, tensors)


def save(path: Path, card: Card, tensors: dict[str, Tensor]) -> None:
    """Writes weights and card. The card's sha256 is left out, because a file cannot contain its own hash.

    Raises:
        OSError: the file cannot be written.
    """
    inside = msgspec.structs.replace(card, sha256=None)
    contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={CARD: msgspec.json.encode(inside).decode()})
    except SafetensorError as error:
        # A SafetensorError has no errno attribute; the system's error number is only in its message.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """The card and the tensors of a native file.

    Raises:
        CheckpointError: the file is missing, truncated, not safetensors or without a card, or a tensor is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        what = f"cannot be read: {error}" if not path.is_file() else f"not a complete safetensors file ({error})"
        if "not valid UTF-8" in str(error):
            raise CheckpointError(
                f"{path}: the path is not valid UTF-8, as safetensors requires; rename the file"
            ) from error
        raise CheckpointError(f"{path}: {what}; copy or convert it again") from error
    if CARD not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file without gddim's card in its metadata; give a file that gddim train or gddim "
            "convert wrote"
        )
    try:
        raw = msgspec.json.decode(metadata[CARD])
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its card is not JSON: {printable(error)}") from error
    for name, tensor in tensors.items():
        if not all_finite(tensor):
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity; the file is damaged, fetch it again")
    return typed(raw, Card, f"card in {path}", CheckpointError), tensors


def all_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. One pass suffices: NaN and infinity show up in the minimum or maximum."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    wide = tensor.float() if tensor.element_size() < 4 else tensor  # aminmax does not support every small type
    return bool(torch.isfinite(torch.stack(wide.aminmax())).all())
