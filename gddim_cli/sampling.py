"""From settings to batches of final states: the part of a run that computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.checkpoints.card import Images
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.coefficients import Coefficients, gddim_coefficients
from gddim_cli.diffusions.base import Defaults, Diffusion
from gddim_cli.errors import DataError, UsageError
from gddim_cli.frequencies import dct, idct
from gddim_cli.noise import standard_normal
from gddim_cli.samplers.linear import linear
from gddim_cli.time_grids import power_grid


def plan(diffusion: Diffusion, defaults: Defaults, nfe: int, order: int) -> Coefficients:
    """The coefficients that spend `nfe` evaluations: `nfe - 1` steps and the denoising step, or `nfe` steps.

    Raises:
        UsageError: no step is left, or the times make no grid.
    """
    steps = nfe - defaults.denoise
    if steps < 1:
        what = (
            "the denoising step takes one evaluation, which leaves no step" if defaults.denoise else "that is no step"
        )
        raise UsageError(f"--nfe: {nfe} is too few: {what}; give at least {1 + defaults.denoise}")
    t = power_grid(defaults.t_start, defaults.t_end, steps, defaults.grid_power)
    return gddim_coefficients(diffusion, t, order, defaults.k, defaults.denoise)


@dataclass
class Sampler:
    """Makes images by index, in any order and batch.

    Attributes:
        checkpoint: the model.
        diffusion: what it is sampled in.
        coefficients: of the run.
        seed: image i starts from the noise of (seed, i).
        initial: states u_T in place of the prior's draw, [N, D, C, H, W], or None.
        device: where the network runs; noise is drawn on the CPU.
        dtype: of the network; the state is float64 where that is, else float32.
        evaluations: the numbers of network evaluations that batches took.
    """

    checkpoint: Checkpoint
    diffusion: Diffusion
    coefficients: Coefficients
    seed: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    initial: NDArray[np.floating] | None = None
    evaluations: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._eps = self.checkpoint.eps(self.diffusion, self.coefficients.k)

    def start(self, indices: Sequence[int]) -> Tensor:
        """u_T of these images, [B, D, C, H, W]: `prior_scale z`, or the given states; in pixels."""
        if self.initial is not None:
            return torch.from_numpy(self.initial[list(indices)]).to(self.device, self.dtype)
        images = self.checkpoint.card.images
        z = standard_normal(self.seed, indices, (self.diffusion.D, images.channels, images.size, images.size))
        u = np.einsum("de,be...->bd...", self.diffusion.prior_scale, z)
        return torch.from_numpy(u).to(self.device, self.dtype)

    @torch.inference_mode()
    def run(self, indices: Sequence[int], on_step: Callable[[int, Tensor], None] | None = None) -> NDArray[np.floating]:
        """The final states of these images, [B, D, C, H, W], on the CPU; in pixels, like those `on_step` sees."""
        before = self.checkpoint.network.nfe
        u = self.start(indices)
        if self.diffusion.spectral:
            told = on_step and (lambda step, state: on_step(step, idct(state)))
            u = idct(linear(self._eps, dct(u), self.coefficients, told))
        else:
            u = linear(self._eps, u, self.coefficients, on_step)
        self.evaluations.add(self.checkpoint.network.nfe - before)
        return u.cpu().numpy()


class Settings(msgspec.Struct, frozen=True):
    """All that an image depends on beside its index: the identity of a run. Equal settings make equal images."""

    checkpoint: str
    checkpoint_sha256: str
    diffusion: dict[str, float | bool | str | None]
    sampler: str
    nfe: int
    order: int
    k: str
    denoise: bool
    t_start: float
    t_end: float
    grid_power: float
    quantize: str
    seed: int
    dtype: str
    format: str
    init_noise_sha256: str | None = None


def read_states(path: Path, blocks: int, images: Images, num: int | None) -> NDArray[np.floating]:
    """`--init-noise`: states u_T, [N, D, C, H, W], from an .npy of that shape, or without the D where it is 1.

    Raises:
        DataError: not an .npy, another shape, not real numbers, too few of them, NaN or infinity.
    """
    try:
        states = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--init-noise: {path} cannot be read as an .npy: {error}") from error
    one = (images.channels, images.size, images.size)
    wanted = (blocks, *one) if blocks > 1 else one
    if not isinstance(states, np.ndarray) or states.shape[1:] != wanted or not len(states):
        found = list(states.shape) if isinstance(states, np.ndarray) else "several arrays"
        raise DataError(f"--init-noise: {path} holds {found}; {['N', *wanted]} is needed".replace("'", ""))
    if states.dtype.kind != "f":
        raise DataError(f"--init-noise: {path} holds {states.dtype}; float32 or float64 is needed")
    if num is not None and num > len(states):
        raise DataError(f"--init-noise: {path} holds {len(states)} states, fewer than --num {num}")
    if not np.isfinite(states).all():
        raise DataError(f"--init-noise: {path} holds NaN or infinity")
    return states.reshape(len(states), blocks, *one)


def differences(old: Settings, new: Settings) -> list[str]:
    """What changed, as `name: old -> new`."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in Settings.__struct_fields__)
    return [f"{name}: {was} -> {now}" for name, was, now in pairs if was != now]
