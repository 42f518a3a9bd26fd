"""Folders of the diffusers library that contain a `UNet2DModel`. Needs the extra `gddim[diffusers]`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np

from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.errors import CheckpointError
from gddim_cli.runtime.files import read_plain, refuse_special
from gddim_cli.runtime.text import message_of, printable
from gddim_cli.runtime.typed_yaml import typed
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.models.conventions.schedules import DiscreteSchedule
    from gddim_cli.models.networks.diffusers_unet import Bounded

LARGEST_CONFIG = 1 << 20
LARGEST_SIGMA = 1e9
"""The largest noise level that a model card may state."""
UNET = "UNet2DModel"
DAMAGE = (
    OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, ImportError,
    pickle.UnpicklingError,
)  # fmt: skip
"""The exceptions that diffusers and torch raise for a damaged file or a wrong configuration."""
PREDICTIONS = {"epsilon": "vp_eps", "sample": "x0", "v_prediction": "v"}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's settings, named as in `scheduler_config.json`. They default to the values in that file."""

    beta_schedule: (
        Annotated[Literal["linear", "scaled_linear", "squaredcos_cap_v2"], about("Noise schedule.")] | None
    ) = None
    beta_start: Annotated[float, about("beta of the first step.", gt=0, lt=1)] | None = None
    beta_end: Annotated[float, about("beta of the last step.", gt=0, lt=1)] | None = None
    num_train_timesteps: Annotated[int, about("Number of steps in the noise schedule.", ge=2, le=100_000)] | None = None
    prediction_type: (
        Annotated[Literal["epsilon", "sample", "v_prediction"], about("What the network predicts.")] | None
    ) = None


class Scheduler(msgspec.Struct, frozen=True):
    """The values that are read from `scheduler_config.json`."""

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_train_timesteps: int = 1000
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    trained_betas: list[float] | None = None
    rescale_betas_zero_snr: bool = False


def detect(path: Path) -> bool:
    """Whether the path is a folder with the configuration of a UNet2DModel."""
    if not path.is_dir():
        return False
    try:
        return read_json(unet_folder(path) / "config.json").get("_class_name") == UNET
    except CheckpointError:
        return False


def unet_folder(path: Path) -> Path:
    """The network's folder: `unet/` of a pipeline, or the folder itself."""
    return path / "unet" if (path / "unet" / "config.json").is_file() else path


