"""An extractor: a network that maps images to features, with everything that identifies the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.errors import DataError
from gddim_cli.evaluation.protocols import INCEPTION_MODES
from gddim_cli.images.quantize import Pixels
from gddim_cli.runtime.rounding import rounding
from gddim_cli.runtime.text import message_of

ROWS = 4096


def channels_first(images: Pixels) -> Tensor:
    """Converts uint8 [N, H, W, C] to uint8 [N, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@dataclass(frozen=True)
class Extractor:
    """A network that maps images to features.

    Attributes:
        name: the network's name: `inception`, `inception-pytorch`, `dinov2-vitl14`, `lenet-mnist`, or the file's name.
        mode: the name of the mode, such as `clean`, which stands for a network and a way to resize images for it.
        sha256: SHA-256 of the weights.
        dimension: d, the length of a feature vector.
        published: whether the weights are the published ones of the mode; only then may a distance have its usual name.
        network: maps images [N, C, H, W] of numbers in [0, 255] on the device to features [N, d].
        channels: number of channels that the network takes. If it is 3, the channel of gray images is repeated. None if
            the network takes both gray and color images.
        size: side of the images that the network takes; None if images of any size are accepted.
        device: the device that the network runs on.
        prepare: converts uint8 [N, H, W, C] to uint8 [N, C, H, W] of the size that the network takes, on the CPU.
        head: weights [c, d] of the last linear layer, which gives the class scores `features head^T`. None if the
            network has no such layer.
    """

    name: str
    mode: str
    sha256: str
    dimension: int
    published: bool
    network: Callable[[Tensor], Tensor]
    channels: int | None
    size: int | None
    device: torch.device
    prepare: Callable[[Pixels], Tensor] = channels_first
    head: NDArray[np.float64] | None = None

    @property
    def defines_fid(self) -> bool:
        """Whether the weights are Inception's published ones; only then may a distance be called FID."""
        return self.published and self.mode in INCEPTION_MODES

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Features, float32 [N, dimension], of uint8 images [N, H, W, C].

        Raises:
            DataError: the network does not take such images, or returns features that are not finite or have another dimension.
        """
        self.check(*images.shape[1:])
        pixels = self.prepare(images).to(self.device)
        with torch.inference_mode(), rounding(tf32=False):
            found = self.network(pixels.expand(-1, self.channels or -1, -1, -1).float())
        features: NDArray[np.float32] = found.flatten(1).float().cpu().numpy()
        if features.shape != (len(images), self.dimension):
            raise DataError(
                f"{self.name}: returned features of shape {list(features.shape)} for {len(images)} images; expected "
                f"[{len(images)}, {self.dimension}]; the file belongs to another network"
            )
        if not np.isfinite(features).all():
            raise DataError(
                f"{self.name}: returned features that are NaN or infinite; the weights are damaged, fetch them again"
            )
        return features

    def class_scores(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Class scores [N, c] of features [N, d]: logarithms of class probabilities, up to a constant per image."""
        assert self.head is not None
        parts = range(0, len(features), ROWS)
        return np.concatenate([(features[at : at + ROWS] @ self.head.T).astype(np.float32) for at in parts])

    def check(self, height: int, width: int, channels: int) -> None:
        """Raises DataError for images that the network does not take."""
        if self.size is not None and (height, width, channels) != (self.size, self.size, self.channels):
            raise DataError(
                f"{self.name}: the images are {width}x{height} with {channels} channel{'s' * (channels != 1)}, but the "
                f"network takes {self.size}x{self.size} with {self.channels}; choose another reference, for example "
                "--ref cifar10 (Inception takes images of any size)"
            )


def first_line(error: Exception) -> str:
    """The first line of a library's error message; the name of the error's type if there is no message."""
    return (message_of(error).strip().splitlines() or [type(error).__name__])[0][:200]


def last_line(error: Exception) -> str:
    """The last line of a library's error message, where TorchScript says what is wrong. See also `first_line`."""
    return (message_of(error).strip().splitlines() or [type(error).__name__])[-1][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the warnings that libraries issue about each other. Users cannot act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
