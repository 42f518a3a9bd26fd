"""Training states of torchcfm (Tong et al., arXiv 2302.00482): conditional flow matching with OpenAI's U-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from gddim_cli.checkpoints.formats import openai
from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.checkpoints.formats.torch_outline import outline_of, tensor_shapes
from gddim_cli.errors import UsageError
from gddim_cli.settings import about

AVERAGE = "ema_model"
KNOWN = (0.001, 999.0)
"""The range of noise levels (1 - t) / t, for t from 0.999 to 0.001. At t = 0 the level would be infinite."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that the tensors do not determine, named as the flags of torchcfm's program."""

    model: (
        Annotated[
            Literal["icfm", "fm", "otcfm", "si"],
            about("Flow matcher used in training. Only icfm and fm are supported."),
        ]
        | None
    ) = None
    image_size: Annotated[int, about("Side of the images, in pixels. Default: 32.", ge=1, le=1024)] | None = None
    num_heads: (
        Annotated[int, about("Number of attention heads (give this or num_head_channels).", ge=1, le=64)] | None
    ) = None
    num_head_channels: Annotated[int, about("Channels per attention head. Default: 64.", ge=1, le=4096)] | None = None


def detect(path: Path) -> bool:
    """Whether the file is a training state whose averaged network is OpenAI's U-Net."""
    state = outline_of(path)
    return isinstance(state, dict) and set(openai.NAMES) <= set(tensor_shapes(state.get(AVERAGE)))


def read(path: Path) -> Contents:
    """The averaged weights by name."""
    from gddim_cli.checkpoints.formats import torch_pickle

    return Contents(torch_pickle.read_state_dict(path, AVERAGE))


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card of a model that predicts the velocity along straight paths, and the tensors under their original names.

    Raises:
        CheckpointError: the tensors are not those of OpenAI's U-Net.
        UsageError: the flow matcher is not given or not supported.
    """
    from gddim_cli.checkpoints.card import Card, Images, Sampling

    options: Options = conversion.options
    openai.require(conversion, ("model",))
    if options.model in ("otcfm", "si"):
        reason = (
            "matches each image with noise close to it, so the noise added to a given image is not isotropic"
            if options.model == "otcfm"
            else "follows curved paths"
        )
        raise UsageError(
            f"{conversion.path}: model={options.model} {reason}; only models trained with icfm or fm can be sampled"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    heads = {"num_heads": options.num_heads} if options.num_heads else {}
    heads = heads or {"num_head_channels": options.num_head_channels or 64}
    network = {**openai.infer(shapes, conversion.path, options.image_size or 32), **heads}
    card = Card(
        name=conversion.name,
        title=f"{conversion.path.name}: flow matching ({options.model}) of torchcfm",
        images=Images(network["in_channels"], network["image_size"]),
        network={"kind": "openai-unet", **network},
        parameterization="flow",
        labels=network.get("num_classes", 0),
        noise_range=KNOWN,
        diffusion={"name": "ve", "sigma_min": 0.01, "sigma_max": 80.0},
        sampling=Sampling(quantize="floor"),
    )
    return card, contents.tensors


SPEC = FormatSpec("torchcfm", "training state of torchcfm", detect, read, convert, options=Options)
