"""Turns a request into a `PreparedRun`: finds its checkpoint, diffusion and sampler, and checks all settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli.diffusions.base import Diffusion, SamplingConfig, check_times
from gddim_cli.diffusions.parameters import parameters_of
from gddim_cli.diffusions.registry import find_diffusion, make_diffusion
from gddim_cli.errors import CheckpointError, DataError, UsageError
from gddim_cli.hub.load import load
from gddim_cli.hub.store import default_name
from gddim_cli.models.acceleration import Speed
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.models.guidance import EVALUATIONS
from gddim_cli.models.model import Model
from gddim_cli.runs.labels import check_classes, check_guidance
from gddim_cli.runs.noise_range import start_factor, within_range
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest, refuse_unused
from gddim_cli.runs.solvers import fitted_sampler
from gddim_cli.runtime.arrays import read_array
from gddim_cli.runtime.files import sha256
from gddim_cli.samplers.base import Eps, SamplerSpec
from gddim_cli.samplers.gddim import FEW, GddimOptions
from gddim_cli.samplers.registry import find_sampler
from gddim_cli.samplers.tuned import SPEC as TUNED
from gddim_cli.samplers.tuned import TunedOptions
from gddim_cli.samplers.user_file import checked
from gddim_cli.settings import values


def prepare(
    request: SamplingRequest,
    device: torch.device,
    *,
    model: Model | None = None,
    diffusion: Diffusion | None = None,
    initial: NDArray[np.floating] | None = None,
    compile: bool = False,
    cuda_graph: bool = False,
    batch_size: int = 64,
    say: Callable[[str], object] = lambda _: None,
) -> PreparedRun:
    """The prepared run of a request, with all settings checked before any image is computed.

    Args:
        request: may already be resolved; its `checkpoint_sha256` must then match the model.
        device: where the network runs.
        model: a model that is already loaded; by default the request's checkpoint is loaded.
        diffusion: used instead of the diffusion that the request names.
        initial: states u_T [N, D, C, H, W], used instead of the request's `init_noise` file.
        compile, cuda_graph: whether to compile the network, and whether to run it as a CUDA graph. Both have no effect on
            a given `model`.
        say: called with each assumption made when a checkpoint of another program is converted.
        batch_size: recorded in the resolved request if the images of a batch depend on each other.

    Raises:
        UsageError: settings that contradict each other, or that the model, sampler or device does not support.
        CheckpointError: the checkpoint is unknown, not on this machine, or damaged.
        DataError: a diffusion file or the initial states cannot be used.
    """
    refuse_unused(request)
    model = model or load_model(request, device, compile, cuda_graph, say)
    if request.checkpoint_sha256 and request.checkpoint_sha256 != model.sha256:
        raise CheckpointError(
            f"{model.name}: sha256 {model.sha256[:16]}... is not the requested {request.checkpoint_sha256[:16]}..."
        )
    chosen, config = choose_diffusion(request, model, diffusion)
    prior_time, spec = config.t_start, find_sampler(request.sampler)
    guidance = check_guidance(request.guidance, model.classes, model.name, request.nfe)
    each = 1 if guidance is None else EVALUATIONS
    budget = request.nfe // each  # In predictions. With guidance, a prediction takes two evaluations.
    config, options, eps = configured(request, spec, model, chosen, config, budget)
    config, notes = within_range(chosen, config, model.sigma_range_in(chosen))
    diffusion_sha256 = sha256_of_python(request.diffusion) or request.diffusion_sha256
    if isinstance(options, TunedOptions):
        if guidance is not None:
            raise UsageError(f"--guidance: unsupported by {spec.name}, because solvers are fitted without guidance")
        sampler = fitted_sampler(options, model, request.checkpoint, chosen, diffusion_sha256, config, request.nfe)
    else:
        sampler = checked(spec, lambda: spec.prepare(chosen, config, budget - config.denoise, options))
        sampler = dataclasses.replace(sampler, nfe=sampler.nfe and each * sampler.nfe)
    if initial is None and request.init_noise:
        initial = read_states(Path(request.init_noise), chosen.D, model.image_shape)
    resolved = SamplingRequest(
        checkpoint=model.name,
        checkpoint_sha256=model.sha256,
        diffusion=chosen.name,
        parameters=parameters_of(chosen),
        diffusion_sha256=diffusion_sha256,
        classes=check_classes(request.classes, model.classes, model.name),
        guidance=guidance,
        sampler=spec.name,
        sampler_sha256=sha256_of_python(request.sampler) or request.sampler_sha256,
        nfe=request.nfe,
        seed=request.seed,
        options=values(sampler.options),
        k=config.k,
        denoise=config.denoise,
        time_grid=config.grid_power if spec is not TUNED else None,
        t_start=config.t_start,
        t_end=config.t_end,
        quantize=config.quantize,
        dtype=request.dtype,
        tf32=request.tf32,
        init_noise_sha256=sha256(Path(request.init_noise)) if request.init_noise else request.init_noise_sha256,
        batch_size=batch_size if sampler.batch_dependent else None,
    )
    factor = start_factor(chosen, config.t_start, prior_time)
    if initial is not None and request.init_noise and not chosen.spectral:
        notes += scale_notes(initial, np.asarray(factor))
    return PreparedRun(resolved, model, chosen, config, sampler, eps, device, factor, initial, notes)


def default_scheme(
    request: SamplingRequest, options: GddimOptions, k: str, isotropic: bool, budget: int
) -> GddimOptions:
    """gDDIM's options with the default for `predict`, which depends on the request.

    The default is x0 if all of the following hold, and otherwise eps, as in the paper. With x0, the sampler also chooses
    another time grid.

    - There are at most `FEW` predictions per image.
    - The model is an isotropic denoiser, and K is R.
    - The request does not set `predict`, the order, lambda, the corrector or the time grid.

    Args:
        k: the K of the noise prediction.
        isotropic: whether the model is an isotropic denoiser. The choice of x0 has been tested on these only.
        budget: the largest number of predictions per image.
    """
    given = {"predict", "order", "lambda", "corrector"} & request.options.keys()
    own = given or request.time_grid is not None or k == "L" or budget > FEW or not isotropic
    return options if own else msgspec.structs.replace(options, predict="x0")


def load_model(
    request: SamplingRequest,
    device: torch.device,
    compile: bool = False,
    cuda_graph: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Model:
    """The request's checkpoint, or the default one, ready to run in the request's precision.

    Raises:
        UsageError: the device does not support the precision or the options.
        CheckpointError: the checkpoint is unknown, not on this machine, or damaged.
    """
    if request.dtype == "float64" and device.type == "mps":
        raise UsageError("--dtype float64: unsupported by Apple GPUs; use --device cpu")
    speed = Speed(getattr(torch, request.dtype), tf32=request.tf32, compile=compile, cuda_graph=cuda_graph)
    return load(request.checkpoint or default_name()[0], device, speed.on(device), say=say, **request.model_settings)


def choose_diffusion(
    request: SamplingRequest, model: Model, given: Diffusion | None
) -> tuple[Diffusion, SamplingConfig]:
    """The model's own diffusion with the model's configuration, or another diffusion with its default configuration.

    Raises:
        UsageError: an unknown diffusion or parameter.
        DataError: a diffusion file cannot be used.
    """
    own = model.diffusion
    found = given or named_diffusion(request, own)
    if found == own:
        return own, model.config(own)
    # The conversion of images to uint8 belongs to the model, not to the diffusion.
    return found, dataclasses.replace(found.sampling, quantize=model.config(own).quantize)


def named_diffusion(request: SamplingRequest, own: Diffusion) -> Diffusion:
    """The diffusion that a request names; the model's own if it names none."""
    if request.diffusion is None or (request.diffusion == own.name and request.parameters is None):
        return own
    if request.parameters is not None:
        return make_diffusion(request.diffusion, request.parameters)
    return find_diffusion(request.diffusion)


