"""Inception v3 of 2015-12-05, the network of FID, through clean-fid's wrappers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors.base import Extractor, first_line, last_line, quiet
from gddim_cli.evaluation.extractors.weights import FILES, weights_of
from gddim_cli.evaluation.resize import bicubic
from gddim_cli.models.networks.skip_init import SkipInit

SIDE = 299
DIMENSION = 2048
INTERFACE = "inception-2015-12-05.pt, or a file with its interface; give any other network as --features"

Loaded = tuple[Callable[[Tensor], Tensor], NDArray[np.float64] | None]
"""A network, and the weights [c, d] of its last layer if it has one."""


def load_inception(mode: str, device: torch.device, file: Path | None = None) -> Extractor:
    """The Inception network of a clean-fid mode, or the network in `file`, which has the same interface.

    In mode `legacy_tensorflow`, the network itself resizes the images, as for the FID of TensorFlow, StyleGAN and EDM.
    In mode `clean`, Pillow's bicubic filter resizes the images without quantizing the result. In mode `legacy_pytorch`,
    the images are resized bilinearly, and the weights are pytorch-fid's port.

    The class scores leave out the bias of the last layer, as in the original computation of the Inception Score
    (Salimans et al., arXiv 1606.03498).

    Raises:
        DataError: the weights are not on this machine, do not match their card, or cannot be read.
    """
    weights = weights_of(FILES[mode], file)
    load = pytorch_inception if mode == "legacy_pytorch" else torchscript_inception
    network, head = load(weights.path, mode, device)
    name = FILES[mode] if file is None or weights.published else file.name
    return Extractor(
        name, mode, weights.sha256, DIMENSION, weights.published, network, 3, None, device, head=head
    )  # fmt: skip


def torchscript_inception(path: Path, mode: str, device: torch.device) -> Loaded:
    """Loads Inception from a TorchScript file, with clean-fid's `InceptionV3W`. Downloads nothing.

    Raises:
        DataError: the file is not TorchScript, or lacks Inception's interface.
    """
    from cleanfid.inception_torchscript import InceptionV3W

    inside = mode == "legacy_tensorflow"
    try:
        # InceptionV3W takes a folder and looks in it for a file of this name.
        with quiet(), tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "inception-2015-12-05.pt").symlink_to(path.absolute())
            network = InceptionV3W(folder, download=False, resize_inside=inside)
    except AttributeError as error:
        raise DataError(f"{path}: TorchScript without the submodule 'layers'; expected {INTERFACE}") from error
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a TorchScript Inception ({INTERFACE}): {first_line(error)}") from error
    network = network.to(device).eval()
    head = head_of(network.base.state_dict().get("output.weight"))

    def run(x: Tensor) -> Tensor:
        try:
            return network(x if inside else bicubic(x, SIDE))
        except torch.jit.Error as error:
            raise DataError(f"{path}: the network fails on images: {last_line(error)}") from error

    return run, head


def head_of(weight: Tensor | None) -> NDArray[np.float64] | None:
    """The last layer's weights [c, 2048], float64; None if they are missing or of another shape."""
    if weight is None or weight.dim() != 2 or weight.shape[1] != DIMENSION:
        return None
    return weight.detach().double().cpu().numpy()


def pytorch_inception(path: Path, _mode: str, device: torch.device) -> Loaded:
    """pytorch-fid's Inception, with weights from a state dict.

    Raises:
        DataError: the file is not pytorch-fid's state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = pytorch_architecture()
        network.load_state_dict(state)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise DataError(f"{path}: not pytorch-fid's Inception (a state dict): {first_line(error)}") from error
    head = head_of(network.fc.weight)
    network.fc = nn.Identity()
    network = network.to(device).eval()

    def run(x: Tensor) -> Tensor:
        large = fn.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False).clamp_(0, 255)
        return network(2 * (large / 255) - 1)

    return run, head


def pytorch_architecture() -> Any:
    """torchvision's Inception v3 without weights. Where pytorch-fid's blocks differ, clean-fid's copies are used."""
    with quiet(), SkipInit():
        from cleanfid import inception_pytorch as blocks
        from torchvision.models import inception_v3

        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        for name, width, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(network, f"Mixed_{name}", blocks.FIDInceptionA(width, pool_features=pool))
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{name}", blocks.FIDInceptionC(768, channels_7x7=inner))
        network.Mixed_7b, network.Mixed_7c = blocks.FIDInceptionE_1(1280), blocks.FIDInceptionE_2(2048)
    return network
