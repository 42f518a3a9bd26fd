"""State dicts of OpenAI's improved-diffusion (arXiv 2102.09672) and guided-diffusion (arXiv 2105.05233)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.checkpoints.formats.torch_outline import outline_of, tensor_shapes
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.models.conventions.schedules import DiscreteSchedule

Shapes = Mapping[str, tuple[int, ...]]
NAMES = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
"""Tensors that every U-Net of these programs has."""
RESCALED = 1000
"""With `rescale_timesteps`, the network's time is scaled to the range 0 to 1000, whatever the number of steps."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that the tensors do not determine, named as the flags of OpenAI's programs."""

    image_size: Annotated[int, about("Side of the images, in pixels.", ge=1, le=1024)] | None = None
    num_heads: Annotated[int, about("Number of attention heads.", ge=1, le=64)] | None = None
    num_heads_upsample: (
        Annotated[int, about("Number of attention heads on the upsampling path. Default: num_heads.", ge=1, le=64)]
        | None
    ) = None
    num_head_channels: Annotated[int, about("Channels per attention head (give this or num_heads).", ge=1, le=4096)] | (
        None
    ) = None
    use_new_attention_order: (
        Annotated[bool, about("Split channels into query, key and value first, then into heads. Default: false.")]
        | None
    ) = None
    noise_schedule: Annotated[Literal["linear", "cosine"], about("Noise schedule.")] | None = None
    diffusion_steps: Annotated[int, about("Number of steps in the noise schedule.", ge=2, le=100_000)] | None = None
    rescale_timesteps: (
        Annotated[bool, about("Scale the network's time to 0..1000, whatever the number of steps.")] | None
    ) = None
    predict_xstart: (
        Annotated[bool, about("The network predicts the clean image, not the noise. Default: false.")] | None
    ) = None


def detect(path: Path) -> bool:
    """Whether the file is a dictionary of tensors that includes all of `NAMES`."""
    return set(NAMES) <= set(tensor_shapes(outline_of(path)))


def read(path: Path) -> Contents:
    """The tensors, under their names in the file."""
    from gddim_cli.checkpoints.formats import torch_pickle

    return Contents(torch_pickle.read_state_dict(path))


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card of a model that was trained on a discrete noise schedule, and the tensors under their original names.

    The model predicts the noise or, with `predict_xstart`, the clean image.

    Raises:
        CheckpointError: the tensors are not those of a U-Net of OpenAI's programs.
        UsageError: a required setting is missing, or the noise schedule has too few steps.
    """
    from gddim_cli.checkpoints.card import Card, Images, Sampling

    options: Options = conversion.options
    require(conversion, ("image_size", "num_heads", "noise_schedule", "diffusion_steps"))
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    network = {**infer(shapes, conversion.path, options.image_size or 0), **heads(conversion)}
    schedule = schedule_of(conversion)
    card = Card(
        name=conversion.name,
        title=f"{conversion.path.name}: U-Net of OpenAI's programs, {options.noise_schedule} schedule",
        images=Images(network["in_channels"], network["image_size"]),
        network={"kind": "openai-unet", **network},
        parameterization="x0" if options.predict_xstart else "vp_eps",
        convention={"schedule": msgspec.to_builtins(schedule)},
        labels=network.get("num_classes", 0),
        noise_range=schedule.sigma_range,
        diffusion={"name": "vp-cosine" if options.noise_schedule == "cosine" else "vp"},
        sampling=Sampling(quantize="floor"),
    )
    return card, contents.tensors


def require(conversion: Conversion, names: tuple[str, ...]) -> None:
    """Refuses a conversion for which the user did not give all of these settings.

    Raises:
        UsageError: settings are missing; the message names all of them.
    """
    options = conversion.options
    given = {name for name in options.__struct_fields__ if getattr(options, name) is not None}
    given |= {"num_heads"} if "num_head_channels" in given else set()
    missing = [name for name in names if name not in given]
    if missing:
        shown = ", ".join("num_heads (or num_head_channels)" if name == "num_heads" else name for name in missing)
        raise UsageError(
            f"{conversion.path}: the tensors do not determine {shown}; pass the values used in training as --set "
            "NAME=VALUE, either to every gddim sample or once to gddim convert"
        )


def heads(conversion: Conversion) -> dict[str, Any]:
    """The network's arguments that concern attention heads."""
    options: Options = conversion.options
    if options.use_new_attention_order is None:
        conversion.say(
            "use_new_attention_order=false is assumed, because the tensors do not determine it; change it with "
            "--set use_new_attention_order=true"
        )
    names = ("num_heads", "num_heads_upsample", "num_head_channels")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {**given, "use_new_attention_order": bool(options.use_new_attention_order)}


