"""A prepared request: makes images by index, in any order and in any batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.errors import DataError
from gddim_cli.models.acceleration import Accelerated
from gddim_cli.models.guidance import guided
from gddim_cli.models.model import Model
from gddim_cli.numerics.blocks import combine, to_device, to_tensor_like
from gddim_cli.numerics.dct import idct
from gddim_cli.numerics.noise import standard_normal
from gddim_cli.numerics.quadrature import Array
from gddim_cli.runs.labels import labels_of
from gddim_cli.runs.noise_range import sigma_eff
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.rounding import rounding, without_tf32
from gddim_cli.runtime.tensors import is_real, unlike_dense
from gddim_cli.samplers.base import Eps, PreparedSampler, Step
from gddim_cli.samplers.multistep import final_state

PILOT = 4
"""The number of images on which the tolerance of an adaptive sampler is calibrated."""
MOST_STEPS = 2000
"""A sampler that takes 20 times as many steps as it has announced, and more than this number, is stopped."""
FIRST_STREAM = 1
"""The noise stream of a stochastic sampler's first draw. Stream 0 is for draws from the prior."""


@dataclass
class PreparedRun:
    """A request with its model, diffusion and sampler, as `prepare` returns it.

    Attributes:
        request: the resolved request.
        model: the network and its description.
        diffusion: the diffusion to sample through.
        config: time range, K, denoising step, quantization.
        sampler: the sampler, prepared for the request's NFE.
        eps: the model's noise prediction, without class labels.
        device: where the network runs; noise is drawn on the CPU.
        start_factor: `S` with `u_{t_start} = S z`, `z ~ N(0, I)`, [D, D].
        initial: states u_T that replace draws from the prior, [N, D, C, H, W], or None.
        notes: sentences for the user about how the request was resolved.
        evaluations: network evaluations per image of the last batch, counted during the run.
        around: takes the number of images and returns a context that times and counts a prediction; or None.
    """

    request: SamplingRequest
    model: Model
    diffusion: Diffusion
    config: SamplingConfig
    sampler: PreparedSampler
    eps: Eps
    device: torch.device
    start_factor: Array
    initial: NDArray[np.floating] | None = None
    notes: Sequence[str] = ()
    evaluations: int = 0
    around: Callable[[int], AbstractContextManager[object]] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states: float64 for a float64 network, else float32."""
        return torch.float64 if self.request.dtype == "float64" else torch.float32

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of one state, (D, C, H, W)."""
        return self.diffusion.D, *self.model.image_shape

    @property
    def noise_levels(self) -> tuple[float, float] | None:
        """The noise levels of an isotropic denoiser at t_start and t_end; None for other models."""
        if self.diffusion.spectral or self.model.sigma_range_in(self.diffusion) is None:
            return None
        start, end = (sigma_eff(self.diffusion, t) for t in (self.config.t_start, self.config.t_end))
        return float(f"{start:.6g}"), float(f"{end:.6g}")

    def normal(self, indices: Sequence[int], stream: int) -> Tensor:
        """Independent draws from N(0, I) for these images, [B, D, C, H, W]."""
        return self._moved(standard_normal(self.request.seed, indices, self.state_shape, stream))

    @rounding(tf32=False)
    def start(self, indices: Sequence[int]) -> Tensor:
        """The first states of these images, [B, D, C, H, W]: `start_factor z`, or those in `initial`."""
        if self.initial is not None:
            return self._moved(self.initial[list(indices)])
        z = self.normal(indices, 0)
        return combine([to_tensor_like(self.start_factor, z)], [z])

    @torch.inference_mode()
    @rounding(tf32=False)
    def calibrate(self) -> None:
        """Calibrates an adaptive sampler's tolerance on the run's first images; does nothing for other samplers."""
        if self.sampler.calibrate_tolerance:
            pilot = self.start(range(PILOT if self.initial is None else 1))
            self.sampler = self.sampler.calibrate_tolerance(self.eps_of(range(len(pilot))), pilot)

    def expected(self, tolerance: float | None) -> tuple[int, int]:
        """Estimates the network evaluations per image, and the total number for calibrating an adaptive sampler.

        Args:
            tolerance: the tolerance, if it has already been calibrated.
        """
        each, pilot = self.sampler.expected or (self.request.nfe, 0)
        return each, 0 if tolerance else PILOT * pilot

    def use_tolerance(self, tolerance: float | None) -> None:
        """Sets a tolerance that was calibrated earlier."""
        if tolerance and self.sampler.with_tolerance:
            self.sampler = self.sampler.with_tolerance(tolerance)

    def steps(self, indices: Sequence[int], eps: Eps | None = None) -> Iterator[Step]:
        """Yields the time and the states [B, D, C, H, W] of these images after each step.

        Args:
            eps: used instead of the model's noise prediction.
        """
        self.calibrate()
        draw = lambda k: self.normal(indices, FIRST_STREAM + k)  # noqa: E731
        start = self.start(indices)
        return without_tf32(self.checked(self.sampler.solve(eps or self.eps_of(indices), start, draw), start))

    def checked(self, steps: Iterable[Step], start: Tensor) -> Iterator[Step]:
        """Checks the types and shapes of a sampler's steps and passes them on. The sampler may come from a user's file.

        Raises:
            DataError: the sampler takes no step or far too many, or yields something other than a time and states of the
                right shape and type.
        """
        sampler, taken, most = self.request.sampler, 0, max(MOST_STEPS, 20 * self.sampler.steps)
        if not isinstance(steps, Iterable):
            raise DataError(f"sampler {sampler}: solve returned {type(steps).__name__}, not an iterator of steps")
        for step in steps:
            states = step[1] if isinstance(step, tuple) and len(step) == 2 else None
            odd = unlike_dense(states) or states.shape != start.shape or not is_real(states)
            if odd or states.device.type != start.device.type:
                shape = list(start.shape)
                raise DataError(
                    f"sampler {sampler}: solve must yield pairs of a time and states of shape {shape}, in a dense "
                    f"floating-point tensor on {start.device.type}"
                )
            taken += 1
            if taken > most:
                raise DataError(
                    f"sampler {sampler}: solve has yielded {most} steps, but prepare said {self.sampler.steps}"
                )
            yield step
        if not taken:
            raise DataError(f"sampler {sampler}: solve yielded no step")

    def eps_of(self, indices: Sequence[int]) -> Eps:
        """The noise prediction for these images, with the class labels and the guidance of the request, if any."""
        eps, around, classes, weight = self.eps, self.around, self.request.classes, self.request.guidance
        if classes is not None:
            labels = torch.from_numpy(labels_of(classes, self.model.classes, self.request.seed, indices))
            eps = self.model.eps(self.diffusion, self.config.k, labels.to(self.device))
            eps = eps if weight is None else guided(eps, self.eps, weight)
        if around is None:
            return eps

        def within(u: Tensor, t: float) -> Tensor:
            with around(len(u)):
                return eps(u, t)

        return within

    @torch.inference_mode()
    def run(self, indices: Sequence[int], on_step: Callable[[int, Tensor], None] | None = None) -> Tensor:
        """The final states of these images, [B, D, C, H, W], on the device.

        Args:
            on_step: called with (steps done, states) after each step.
        """
        self.calibrate()
        before = self.model.network.nfe

        def reported() -> Iterator[Step]:
            for done, step in enumerate(self.steps(indices), start=1):
                if on_step:
                    on_step(done, step[1])
                yield step

        u = final_state(reported())
        self.evaluations = self.model.network.nfe - before
        return u

    def batches(self, todo: Sequence[int], size: int, num: int) -> list[range]:
        """The batches that contain the images `todo`: blocks of `size` consecutive indices below `num`.

        If the images of a batch depend on each other, the last block is full and may extend beyond `num`, so that no
        image depends on `num`.
        """
        end = num
        if self.sampler.batch_dependent:
            end = len(self.initial) if self.initial is not None else size * (1 + num // size)
        numbers = sorted({index // size for index in todo})
        return [range(number * size, min((number + 1) * size, end)) for number in numbers]

    def release(self) -> None:
        """Frees the memory that the network keeps for the next batch."""
        if isinstance(self.model.network.network, Accelerated):
            self.model.network.network.release()

    @rounding(tf32=False)
    def decode(self, u: Tensor) -> Tensor:
        """The images in states, [B, C, H, W], in about [-1, 1].

        An image is the first component of a state, after an inverse DCT if the diffusion is in frequency space.
        """
        return (idct(u) if self.diffusion.spectral else u)[:, 0]

    def images(self, u: Tensor) -> NDArray[np.floating]:
        """The images in states, as `decode` returns them, as an array on the CPU."""
        return self.decode(u).cpu().numpy()

    def _moved(self, array: NDArray[np.floating]) -> Tensor:
        native = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        return to_device(native.to(self.dtype), self.device)
