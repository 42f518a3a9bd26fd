"""From settings to batches of final states: the part of a run that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.models.acceleration import Accelerated
from gddim_cli.numerics.blocks import combine, to_device, to_tensor_like
from gddim_cli.numerics.dct import idct
from gddim_cli.numerics.noise import standard_normal
from gddim_cli.samplers.multistep import OnStep
from gddim_cli.samplers.registry import Plan

PILOT = 4
FIRST_STREAM = 1  # stream 0 is the prior's


@dataclass
class Sampler:
    """Makes images by index, in any order and batch.

    Attributes:
        checkpoint: the model.
        diffusion: what it is sampled in.
        plan: the sampler, ready for a budget; tuned at the first use where it has to be.
        k: the K of the noise prediction.
        seed: image i starts from the noise of (seed, i), and a stochastic sampler draws from it.
        device: where the network runs; noise is drawn on the CPU.
        dtype: of the network; the state is float64 where that is, else float32.
        initial: states u_T in place of the prior's draw, [N, D, C, H, W], or None.
        evaluations: network evaluations of the last batch.
    """

    checkpoint: Checkpoint
    diffusion: Diffusion
    plan: Plan
    k: KChoice
    seed: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    initial: NDArray[np.floating] | None = None
    evaluations: int = 0

    def __post_init__(self) -> None:
        self.dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.eps = self.checkpoint.eps(self.diffusion, self.k)

    def normal(self, indices: Sequence[int], stream: int) -> Tensor:
        """N(0, I) for these images, [B, D, C, H, W]."""
        images = self.checkpoint.card.images
        shape = (self.diffusion.D, images.channels, images.size, images.size)
        return self._moved(standard_normal(self.seed, indices, shape, stream))

    def start(self, indices: Sequence[int]) -> Tensor:
        """u_T of these images, [B, D, C, H, W]: `prior_factor z`, or the given states."""
        if self.initial is not None:
            return self._moved(self.initial[list(indices)])
        z = self.normal(indices, 0)
        return combine([to_tensor_like(self.diffusion.prior_factor, z)], [z])

    @torch.inference_mode()
    def tune(self) -> None:
        """Tunes the plan where it has to be: always on the same few images, whatever is made afterwards."""
        if self.plan.tune:
            self.plan = self.plan.tune(self.eps, self.start(range(PILOT if self.initial is None else 1)))

    @torch.inference_mode()
    def run(self, indices: Sequence[int], on_step: OnStep | None = None) -> Tensor:
        """The final states of these images, [B, D, C, H, W], on the device."""
        self.tune()
        before = self.checkpoint.network.nfe
        u = self.plan.solve(self.eps, self.start(indices), lambda k: self.normal(indices, FIRST_STREAM + k), on_step)
        self.evaluations = self.checkpoint.network.nfe - before
        return u

    def batches(self, todo: Sequence[int], size: int, num: int) -> list[range]:
        """The blocks of indices below `num` that `todo` is in; full ones, whatever `num`, where images depend on each other."""
        end = num
        if self.plan.batch_dependent:
            end = len(self.initial) if self.initial is not None else size * (1 + num // size)
        numbers = sorted({index // size for index in todo})
        return [range(number * size, min((number + 1) * size, end)) for number in numbers]

    def release(self) -> None:
        """Gives back the memory that the network keeps for the next batch."""
        if isinstance(self.checkpoint.network.network, Accelerated):
            self.checkpoint.network.network.release()

    def picture(self, u: Tensor) -> Tensor:
        """The images of states, [B, C, H, W]: their first number, from a spectrum where it is one."""
        return (idct(u) if self.diffusion.spectral else u)[:, 0]

    def image(self, u: Tensor) -> NDArray[np.floating]:
        """The same on the CPU."""
        return self.picture(u).cpu().numpy()

    def _moved(self, array: NDArray[np.floating]) -> Tensor:
        made = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        return to_device(made.to(self.dtype), self.device)
