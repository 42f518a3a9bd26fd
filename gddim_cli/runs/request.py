"""What an image depends on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.checkpoints.card import Images
from gddim_cli.errors import DataError
from gddim_cli.runtime.arrays import read_array


class Settings(msgspec.Struct, frozen=True):
    """All that an image depends on beside its index: the identity of a run. Equal settings make equal images."""

    checkpoint: str
    checkpoint_sha256: str
    diffusion: dict[str, float | bool | str | None]
    sampler: str
    nfe: int
    k: str
    denoise: bool
    t_start: float
    t_end: float
    grid_power: float
    quantize: str
    seed: int
    dtype: str
    format: str
    tf32: bool = False
    """Compilation, layout and graphs change the order of sums only: those are the session's."""
    order: int | None = None
    lam: float | None = msgspec.field(default=None, name="lambda")
    eta: float | None = None
    corrector: bool = False
    rtol: float | None = None
    atol: float | None = None
    batch_size: int | None = None
    """Where the images of a batch depend on each other (RK45)."""
    init_noise_sha256: str | None = None


def differences(old: Settings, new: Settings) -> list[str]:
    """What changed, as `name: old -> new`."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in Settings.__struct_fields__)
    return [f"{name}: {was} -> {now}" for name, was, now in pairs if was != now]


def read_states(path: Path, blocks: int, images: Images, num: int | None) -> NDArray[np.floating]:
    """`--init-noise`: states u_T, [N, D, C, H, W], from an .npy of that shape, or without the D where it is 1.

    Raises:
        DataError: not an .npy, another shape, not real numbers, too few of them, NaN or infinity.
    """
    states = read_array(path, memory_map=True)
    one = (images.channels, images.size, images.size)
    wanted = (blocks, *one) if blocks > 1 else one
    if states.shape[1:] != wanted or not len(states):
        needed = ", ".join(map(str, wanted))
        raise DataError(f"--init-noise: {path} holds {list(states.shape)}; [N, {needed}] is needed")
    if states.dtype.kind != "f" or states.dtype.itemsize > 8:
        raise DataError(f"--init-noise: {path} holds {states.dtype}; float32 or float64 is needed")
    if num is not None and num > len(states):
        raise DataError(f"--init-noise: {path} holds {len(states)} states, fewer than --num {num}")
    if not np.isfinite(states).all():
        raise DataError(f"--init-noise: {path} holds NaN or infinity")
    return states.reshape(len(states), blocks, *one)
