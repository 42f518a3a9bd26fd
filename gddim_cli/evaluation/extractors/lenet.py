"""The bundled classifier of digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors.base import Extractor, channels_first
from gddim_cli.hub.store import bundled_folder
from gddim_cli.images.quantize import Pixels
from gddim_cli.models.networks.lenet import LeNet
from gddim_cli.runtime.files import replacing, sha256

LENET = "lenet-mnist"
CLASSES = 10
SCORES = "lenet-classes"
"""The mode whose features are the class scores. They cannot be computed from the features of mode `lenet`, because these
have passed through tanh, which saturates."""
CARD = "gddim_classifier"


def scaled(images: Pixels) -> Tensor:
    """Converts uint8 [N, H, W, C] to [N, C, H, W] in [-1, 1]."""
    return channels_first(images).float() / 127.5 - 1


def load_lenet(device: torch.device, path: Path | None = None, mode: str = "lenet") -> Extractor:
    """The bundled classifier of digits. In mode `lenet-classes`, its class scores take the place of its features.

    Raises:
        DataError: the classifier's file is damaged.
    """
    path = path or bundled_folder() / f"{LENET}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        network = LeNet()
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: not the classifier that ships with gddim ({error}); install gddim again") from error
    network = network.to(device).eval().requires_grad_(False)

    layer, dimension, head = network.features, LeNet.dimension, None
    if mode == SCORES:
        layer, dimension, head = network, CLASSES, np.eye(CLASSES)

    def run(x: Tensor) -> Tensor:
        return layer(x / 127.5 - 1)

    return Extractor(LENET, mode, sha256(path), dimension, False, run, 1, 28, device, head=head)


def write_classifier(path: Path, card: dict[str, Any], network: LeNet) -> None:
    """Writes a classifier with its card in the metadata, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        save_file(network.state_dict(), temporary, metadata={CARD: msgspec.json.encode(card).decode()})