def configured(
    request: SamplingRequest, spec: SamplerSpec, model: Model, diffusion: Diffusion, config: SamplingConfig, budget: int
) -> tuple[SamplingConfig, msgspec.Struct, Eps]:
    """The sampling configuration, the sampler's options, and the noise prediction of a request.

    Each setting is taken from the request, else from the sampler's defaults, else from `config`.

    Args:
        config: the configuration of the model or of the diffusion.
        budget: the largest number of predictions per image.

    Raises:
        UsageError: settings that contradict each other, or that the model or the sampler does not support.
    """
    given, options = given_config(request), request.sampler_options
    config = dataclasses.replace(config, **given)
    eps = model.eps(diffusion, config.k)
    if isinstance(options, GddimOptions):
        options = default_scheme(request, options, config.k, isinstance(eps, DenoiserEps), budget)
    config = dataclasses.replace(config, **{**spec.defaults(diffusion, config, budget, options), **given})
    check_times(diffusion, config)
    return config, options, eps


def given_config(request: SamplingRequest) -> dict[str, Any]:
    """The fields of `SamplingConfig` that the request sets."""
    fields = {
        "k": request.k,
        "denoise": request.denoise,
        "grid_power": request.time_grid,
        "t_start": request.t_start,
        "t_end": request.t_end,
        "quantize": request.quantize,
    }
    return {name: value for name, value in fields.items() if value is not None}


