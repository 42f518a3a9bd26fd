"""`UNet2DModel` of the diffusers library, for checkpoints in its format. Needs the extra `gddim[diffusers]`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, Literal

import msgspec
from torch import Tensor, nn

from gddim_cli.models.networks.base import Interface, NetworkSpec, split_condition
from gddim_cli.models.networks.ranges import Channels, Classes, Count, Side, Width

EXTRA = "this needs the package diffusers; install it with: pip install 'gddim[diffusers]'"


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` with the interface of the other networks.

    Args:
        config: the library's configuration, as in `config.json`.

    Raises:
        ValueError: the library is not installed, or rejects the configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        try:
            library = quiet_diffusers()
        except ImportError as error:
            raise ValueError(EXTRA) from error
        with quiet():
            self.unet = library.UNet2DModel.from_config(config)
        self.classes = config.get("num_class_embeds") or 0
        if self.classes:
            self.unet.class_embedding = OneHotEmbedding(self.classes, self.unet.class_embedding.embedding_dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The prediction, [N, out_channels, H, W], for images x [N, in_channels, H, W].

        Args:
            condition: the time step, [N], or [N, 1 + classes] with one-hot class columns.
        """
        time, classes = split_condition(condition, self.classes)
        return self.unet(x, time, class_labels=classes if self.classes else None, return_dict=False)[0]


def quiet_diffusers() -> Any:
    """The library diffusers, without its progress bars.

    Raises:
        ImportError: the library is not installed.
    """
    with quiet():
        library: Any = import_module("diffusers")
    library.utils.logging.disable_progress_bar()
    return library


@contextmanager
def quiet() -> Iterator[None]:
    """A context that keeps the library's messages off stderr."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class OneHotEmbedding(nn.Embedding):
    """An embedding layer that takes one-hot columns instead of indices."""

    def forward(self, columns: Tensor) -> Tensor:
        """Maps one-hot columns [N, classes] to embeddings [N, width]."""
        return columns @ self.weight.to(columns.dtype)


class Bounded(msgspec.Struct, frozen=True):
    """The checked part of a configuration: sizes, with their ranges, and values that the library does not check."""

    sample_size: Side
    in_channels: Channels = 3
    out_channels: Channels = 3
    block_out_channels: Annotated[list[Width], msgspec.Meta(min_length=1, max_length=10)] = []
    layers_per_block: Count = 2
    attention_head_dim: Width | None = None
    norm_num_groups: Width | None = None
    time_embedding_type: Literal["positional", "fourier", "learned"] = "positional"
    time_embedding_dim: Width | None = None
    num_class_embeds: Classes | None = None
    down_block_types: Annotated[list[str], msgspec.Meta(max_length=10)] = []
    up_block_types: Annotated[list[str], msgspec.Meta(max_length=10)] = []

    def __post_init__(self) -> None:
        for name in ("down_block_types", "up_block_types"):
            if len(getattr(self, name)) != len(self.block_out_channels):
                raise ValueError(f"{name} and block_out_channels have different lengths")


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of `DiffusersUNet`."""

    config: dict[str, Any]

    def __post_init__(self) -> None:
        msgspec.convert(self.config, Bounded)

    def interface(self) -> Interface:
        """The network's interface."""
        found = msgspec.convert(self.config, Bounded)
        return Interface(found.in_channels, found.out_channels, found.sample_size, found.num_class_embeds or 0)


SPEC = NetworkSpec("diffusers-unet2d", "UNet2DModel of diffusers", Arguments, DiffusersUNet, Arguments.interface)
