"""A user's own network, from a function in a Python file (`mine.py:build`) or from a TorchScript file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gddim_cli.errors import DataError
from gddim_cli.evaluation.extractors.base import Extractor, first_line, last_line, quiet
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.runtime.rounding import rounding
from gddim_cli.runtime.tensors import is_real, same_defaults, unlike_dense
from gddim_cli.runtime.user_file import function_of, guarded, is_function

MODE = "own"
PROBES = 3
TOLERANCE = 1e-2
"""The features of an image alone and in a batch may differ by this share of the largest feature, due to rounding."""
KINDS = "give a function in a Python file, mine.py:build, or a TorchScript file"


def load_own(reference: str, device: torch.device, shape: tuple[int, int, int]) -> Extractor:
    """The extractor of `FILE.py:FUNCTION` or of a TorchScript file, tried on random images of the shape (H, W, C).

    `FUNCTION(device)` returns a callable that maps float32 images [N, C, H, W] in [0, 255] on the device to features
    [N, d].

    Raises:
        DataError: the file cannot be used, or its network does not follow this interface. Calling the extractor may
            raise the same error.
    """
    name = f"--features {reference}"
    network: Any
    if is_function(reference):
        function = reference.rpartition(":")[2]
        with same_defaults():
            path, build = function_of(reference)
            network = guarded(path, f"{function}()", lambda: build(device))
        label = f"{path.name}:{function}"
        if not callable(network):
            raise DataError(f"{name}: returned {type(network).__name__}; a network or a function is needed")
        digest = guarded(
            path, "reading the network's weights", lambda: digest_of(path, label, network), is_out_of_memory
        )
    else:
        path = Path(reference)
        network, label, digest = torchscript(path, name), path.name, sha256(path)
    if isinstance(network, nn.Module):
        module = network
        what = f"moving the network to {device}"
        network = guarded(path, what, lambda: module.to(device).eval(), is_out_of_memory)

    def run(images: Tensor) -> Tensor:
        try:
            with quiet(), redirect_stdout(sys.stderr):
                found = network(images)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise DataError(f"{name}: fails on {given(images)}: {type(error).__name__}: {last_line(error)}") from error
        check_features(found, images, name)
        return found.detach().float().cpu()

    return Extractor(label, MODE, digest, tried(run, device, shape, name), False, run, None, None, device)


def given(images: Tensor) -> str:
    """A description, for error messages, of the input that a network was given."""
    return f"float32 images {list(images.shape)} in [0, 255]"


def check_features(found: Any, images: Tensor, name: str) -> None:
    """Checks that a network returned real features [N, d] for N images.

    Raises:
        DataError: the network returned something else; the message says what.
    """
    kind = unlike_dense(found)
    if kind or found.dim() != 2 or len(found) != len(images) or not found.shape[1]:
        raise DataError(
            f"{name}: returned {kind or f'a tensor {list(found.shape)}'} for {given(images)}; features "
            f"[{len(images)}, d] are needed"
        )
    if not is_real(found):
        raise DataError(f"{name}: its features are not all finite real numbers (dtype {found.dtype})")


def torchscript(path: Path, name: str) -> nn.Module:
    """The module in a TorchScript file.

    Raises:
        DataError: the file does not hold a TorchScript module.
    """
    if not path.is_file():
        raise DataError(f"{name}: {'not a plain file' if path.exists() else 'no such file'}; {KINDS}")
    if path.suffix == ".py":
        raise DataError(f"{name}: names no function in the file; give it as {path}:FUNCTION")
    try:
        with quiet():
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{name}: not a TorchScript file: {first_line(error)}; {KINDS}") from error


def tried(network: Callable[[Tensor], Tensor], device: torch.device, shape: tuple[int, int, int], name: str) -> int:
    """The dimension of the features, from a trial on random images.

    Raises:
        DataError: the features are not finite, or an image's features depend on other images or on chance.
    """
    height, width, channels = shape
    pixels = np.random.default_rng(0).integers(0, 256, (PROBES, channels, height, width), np.uint8)
    images = torch.from_numpy(pixels).to(device).float()
    with torch.inference_mode(), rounding(tf32=False):
        features, alone = network(images.clone()), network(images[:1].clone())
    if not features.isfinite().all():
        raise DataError(f"{name}: its features are not all finite real numbers")
    if alone.shape != features[:1].shape or (alone - features[:1]).abs().max() > TOLERANCE * features.abs().max():
        raise DataError(
            f"{name}: an image has different features alone and in a batch; they must not depend on other images or on "
            "chance"
        )
    return features.shape[1]


def digest_of(path: Path, label: str, network: object) -> str:
    """SHA-256 of a Python file, the name of the chosen function and, if the function built a module, the weights."""
    found = hashlib.sha256(f"{sha256(path)} {label}".encode())
    weights = network.state_dict() if isinstance(network, nn.Module) else {}
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
