"""Wraps a user's own network as a model; the user states what the network predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.cld import CLD
from gddim_cli.errors import UsageError
from gddim_cli.models.denoiser import DenoiserEps, denoise
from gddim_cli.models.isotropic import check_labels, check_levels, from_prediction
from gddim_cli.models.network import Counted
from gddim_cli.samplers.base import Eps

LARGEST = 1e18
"""The highest finite `sigma_max` that is allowed. Its square is finite in float32."""


class Denoiser:
    """Makes a model of any network that denoises images.

    The model can be sampled through every diffusion that treats all pixels alike. To denoise means to compute
    `D(y, sigma) = E[x_0 | y = x_0 + sigma n]` with standard normal n.

    Args:
        module: maps inputs [N, C, H, W] and times or noise levels [N] to a prediction, of which the first C channels
            are used. A conditional module takes a third argument, the classes as one-hot rows [N, classes]; a row of
            zeros means no class.
        image_shape: channels, height and width.
        sigma_min, sigma_max: the lowest and highest noise level that the module supports, for images in [-1, 1]. Default:
            the range in which the prediction is defined.
        name: the model's name in `run.json` and tables. Default: the name of the module's class.
        prediction: what the module predicts. `denoiser`: the clean image, from y and sigma. `edm`, `vp_eps`, `v`, `x0`,
            `subvp_eps`, `ve_score`, `ve_residual`, `flow`: as in the table of docs/checkpoints.md.
        classes: number of class labels; 0 for an unconditional module.
        data_range: the range of the images that the module was trained on.
        convention: the parameters of the prediction: `sigma_data`, `schedule`, `time_scale`.

    Raises:
        UsageError: `module` cannot be called, `image_shape` is not the shape of an image, `data_range` is not
            increasing, the prediction or a parameter is unknown, or the noise levels are not
            `0 <= sigma_min < sigma_max`.
    """

    sha256 = ""

    def __init__(
        self,
        module: Callable[..., Tensor],
        image_shape: tuple[int, int, int],
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        name: str | None = None,
        *,
        prediction: str = "denoiser",
        classes: int = 0,
        data_range: tuple[float, float] = (-1.0, 1.0),
        **convention: Any,
    ) -> None:
        if not callable(module):
            raise UsageError(
                f"module: {type(module).__name__} is not a module or a function of images and noise levels"
            )
        shape = tuple(image_shape)
        if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
            raise UsageError(f"image_shape: {image_shape!r} is not (channels, height, width)")
        if not data_range[0] < data_range[1]:
            raise UsageError(f"data_range: {data_range!r} is not (low, high) with low < high")
        if isinstance(module, nn.Module):
            module = module.eval().requires_grad_(False)
        self.network = Counted(OneHot(module) if classes else module)
        self.denoiser = from_prediction(
            self.network,
            prediction,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            classes=classes,
            data_range=data_range,
            **convention,
        )
        low, high = self.sigma_range
        if not 0 <= low < high or LARGEST < high < math.inf:
            raise UsageError(
                f"sigma_min {low:g} and sigma_max {high:g}: expected 0 <= sigma_min < sigma_max <= {LARGEST:g}"
            )
        self.image_shape = shape
        self.classes = classes
        self.name = name or type(module).__name__

    @property
    def diffusion(self) -> Diffusion:
        """CLD, the default of every denoiser."""
        return CLD()

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest noise level that the module supports."""
        return self.denoiser.sigma_min, self.denoiser.sigma_max

    def sigma_range_in(self, _: Diffusion) -> tuple[float, float]:
        """The noise levels that the module supports; they are the same in every diffusion."""
        return self.sigma_range

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The diffusion's own defaults."""
        return diffusion.sampling

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None) -> Eps:
        """The noise prediction in `diffusion` for `k`; raises UsageError for a diffusion in frequency space."""
        return DenoiserEps(self.denoiser.labelled(labels), diffusion, k)

    @torch.inference_mode()
    def __call__(self, y: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """The denoised images, [N, C, H, W].

        Args:
            y: images in [-1, 1] plus noise, [N, C, H, W].
            sigma: the noise level, a number or [N].
            labels: integer classes, [N]; None for no class.

        Raises:
            UsageError: an argument has the wrong shape or is outside its range, or an unconditional module is given
                labels.
        """
        check_levels(self.denoiser, torch.as_tensor(sigma, device=y.device).reshape(-1), self.name)
        check_labels(self.denoiser, labels, len(y), self.name)
        return denoise(self.denoiser.labelled(labels), y, sigma, self.image_shape)


class OneHot:
    """Lets a conditional module, which takes three arguments, be called with two.

    The second argument is the condition [N, 1 + classes]: the level, followed by the one-hot class.
    """

    def __init__(self, module: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.module = module

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.module(x, condition[:, 0], condition[:, 1:])
