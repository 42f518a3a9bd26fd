"""The Python interface to sampling and evaluation, for models, diffusions and images in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.errors import UsageError
from gddim_cli.evaluation.evaluator import under_protocol
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.factory import EvaluatorFactory
from gddim_cli.hub.load import load
from gddim_cli.images.arrays import checked_images
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.images.sources import ImageSource
from gddim_cli.models.acceleration import Speed
from gddim_cli.models.model import Model, module_of
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.runs.images import open_images
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest, sampling_settings, with_preset
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.memory import memory_for
from gddim_cli.runtime.rounding import rounding
from gddim_cli.samplers.coefficients import Coefficients

BATCH_SIZE = 64


def load_model(reference: str = "mnist", device: str = "auto", dtype: str = "float32", **settings: Any) -> Model:
    """Loads a checkpoint by name or path, ready for sampling.

    Args:
        reference: a name that `gddim checkpoints` lists, the path of a file, or FILE.py:FUNCTION.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: precision of the network: `float32`, `float64`, `bfloat16` or `float16`.
        settings: for a file of another program, the settings that the file does not record, by their names in that
            program. For FILE.py:FUNCTION, the arguments of the function.

    Raises:
        CheckpointError: the checkpoint is unknown, not on this machine, or damaged.
        UsageError: the device or the precision is not available.
    """
    kind = sampling_settings()["dtype"].check(dtype, "dtype")
    where = find_device(device)
    return load(reference, where, Speed(getattr(torch, kind)).on(where), **settings)


@overload
def sample(
    model: Model | str = ...,
    nfe: int = ...,
    num: int = ...,
    seed: int = ...,
    diffusion: str | Diffusion | None = ...,
    sampler: str | None = ...,
    *,
    batch_size: int = ...,
    device: str | None = ...,
    return_states: Literal[False] = ...,
    **settings: Any,
) -> Pixels: ...
@overload
def sample(
    model: Model | str = ..., nfe: int = ..., num: int = ..., *, return_states: Literal[True], **settings: Any
) -> tuple[Pixels, NDArray[np.floating]]: ...
def sample(
    model: Model | str = "mnist",
    nfe: int = 50,
    num: int = 64,
    seed: int = 0,
    diffusion: str | Diffusion | None = None,
    sampler: str | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    return_states: bool = False,
    **settings: Any,
) -> Pixels | tuple[Pixels, NDArray[np.floating]]:
    """Draws the same images, bit for bit, as `gddim sample` with the same settings.

    Args:
        model: from `load_model`, a `Denoiser`, or a checkpoint's name.
        nfe: network evaluations per image, including that of the denoising step.
        num: number of images.
        seed: the initial noise of image i is determined by (seed, i).
        diffusion: a name, a file or a `Diffusion` object; by default the model's own diffusion.
        sampler: a name that `gddim samplers` lists; by default `gddim`, or `tuned` if `solver` is given.
        batch_size: images per batch. It affects the speed. The images change only by rounding, except with `rk45`,
            which chooses its steps per batch.
        device: by default the device of the model's network, or `auto` if the model is given by name.
        return_states: also return the final states, [N, D, C, H, W], before quantization.
        settings: the sampler's options and the other settings of `SamplingRequest`, such as `order`, `lam` (lambda),
            `eta`, `corrector`, `solver` (a file that `gddim tune` wrote, or "auto"), `k`, `denoise`, `time_grid`,
            `t_end`, `quantize` and `classes` (a number, a list, "uniform" or "all"). `preset="paper"` selects the
            scheme of the gDDIM paper.

    Returns:
        The images, uint8 [N, H, W, C]; with `return_states`, also the states.

    Raises:
        UsageError: a setting that is unknown, outside its range, or unsupported by the sampler, diffusion or model.
        NumericsError: the images are not finite.
    """
    if num < 1 or batch_size < 1:
        raise UsageError(f"num {num}, batch_size {batch_size}: expected at least 1")
    prepared = prepared_run(
        model, device, diffusion, {"nfe": nfe, "seed": seed, "sampler": sampler, **settings}, batch_size=batch_size
    )
    images, states = [], []
    for indices in prepared.batches(range(num), batch_size, num):
        with memory_for(len(indices), prepared.device):
            u = prepared.run(indices)[: num - indices.start]
        images.append(quantize(prepared.images(u), prepared.config.quantize))
        if return_states:
            states.append(u.cpu().numpy())
    made = np.concatenate(images)
    return (made, np.concatenate(states)) if return_states else made


class Sampler:
    """Runs a sampler step by step.

        for t, state, denoised in Sampler(model, nfe=20, num=4):
            ...

    Each loop over a `Sampler` starts again from the initial noise. Each step yields:
        t: the time after the step; 0 after the denoising step.
        state: the states at time t, [N, D, C, H, W].
        denoised: the clean images, [N, C, H, W], as estimated from the step's last network evaluation.

    Attributes:
        request: the resolved settings.
        coefficients: the times t, the matrices Psi and C, and those of the denoising step, in float64; None if the
            sampler is not a linear multistep method.
    """

    def __init__(
        self,
        model: Model | str = "mnist",
        nfe: int = 50,
        num: int = 1,
        seed: int = 0,
        diffusion: str | Diffusion | None = None,
        sampler: str | None = None,
        *,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        """Takes the arguments of `sample` except `batch_size` and `return_states`, and raises the same errors."""
        given = {"nfe": nfe, "seed": seed, "sampler": sampler, **settings}
        self._prepared = prepared_run(model, device, diffusion, given, batch_size=num)
        self.num = num

    @property
    def request(self) -> SamplingRequest:
        return self._prepared.request

    @property
    def coefficients(self) -> Coefficients | None:
        return self._prepared.sampler.coefficients

    @torch.inference_mode()
    def __iter__(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        prepared = self._prepared
        seen: list[tuple[float, Tensor, Tensor]] = []

        def eps(u: Tensor, t: float) -> Tensor:
            prediction = model_eps(u, t)
            seen[:] = [(t, u, prediction)]
            return prediction

        model_eps = prepared.eps_of(range(self.num))
        for t, u in prepared.steps(range(self.num), eps):
            yield t, u, denoised(prepared, *seen[0])


@rounding(tf32=False)
def denoised(prepared: PreparedRun, t: float, u: Tensor, eps: Tensor) -> Tensor:
    """The estimate of the clean images x_0, [N, C, H, W], from states u and their noise prediction eps.

    The first component of `u - K_t eps` is taken to be `Psi(t, 0)[0, 0] x_0`.
    """
    diffusion = prepared.diffusion
    residual = u - combine([to_tensor_like(diffusion.K(t, prepared.config.k), u)], [eps])
    psi = to_tensor_like(diffusion.Psi(t, 0.0)[..., 0, 0], u)
    return prepared.decode(residual / psi)


def prepared_run(
    model: Model | str,
    device: str | None,
    diffusion: str | Diffusion | None,
    given: dict[str, Any],
    batch_size: int,
) -> PreparedRun:
    """Prepares the run that keyword arguments describe.

    Raises:
        UsageError: an unknown setting or value.
    """
    keys = {setting.name: key for key, setting in sampling_settings().items()}
    values = {keys.get(name, name): value for name, value in given.items() if name != "preset"}
    classes = values.get("class")
    if classes is not None and not isinstance(classes, str):
        values["class"] = ",".join(map(str, np.atleast_1d(classes)))
    named = {"diffusion": diffusion} if isinstance(diffusion, str) else {}
    chosen = {"checkpoint": model} if isinstance(model, str) else {}
    where = {key: name for name, key in keys.items()} | {name: name for name in given if name not in keys}
    request = SamplingRequest.of(with_preset({**values, **named, **chosen}, given.get("preset")), where)
    place = find_device(device) if device or isinstance(model, str) else device_of(model)
    return prepare(
        request,
        place,
        model=None if isinstance(model, str) else model,
        diffusion=None if isinstance(diffusion, str) else diffusion,
        batch_size=batch_size,
    )


def device_of(model: Model) -> torch.device:
    """The device of a model's network; the CPU for a network without parameters."""
    module = module_of(model)
    parameters = module.parameters() if isinstance(module, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


@dataclass(frozen=True)
class Score:
    """The value of a metric, and everything that the value depends on.

    Attributes:
        metric: the metric's name in tables, such as `FID` or `FD(lenet-mnist)@64`.
        value: the main number of the metric, which tables print.
        values: all numbers of the metric by name; the main number is called `value`.
        n: number of images measured.
        depends_on: the settings that must be equal for two values to be comparable.
    """

    metric: str
    value: float
    values: dict[str, float]
    n: int
    depends_on: dict[str, Any]

    def __float__(self) -> float:
        return self.value


def fid(
    images: NDArray[np.uint8] | str | Path,
    ref: str | None = None,
    *,
    metric: str = "fid",
    mode: str | None = None,
    protocol: str | None = None,
    inception: str | Path | None = None,
    features: str | None = None,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
) -> Score:
    """Measures images against a reference.

    Args:
        images: an array, uint8 [N, H, W, C] or [N, H, W], or the path of a folder, an archive or an output folder of
            `gddim sample`.
        ref: a named reference such as `mnist`, a statistics file that `gddim fid stats` wrote, or other images.
            Default: `mnist` or `cifar10`, by the images' shape.
        metric: the name of a metric. Options may follow the name, as in `prdc:k=3`.
        mode, protocol, inception, features: as in `gddim fid`.

    Raises:
        DataError: the images cannot be used, or a needed file is not on this machine (the message says how to get it).
        UsageError: an unknown metric, reference, protocol or mode.
    """
    source = open_images(Path(images)) if isinstance(images, str | Path) else None
    array = None if source else checked_images(images)
    shape = source.shape if source else array.shape[1:]  # type: ignore[union-attr]
    file = Path(inception) if inception else None

    def features_of(images: ImageSource, extractor: Extractor) -> NDArray[np.float32]:
        return np.concatenate([extractor(batch) for batch in images.batches(batch_size)])

    factory = EvaluatorFactory(find_device(device), shape, protocol, mode, file, features, features_of)
    evaluator = factory.open(metric, ref)
    if source:
        source = under_protocol(source, evaluator)
    batches = source.batches(batch_size) if source else np.array_split(array, -(-len(array) // batch_size))  # type: ignore[arg-type]
    found = np.concatenate([evaluator.extractor(batch) for batch in batches])
    values = evaluator.evaluate(found)
    return Score(evaluator.label(len(found)), values["value"], values, len(found), evaluator.identity())