def read_json(path: Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        CheckpointError: the file is missing, too large, or not a JSON object.
    """
    try:
        found = msgspec.json.decode(read_plain(path, LARGEST_CONFIG))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON; fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: not a JSON object; fetch it again")
    return found


def read(path: Path) -> Contents:
    """The tensors under the library's names, and the configurations of the network and of the scheduler.

    The library renames the tensors of old files to its present names.

    Raises:
        CheckpointError: the library is missing, or the folder is incomplete or damaged.
    """
    from gddim_cli.models.networks.diffusers_unet import EXTRA, Bounded, quiet, quiet_diffusers

    folder = unet_folder(path)
    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    bounded = typed(config, Bounded, folder / "config.json", CheckpointError)
    try:
        library = quiet_diffusers()
    except ImportError as error:
        raise CheckpointError(f"{path}: {EXTRA}") from error
    try:
        for file in folder.iterdir():
            refuse_special(file)
        with quiet():  # again, because the import resets the level of the library's log
            unet, info = library.UNet2DModel.from_pretrained(
                str(folder), local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
            try_out(unet, bounded)
    except DAMAGE as error:
        reason = printable(message_of(error), 160)
        raise CheckpointError(f"{path}: diffusers cannot load its {UNET}: {reason}; fetch it again") from error
    if info["missing_keys"]:
        raise CheckpointError(
            f"{path}: tensor {printable(min(info['missing_keys']))} is missing; the folder is incomplete, fetch it again"
        )
    tensors = {f"unet.{name}": tensor.detach().float() for name, tensor in unet.state_dict().items()}
    schedulers = [path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"]
    scheduler = next((read_json(file) for file in schedulers if file.exists()), {})
    return Contents(tensors, {"config": config, "scheduler": scheduler})


def try_out(unet: Any, config: Bounded) -> None:
    """Evaluates a network once, on an image that is as small as its levels allow. A wrong configuration raises an error."""
    import torch

    side, halvings = config.sample_size, 2 ** (len(config.block_out_channels) - 1)
    side = min(side, side % halvings + 2 * halvings)  # Normalization needs more than one pixel at the lowest level.
    labels = torch.zeros(1, dtype=torch.int64) if config.num_class_embeds else None
    image = torch.zeros(1, config.in_channels, side, side)
    with torch.inference_mode():
        found = unet.eval()(image, torch.zeros(1), class_labels=labels, return_dict=False)[0]
    if found.shape != (1, config.out_channels, side, side):
        raise ValueError(f"its output has shape {list(found.shape)}")


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card of a model that was trained on a discrete noise schedule, and the tensors.

    Raises:
        CheckpointError: the scheduler is not supported, or a configuration is invalid.
    """
    from gddim_cli.checkpoints.card import Card, Images, Sampling
    from gddim_cli.models.networks.diffusers_unet import Arguments

    config, path = contents.facts["config"], conversion.path
    arguments = typed({"config": config}, Arguments, f"{path}: config.json", CheckpointError)
    interface = arguments.interface()
    scheduler = scheduler_of(contents.facts["scheduler"], conversion)
    schedule = schedule_of(scheduler, path)
    card = Card(
        name=conversion.name,
        title=f"{path.name}: {UNET} of diffusers, {scheduler.prediction_type}, {scheduler.beta_schedule} schedule",
        images=Images(interface.in_channels, interface.image_size),
        network={"kind": "diffusers-unet2d", "config": config},
        parameterization=PREDICTIONS[scheduler.prediction_type],
        convention={"schedule": msgspec.to_builtins(schedule)},
        labels=interface.classes,
        noise_range=schedule.sigma_range,
        diffusion={"name": "vp-cosine" if scheduler.beta_schedule == "squaredcos_cap_v2" else "vp"},
        sampling=Sampling(quantize="round"),
    )
    return card, contents.tensors


def scheduler_of(found: dict[str, Any], conversion: Conversion) -> Scheduler:
    """The settings of the folder's scheduler, except where the user gave other values.

    Raises:
        CheckpointError: a value is outside its range, or the scheduler does not add noise as DDPM does.
    """
    options, name = conversion.options, str(found.get("_class_name", "DDPMScheduler"))
    where = f"{conversion.path}: scheduler_config.json"
    if any(word in name for word in ("Sde", "Flow", "Karras", "CM")) or found.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"{where}: {printable(name)} is not supported; use a scheduler with DDPM's noise, such as DDIMScheduler, "
            "without rescale_betas_zero_snr"
        )
    for key in options.__struct_fields__:
        if key not in found and getattr(options, key) is None:
            default = getattr(Scheduler(), key)
            conversion.say(
                f"{key}={default} is assumed, because the folder does not record it; change it with --set {key}=..."
            )
    given = {key: getattr(options, key) for key in options.__struct_fields__ if getattr(options, key) is not None}
    return typed({**found, **given}, Scheduler, where, CheckpointError)


def schedule_of(scheduler: Scheduler, path: Path) -> DiscreteSchedule:
    """The scheduler's noise schedule.

    Raises:
        CheckpointError: the betas do not form a noise schedule.
    """
    from gddim_cli.models.conventions.schedules import DiscreteSchedule

    betas: Any = scheduler.trained_betas or SCHEDULES[scheduler.beta_schedule]
    steps = len(scheduler.trained_betas) if scheduler.trained_betas else scheduler.num_train_timesteps
    raw = {"kind": "discrete", "betas": betas, "steps": steps}
    raw |= {"beta_start": scheduler.beta_start, "beta_end": scheduler.beta_end}
    found = typed(raw, DiscreteSchedule, f"{path}: scheduler_config.json", CheckpointError)
    with np.errstate(all="ignore"):
        low, high = found.sigma_range
    if not 0 < low < high <= LARGEST_SIGMA:
        raise CheckpointError(
            f"{path}: scheduler_config.json: its noise levels run from {low:g} to {high:g}; the betas cannot be right, fetch "
            "the file again"
        )
    return found


SPEC = FormatSpec("diffusers", "diffusers folder with a UNet2DModel", detect, read, convert, options=Options)
