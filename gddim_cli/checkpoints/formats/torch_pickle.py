"""Reads `torch.save` files that hold only tensors and numbers, such as the training states of CLD-SGM and Score-SDE.

A training state is a dictionary `{optimizer, model, ema, step}`. `model` maps names with a data-parallel prefix to
tensors. `ema["shadow_params"]` lists the averages in the order of the model's trained parameters. Files are unpickled
with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gddim_cli.checkpoints.formats.torch_outline import PREFIX
from gddim_cli.errors import CheckpointError
from gddim_cli.runtime.tensors import unlike_dense
from gddim_cli.runtime.text import printable

UNUSED = "module.sigmas"
FROZEN = re.compile(r"\d+\.W")
# The errors that torch's restricted unpickler raises on damaged or hostile files.
BROKEN = (
    OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, OverflowError,
    pickle.UnpicklingError, struct.error, zipfile.BadZipFile, MemoryError, NotImplementedError, RecursionError,
)  # fmt: skip


def read_training_state(path: Path) -> dict[str, Tensor]:
    """The averaged weights that `training_state` returns."""
    return training_state(path)[0]


def training_state(path: Path) -> tuple[dict[str, Tensor], tuple[float, float] | None]:
    """The averaged weights by name (`3.weight` and so on, without `module.all_modules.`), in their stored dtype.

    The frozen Fourier `W` comes from `model`; all other tensors come from the averages. Score-SDE's table
    `module.sigmas`, which no network uses, is checked and left out.

    Returns:
        The weights; and the lowest and highest noise level of the table, or None if the file has no table.

    Raises:
        CheckpointError: the file is truncated, is not a training state, or holds other objects than tensors and
            numbers; or the averages do not match the model's tensors.
    """
    state = unpickle(path)
    if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("model", "ema")):
        raise CheckpointError(f"{path}: not a training state with 'model' and 'ema' as CLD-SGM and Score-SDE save it")
    model, averages = state["model"], state["ema"].get("shadow_params")
    if not isinstance(averages, list) or not all(isinstance(value, Tensor) for value in [*averages, *model.values()]):
        raise CheckpointError(f"{path}: ema['shadow_params'] and 'model' must hold tensors only; fetch it again")
    check_plain([*averages, *model.values()], path)
    check_sizes(averages, path)
    levels = ends_of_sigmas(model.get(UNUSED), path)
    weights: dict[str, Tensor] = {}
    trained = []
    for key, value in model.items():
        name = key.removeprefix(PREFIX) if isinstance(key, str) else ""
        if key == UNUSED:
            continue
        if not name or name == key:
            raise CheckpointError(
                f"{path}: model['{printable(key, 60)}'] does not begin with {PREFIX}; not an NCSN++ of these programs"
            )
        weights[name] = value
        if not FROZEN.fullmatch(name):
            trained.append(name)
    if len(trained) != len(averages):
        raise CheckpointError(
            f"{path}: {len(averages)} averaged tensors for {len(trained)} trained ones; fetch the file again"
        )
    for name, value in zip(trained, averages, strict=True):
        if value.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: the average of {PREFIX}{name} is {list(value.shape)}, the model's is {list(weights[name].shape)}"
            )
        weights[name] = value
    return weights, levels


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """A dictionary of tensors by name, with floating-point tensors as float32.

    Args:
        key: key under which the file's dictionary holds the tensors; None if the tensors are not under a common key.

    Raises:
        CheckpointError: the file is truncated, or holds no such dictionary.
    """
    state = unpickle(path)
    if key is not None:
        state = state.get(key) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: not a dictionary of tensors{f' under {key!r}' if key else ''}; fetch it again")
    tensors = {str(name): value for name, value in state.items()}
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path}: must hold tensors only; fetch it again")
    check_plain(tensors.values(), path)
    check_sizes(tensors.values(), path)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def unpickle(path: Path) -> Any:
    """The file's content, restricted to tensors, numbers and the one kind of NumPy scalar that real files hold.

    Raises:
        CheckpointError: the file is truncated or compressed, or holds anything else.
    """
    # The optimizer's learning rate is a numpy.float64; the function that rebuilds it has a different module path in
    # NumPy 1 and 2.
    make_scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [(make_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    allowed += [np.dtype, type(np.dtype("float64"))]
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        # A zip file is mapped into memory, so that the optimizer's moments are never read.
        mapped = zipfile.is_zipfile(path)
        if mapped:
            refuse_compressed(path)
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles; the next line reads or refuses them
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except BROKEN as error:
        text = " ".join(str(error).split())
        refused = re.search(r"(?:GLOBAL|global|class|function)[: ]+([\w.]+\.[\w.]+)", text)
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"{path}: refused: it would run {refused[1]} when loaded; no checkpoint needs to run anything"
            ) from error
        raise CheckpointError(
            f"{path}: not a complete torch checkpoint ({text[:120]}); fetch it again, or name its format with --format"
        ) from error


def refuse_compressed(path: Path) -> None:
    """Refuses a zip with compressed members. torch never writes these, and they could unpack to any size.

    Raises:
        CheckpointError: a member is compressed.
    """
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise CheckpointError(f"{path}: a compressed zip, not a torch checkpoint; fetch it again")


def check_plain(tensors: Iterable[Tensor], path: Path) -> None:
    """Refuses tensors that are not dense arrays in memory: sparse, nested, quantized, or without data (device `meta`).

    Raises:
        CheckpointError: a tensor is not dense.
    """
    for tensor in tensors:
        found = unlike_dense(tensor)
        if found or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: holds {found or f'a tensor on {tensor.device}'}; dense tensors are needed")


def check_sizes(tensors: Iterable[Tensor], path: Path) -> None:
    """Refuses tensors that claim more numbers than the file can hold.

    Raises:
        CheckpointError: the claimed sizes exceed the file.
    """
    claimed, held = sum(tensor.numel() * tensor.element_size() for tensor in tensors), path.stat().st_size
    if claimed > held:
        raise CheckpointError(f"{path}: its tensors claim {claimed} bytes, the file has {held}; fetch it again")


def ends_of_sigmas(sigmas: Tensor | None, path: Path) -> tuple[float, float] | None:
    """The lowest and highest noise level of the table `module.sigmas`.

    Raises:
        CheckpointError: the tensor is not a table of falling noise levels.
    """
    if sigmas is None:
        return None
    levels = sigmas.dim() == 1 and sigmas.is_floating_point() and len(sigmas) > 1
    if not levels or not bool((sigmas[1:] < sigmas[:-1]).all()) or not bool(sigmas[-1] > 0):
        raise CheckpointError(
            f"{path}: {UNUSED} is not a table of falling noise levels; not a file of Score-SDE's program"
        )
    return float(sigmas[-1]), float(sigmas[0])