def sha256_of_python(reference: str | None) -> str | None:
    """The sha256 of a Python file that defines a diffusion or a sampler; None for anything else."""
    return sha256(Path(reference)) if reference and reference.endswith(".py") else None


ALIKE = 0.1
"""If the scale of initial states differs from that of the prior by at most this fraction, the user gets no note."""


def scale_notes(states: NDArray[np.floating], factor: NDArray[np.floating]) -> list[str]:
    """Notes, one for each component of the states u_T, [N, D, C, H, W], whose scale is wrong.

    The scale is the component's root mean square. It should be that of `factor z`, where z is standard normal.
    """
    found, expected = [], np.sqrt(np.square(factor).sum(axis=-1))
    for i, scale in enumerate(expected):
        numbers = np.asarray(states[:, i], dtype=np.float64)
        measured = float(np.sqrt(np.square(numbers).mean()))
        if abs(measured / scale - 1) > ALIKE + 4 / np.sqrt(2 * numbers.size):
            found.append(
                f"--init-noise: component {i} of the states has a standard deviation of {measured:.3g}; that of the prior is "
                f"{scale:.3g}"
            )
    return found


def read_states(path: Path, dimension: int, image_shape: tuple[int, int, int]) -> NDArray[np.floating]:
    """States u_T, [N, D, C, H, W], from an .npy of this shape, or of shape [N, C, H, W] if D is 1.

    Raises:
        DataError: the file is not an .npy, has another shape or dtype, or holds NaN, infinity or numbers beyond float32.
    """
    states = read_array(path, memory_map=True)
    needed = (dimension, *image_shape) if dimension > 1 else image_shape
    if states.shape[1:] != needed or not len(states):
        shape = ", ".join(map(str, needed))
        raise DataError(f"--init-noise: {path} holds {list(states.shape)}; [N, {shape}] is needed")
    if states.dtype.kind != "f" or states.dtype.itemsize > 8:
        raise DataError(f"--init-noise: {path} holds {states.dtype}; float32 or float64 is needed")
    if not np.isfinite(states).all():
        raise DataError(f"--init-noise: {path} holds NaN or infinity")
    largest = max(float(states.max()), -float(states.min()))
    if largest > float(np.finfo(np.float32).max):
        raise DataError(
            f"--init-noise: {path} holds numbers as large as {largest:.3g}, which float32 cannot hold; states of about the "
            "prior's scale are needed"
        )
    return states.reshape(len(states), dimension, *image_shape)
