"""A user's own network as a model: any callable `D(y, sigma)` that estimates clean images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.cld import CLD
from gddim_cli.errors import UsageError
from gddim_cli.models.denoiser import DenoiserEps, denoise
from gddim_cli.models.network import Counted
from gddim_cli.samplers.base import Eps


class Denoiser:
    """`D(y, sigma) = E[x_0 | y = x_0 + N(0, sigma^2 I)]` around any callable, as a model for every per-pixel diffusion.

    Args:
        module: from y [N, C, H, W] (images in [-1, 1] plus noise) and sigma [N] to images [N, C, H, W].
        image_shape: channels, height and width.
        sigma_min, sigma_max: the lowest and highest noise level that the module supports.
        name: its name in `run.json` and tables.

    Raises:
        UsageError: a shape that is not an image's, or noise levels that are not `0 <= sigma_min < sigma_max`.
    """

    sha256 = ""
    classes = 0

    def __init__(
        self,
        module: Callable[[Tensor, Tensor], Tensor],
        image_shape: tuple[int, int, int],
        sigma_min: float = 0.0,
        sigma_max: float = float("inf"),
        name: str | None = None,
    ) -> None:
        shape = tuple(image_shape)
        if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
            raise UsageError(f"image_shape: {image_shape!r} is not (channels, height, width)")
        if not 0 <= sigma_min < sigma_max:
            raise UsageError(
                f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g}: expected 0 <= sigma_min < sigma_max"
            )
        if isinstance(module, nn.Module):
            module = module.eval().requires_grad_(False)
        self.network = Counted(module)
        self.image_shape = shape
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.name = name or type(module).__name__

    @property
    def diffusion(self) -> Diffusion:
        """CLD, the default of every denoiser."""
        return CLD()

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest noise level that the module supports."""
        return self.sigma_min, self.sigma_max

    def sigma_range_in(self, _: Diffusion) -> tuple[float, float]:
        """The same noise levels in any diffusion."""
        return self.sigma_range

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The diffusion's own defaults."""
        return diffusion.sampling

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None) -> Eps:  # noqa: ARG002
        """The noise prediction in `diffusion` for `k`; raises UsageError for diffusions that are not per pixel."""
        return DenoiserEps(self.network, diffusion, k)

    @torch.inference_mode()
    def __call__(self, y: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """The denoised images, [N, C, H, W].

        Args:
            y: images in [-1, 1] plus noise, [N, C, H, W].
            sigma: the noise level, a number or [N].
            labels: must be None, since the wrapped module takes no labels.

        Raises:
            UsageError: labels, or y of another shape.
        """
        if labels is not None:
            raise UsageError(f"{self.name}: takes no class labels")
        return denoise(self.network, y, sigma, self.image_shape)
