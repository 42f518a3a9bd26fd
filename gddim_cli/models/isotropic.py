"""One interface for every network that denoises images with isotropic noise: `D(y, sigma, labels)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gddim_cli.errors import DataError, UsageError
from gddim_cli.models.conventions.base import Convention
from gddim_cli.models.conventions.registry import CONVENTIONS
from gddim_cli.models.network import Network
from gddim_cli.runtime.tensors import is_real, unlike_dense
from gddim_cli.runtime.typed_yaml import typed

ROUNDING = 1e-5
"""Relative tolerance by which a noise level may lie outside the supported range, to allow for rounding."""


@dataclass(frozen=True)
class IsotropicDenoiser:
    """`D(y, sigma, labels) = E[x_0 | y = x_0 + N(0, sigma^2 I), class]`, for images in [-1, 1].

    Attributes:
        network: the raw network, which maps states [N, C, H, W] and a condition to a prediction, of which the first C
            channels are used. The condition is the time or noise level, [N]; with class labels it is [N, 1 + classes],
            the level followed by the class as one-hot columns.
        convention: what the network predicts.
        sigma_min, sigma_max: the lowest and the highest noise level that the network supports.
        classes: number of class labels; 0 if the network takes none.
        data_range: the range of the images that the network was trained on.
    """

    network: Network
    convention: Convention
    sigma_min: float
    sigma_max: float
    classes: int = 0
    data_range: tuple[float, float] = (-1.0, 1.0)

    def __call__(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The denoised images, [N, C, H, W], in y's dtype.

        Args:
            y: images in [-1, 1] plus noise, [N, C, H, W].
            sigma: the noise levels, [N]; not checked against the supported range.
            labels: integer classes, [N]; None for no class.
        """
        low, high = self.data_range
        gain, offset = (high - low) / 2, (high + low) / 2
        native = y if self.data_range == (-1.0, 1.0) else y * gain + offset
        # Times and levels are computed in float64 if the device supports it: embeddings multiply them and their
        # rounding errors by up to 1000.
        precise = sigma.to(torch.float32 if sigma.device.type == "mps" else torch.float64)
        scaling = self.convention.scaling(precise * gain)
        skip, out, inside = (part.to(y.dtype)[:, None, None, None] for part in scaling[:3])
        raw = self.network(inside * native, self.condition(scaling.level.to(y.dtype), labels))
        check_prediction(raw, y)
        denoised = torch.addcmul(skip * native, out, raw[:, : y.shape[1]].to(y))
        return denoised if self.data_range == (-1.0, 1.0) else (denoised - offset) / gain

    def condition(self, level: Tensor, labels: Tensor | None) -> Tensor:
        """The network's condition: the level, and one-hot class columns if the network takes classes."""
        if not self.classes:
            return level
        columns = level.new_zeros(len(level), self.classes)
        if labels is not None:
            columns.scatter_(1, labels.to(level.device, torch.int64)[:, None], 1.0)
        return torch.cat([level[:, None], columns], dim=1)

    def labelled(self, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The function `D(y, sigma)` for images of these classes."""
        return lambda y, sigma: self(y, sigma, labels)


def check_prediction(raw: object, y: Tensor) -> None:
    """Checks that a network returned a real tensor [N, C or more, H, W] for images y [N, C, H, W].

    Raises:
        DataError: the network returned something else; the message says what.
    """
    found = unlike_dense(raw)
    if found is None:
        assert isinstance(raw, Tensor)
        if is_real(raw) and raw.ndim == 4 and raw[:, : y.shape[1]].shape == y.shape:
            return
        found = f"{list(raw.shape)}, {str(raw.dtype).removeprefix('torch.')}"
    raise DataError(f"the network returned {found} for images {list(y.shape)}; a real tensor of their shape is needed")


def check_levels(denoiser: IsotropicDenoiser, sigma: Tensor, name: str) -> None:
    """Refuses noise levels outside the range that the network supports.

    Raises:
        UsageError: a level is outside the range; the message names the first.
    """
    low, high = denoiser.sigma_min * (1 - ROUNDING), denoiser.sigma_max * (1 + ROUNDING)
    outside = sigma[~((sigma >= low) & (sigma <= high))]
    if len(outside):
        raise UsageError(
            f"sigma {float(outside[0]):g} is outside the noise levels that {name} supports, {denoiser.sigma_min:g} to "
            f"{denoiser.sigma_max:g}"
        )


def check_labels(denoiser: IsotropicDenoiser, labels: Tensor | None, count: int, name: str) -> None:
    """Checks that the network takes labels, and that the given labels have the right shape, dtype and values.

    Raises:
        UsageError: the network takes no labels, or the labels are wrong.
    """
    if labels is None:
        return
    if not denoiser.classes:
        raise UsageError(f"{name} takes no class labels")
    if labels.shape != (count,) or labels.is_floating_point():
        raise UsageError(f"labels: {list(labels.shape)} of {labels.dtype}; whole numbers of shape [{count}] are needed")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < denoiser.classes:
        raise UsageError(f"labels: {name} has classes 0 to {denoiser.classes - 1}")


def from_prediction(
    network: Network,
    parameterization: str,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    classes: int = 0,
    data_range: tuple[float, float] = (-1.0, 1.0),
    **convention: Any,
) -> IsotropicDenoiser:
    """Turns a network with any known parameterization into a denoiser, `D(y, sigma, labels)`.

    Args:
        network: maps states [N, C, H, W] and a condition to a prediction, as in `IsotropicDenoiser`.
        parameterization: what the network predicts: `denoiser`, `edm`, `vp_eps`, `v`, `x0`, `ve_score`, `ve_residual`,
            `subvp_eps`, `flow`, or a parameterization that a plugin adds.
        sigma_min, sigma_max: the lowest and the highest noise level that the network supports. Default: the range in
            which the prediction is defined.
        classes: number of class labels.
        data_range: the range of the images that the network was trained on.
        convention: the parameters of the parameterization, for example `sigma_data=0.5` or
            `schedule={"kind": "linear", "beta_0": 0.1, "beta_1": 19.9, "time_scale": 999}`.

    Raises:
        UsageError: the parameterization is unknown or does not take these parameters.
    """
    spec = CONVENTIONS.find(parameterization, "prediction")
    found = typed(convention, spec.parameters, f"parameterization {parameterization}", UsageError)
    low, high = found.sigma_range
    low, high = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    return IsotropicDenoiser(network, found, low, high, classes, data_range)
