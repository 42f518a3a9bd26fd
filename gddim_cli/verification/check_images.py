"""The images that `gddim check --checkpoint` tests a model on: the user's, or drawn from the model itself."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gddim_cli.errors import DataError
from gddim_cli.models.isotropic import IsotropicDenoiser
from gddim_cli.models.model import Model
from gddim_cli.verification.denoising import Reading, draw_images, in_batches, normal
from gddim_cli.verification.linear_denoiser import LinearDenoiser

FEWEST, FITTED = 16, 2000
"""The fewest images that a check needs, and the most that the linear denoiser is fitted to."""
NUMBERS_COMPARED = 6144
"""Corrections are compared on about this many pixel values of the given images."""
CLASSES_TRIED = 16
FULL_RANGE, TOO_FAR = 1.3, 1.4
"""The 1 % and 99 % quantiles of images in [-1, 1] must be at least 1.3 apart and lie between -1.4 and 1.4."""


class Images(Protocol):
    """The images on which readings are compared. A reading is an interpretation of a network's output.

    Attributes:
        title: a description of the images.
        passes: the largest mean ratio (see `mean_ratio`) with which a model passes.
        convincing: the mean ratio below which no corrections (see `mistakes`) are tried; 0 if they are always tried.
        count: the number of images on which the model is tested.
        compared: the number of images on which corrections are compared.
        evaluations: the network evaluations that drawing one image takes; 0 for given images.
    """

    title: str
    passes: float
    convincing: float
    count: int
    compared: int
    evaluations: int

    def of(self, reading: Reading, count: int) -> tuple[Tensor, Tensor | None, LinearDenoiser]:
        """`count` images to test a reading on, their classes, and a linear denoiser fitted to images of this kind."""


class GivenImages:
    """The user's images in random order. The model is tested on some, and a linear denoiser is fitted to the rest.

    Args:
        pixels: uint8 [N, H, W, C].
        num: how many images to test the model on, at most half of all.
        title: the images' name.

    Raises:
        DataError: there are too few images, or they differ in shape from the model's.
    """

    passes, convincing, evaluations = 1.5, 0.0, 0

    def __init__(self, pixels: Any, num: int, model: Model, device: torch.device, title: str) -> None:
        channels, height, width = model.image_shape
        if pixels.shape[1:] != (height, width, channels):
            found = "x".join(map(str, pixels.shape[1:]))
            raise DataError(f"--data: images of {found}, but {model.name} makes {height}x{width}x{channels}")
        if len(pixels) < FEWEST:
            raise DataError(f"--data: {len(pixels)} images; at least {FEWEST} are needed")
        self.count = min(num, len(pixels) // 2)
        self.compared = min(self.count, max(4, -(-NUMBERS_COMPARED // math.prod(model.image_shape))))
        self.title = f"{self.count} images of {title}"
        mixed = pixels[np.random.default_rng(0).permutation(len(pixels))]
        images = torch.from_numpy(mixed.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
        self.tested, self.linear = images[: self.count].to(device), LinearDenoiser(images[self.count :])
        self.labels = likeliest_classes(model, self.tested)

    def of(self, _: Reading, count: int) -> tuple[Tensor, Tensor | None, LinearDenoiser]:
        """The same images for all readings."""
        return self.tested[:count], self.labels[:count] if self.labels is not None else None, self.linear


class DrawnImages:
    """Images drawn with the reading under test. A correct reading draws images that it denoises well."""

    passes, convincing, evaluations = 1.2, 0.75, 14
    count, compared = 32, 16

    def __init__(self, model: Model, device: torch.device) -> None:
        self.title = f"{self.count} images drawn from the model itself"
        self.shape, self.device = model.image_shape, device

    def of(self, reading: Reading, count: int) -> tuple[Tensor, Tensor | None, LinearDenoiser]:
        """Images that the reading draws. Values that are not finite become 0."""
        assert isinstance(reading, IsotropicDenoiser)
        labels = None
        if reading.classes:
            labels = torch.randint(reading.classes, (count,), generator=torch.Generator().manual_seed(0)).to(
                self.device
            )
        images = draw_images(reading, count, self.shape, self.device, labels, self.evaluations)
        images = images.nan_to_num(0.0, 0.0, 0.0).clamp(-1e6, 1e6)
        return images, labels, LinearDenoiser(images.cpu())


@torch.inference_mode()
def likeliest_classes(model: Model, images: Tensor) -> Tensor | None:
    """For each image, the class with which a conditional model denoises it best at sigma = 1, [N].

    At most 16 randomly chosen classes are tried. Returns None if the model takes no classes or is not a denoiser.
    """
    denoiser = getattr(model, "denoiser", None)
    if not model.classes or denoiser is None:
        return None
    chosen = np.random.default_rng(0).permutation(model.classes)[:CLASSES_TRIED]
    y = images + normal(tuple(images.shape), torch.Generator().manual_seed(0), images)
    tried = [torch.full((len(images),), int(number), device=images.device) for number in chosen]
    errors = [(in_batches(denoiser, y, 1.0, classes) - images).square().flatten(1).mean(1) for classes in tried]
    return torch.stack(tried)[torch.stack(errors).argmin(0), torch.arange(len(images), device=images.device)]


def fills_range(images: Tensor) -> bool:
    """Whether the values of images range from about -1 to about 1."""
    low, high = np.quantile(images.cpu().numpy(), [0.01, 0.99])
    return bool(high - low >= FULL_RANGE and max(-low, high) <= TOO_FAR)