def schedule_of(conversion: Conversion) -> DiscreteSchedule:
    """The noise schedule, and the time passed to the network at each of its steps.

    Raises:
        UsageError: `rescale_timesteps` is missing and the number of steps is not 1000; or a linear schedule has too few
            steps.
    """
    from gddim_cli.models.conventions.schedules import DiscreteSchedule

    options: Options = conversion.options
    steps = options.diffusion_steps or RESCALED
    if steps != RESCALED:
        require(conversion, ("rescale_timesteps",))
    scale = RESCALED / steps if options.rescale_timesteps else 1.0
    if options.noise_schedule == "cosine":
        return DiscreteSchedule("cosine", steps=steps, time_scale=scale)
    # The programs scale the betas by 1000 / steps, so that the continuous-time schedule (beta from 0.1 to 20) does not
    # depend on the number of steps.
    start, end = 1e-4 * RESCALED / steps, 0.02 * RESCALED / steps
    if end >= 1:
        raise UsageError(f"{conversion.path}: diffusion_steps={steps} is too few for the linear schedule")
    return DiscreteSchedule("linear", steps=steps, beta_start=start, beta_end=end, time_scale=scale)


def infer(shapes: Shapes, path: Path, image_size: int) -> dict[str, Any]:
    """The network's arguments that follow from the shapes of its tensors and the image size.

    The levels are read off the upsampling path, where every level except the last ends with a layer that doubles the
    resolution. On this path, each level has one more block than on the downsampling path.

    Raises:
        CheckpointError: no U-Net of OpenAI's programs has these tensors.
    """
    try:
        blocks = up_blocks(shapes)
        levels, per_level = count_levels(blocks)
        base = shapes["time_embed.0.weight"][1]
        lowest_first = [shapes[f"output_blocks.{i * per_level}.0.out_layers.3.weight"][0] for i in range(levels)]
        multiples = [width / base for width in reversed(lowest_first)]
        attention = [level for level in range(levels) if "attention" in blocks[(levels - 1 - level) * per_level]]
        width = shapes["input_blocks.1.0.out_layers.3.weight"][0]
        return {
            "image_size": image_size,
            "in_channels": shapes["input_blocks.0.0.weight"][1],
            "out_channels": shapes["out.2.weight"][0],
            "num_channels": base,
            "num_res_blocks": per_level - 1,
            "channel_mult": [int(multiple) if multiple == int(multiple) else multiple for multiple in multiples],
            "attention_resolutions": [image_size >> level for level in attention],
            "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else 0,
            "use_scale_shift_norm": shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * width,
            "resblock_updown": any("block" in layers for layers in blocks),
        }
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path}: its tensors are not those of a U-Net of OpenAI's programs; is the file complete?"
        ) from error


def count_levels(blocks: list[set[str]]) -> tuple[int, int]:
    """The number of levels, and the number of blocks per level on the upsampling path.

    Raises:
        ValueError: the levels have different numbers of blocks.
    """
    ends = [i for i, layers in enumerate(blocks) if "up" in layers]
    levels = len(ends) + 1
    per_level, rest = divmod(len(blocks), levels)
    if rest or per_level < 2 or ends != [(i + 1) * per_level - 1 for i in range(levels - 1)]:
        raise ValueError("levels")
    return levels, per_level


def up_blocks(shapes: Shapes) -> list[set[str]]:
    """For each entry of `output_blocks`, the kinds of layers after its first residual block.

    The kinds are `attention` and `up` (upsampling). `block` is added if a residual block does the upsampling.

    Raises:
        ValueError: the entries are not numbered 0, 1, 2, ...
    """
    found: dict[int, set[str]] = {}
    for name in shapes:
        match = re.fullmatch(r"output_blocks\.(\d{1,4})\.(\d)\.(qkv|conv|in_layers\.2)\.weight", name)
        if match:
            layers = found.setdefault(int(match[1]), set())
            if match[3] == "qkv":
                layers.add("attention")
            elif match[2] != "0":
                layers |= {"up"} if match[3] == "conv" else {"up", "block"}
    if sorted(found) != list(range(len(found))):
        raise ValueError("blocks")
    return [found[i] for i in range(len(found))]


SPEC = FormatSpec(
    "openai", "state dict of OpenAI's improved-diffusion or guided-diffusion", detect, read, convert, options=Options
)
