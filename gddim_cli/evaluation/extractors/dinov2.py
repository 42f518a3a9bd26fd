"""DINOv2 (Oquab et al., arXiv 2304.07193), the network of FD-DINOv2 (Stein et al., arXiv 2306.04675), through timm."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as fn

from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation.extractors.base import Extractor, channels_first, first_line, quiet
from gddim_cli.evaluation.extractors.weights import FILES, weights_of
from gddim_cli.images.quantize import Pixels

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

NAME = "dinov2-vitl14"
SIDE, PATCH = 224, 14
GRID = SIDE // PATCH
WIDTH_OF_HEAD = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colors, on a scale from 0 to 1."""
OFFSET = 0.1
"""Added to the grid's size when the position embedding is resized, as in the authors' code."""


def load_dinov2(device: torch.device) -> Extractor:
    """ViT-L/14 with the authors' weights. Its 1024 features are the normalized class token of the last layer.

    Raises:
        UsageError: timm is not installed.
        DataError: the weights are not on this machine, do not match their card, or cannot be read.
    """
    weights = weights_of(FILES["dinov2"])
    try:
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
        network: nn.Module = vision_transformer(state).to(device).eval().requires_grad_(False)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise DataError(f"{weights.path}: not the state dict of DINOv2: {first_line(error)}") from error
    mean, std = (torch.tensor(numbers, device=device)[:, None, None] for numbers in (MEAN, STD))

    def run(x: Tensor) -> Tensor:
        return network((x / 255 - mean) / std)

    dimension = state["cls_token"].shape[-1]
    return Extractor(NAME, "dinov2", weights.sha256, dimension, True, run, 3, None, device, prepare=resized)


def resized(images: Pixels) -> Tensor:
    """Resizes uint8 images [N, H, W, C] with Pillow's bicubic filter, as dgm-eval does, to uint8 [N, C, 224, 224]."""
    pictures = (Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image) for image in images)
    large = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in pictures]
    return channels_first(np.stack(large).reshape(len(images), SIDE, SIDE, -1))


def vision_transformer(state: dict[str, Tensor]) -> VisionTransformer:
    """timm's network with the weights of a state dict in the authors' layout, for images of 224x224.

    timm names the tensors as the authors do. The mask token is dropped, since it is used only in training.

    Raises:
        UsageError: timm is not installed.
        RuntimeError, KeyError, AttributeError, TypeError: the state dict has another layout.
    """
    try:
        with quiet():
            from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise UsageError(
            "--metrics dino: needs the package timm; install it with: pip install 'gddim[dino]'"
        ) from error
    width = state["cls_token"].shape[-1]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    with torch.device("meta"):
        network = VisionTransformer(
            img_size=SIDE, patch_size=PATCH, embed_dim=width, depth=depth, num_heads=width // WIDTH_OF_HEAD,
            init_values=1e-5, num_classes=0,
        )  # fmt: skip
    kept = {name: tensor.float() for name, tensor in state.items() if name != "mask_token"}
    kept["pos_embed"] = positions(kept["pos_embed"])
    network.load_state_dict(kept, assign=True)
    return network


def positions(embedding: Tensor) -> Tensor:
    """Resizes a position embedding [1, 1 + n^2, d], as the authors do, to a grid of 16x16 patches: [1, 257, d]."""
    token, patches = embedding[:, :1], embedding[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if side == GRID:
        return embedding
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (GRID + OFFSET) / side
    small = fn.interpolate(square, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([token, small.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
