"""The interface between models and sampling, for models loaded from files and for users' own networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
    from gddim_cli.models.network import Counted
    from gddim_cli.samplers.base import Eps


class Model(Protocol):
    """A network that can be sampled."""

    @property
    def name(self) -> str:
        """The model's name in `run.json` and tables."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of the model's weights file; empty if there is no such file."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's images."""

    @property
    def network(self) -> Counted:
        """The network, wrapped to count its evaluations."""

    @property
    def diffusion(self) -> Diffusion:
        """The diffusion that the model is sampled through by default."""

    @property
    def classes(self) -> int:
        """Number of class labels; 0 for an unconditional model."""

    def sigma_range_in(self, diffusion: Diffusion) -> tuple[float, float] | None:
        """The lowest and highest noise level to sample at in `diffusion`; None if there is no limit."""

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The default configuration for sampling through `diffusion`."""

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None) -> Eps:
        """The model's noise prediction in `diffusion` for `k`.

        Args:
            labels: the class of each image in a batch, [N], for a conditional model.

        Raises:
            UsageError: the model cannot be sampled through this diffusion, or not with this K.
        """


def module_of(model: Model) -> object:
    """The module that the model's network wraps, or the network itself if it wraps none."""
    network = model.network.network
    return getattr(network, "module", network)
