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
        """Its name in `run.json` and tables."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of its weights file; empty if it has none."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""

    @property
    def network(self) -> Counted:
        """The network, which counts its evaluations."""

    @property
    def diffusion(self) -> Diffusion:
        """The diffusion that it is sampled through by default."""

    @property
    def classes(self) -> int:
        """Number of class labels; 0 for an unconditional model."""

    def sigma_range_in(self, diffusion: Diffusion) -> tuple[float, float] | None:
        """The lowest and highest noise level to sample at in `diffusion`; None if there is no limit."""

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The default configuration for sampling through `diffusion`."""

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None) -> Eps:
        """Its noise prediction in `diffusion` for `k`.

        Args:
            labels: classes of the images of a batch, [N], for a conditional model.

        Raises:
            UsageError: the model cannot be sampled through that diffusion, or not with that K.
        """


def module_of(model: Model) -> object:
    """The module inside the adapter of the model's network, or the network itself if it has none."""
    network = model.network.network
    return getattr(network, "module", network)
