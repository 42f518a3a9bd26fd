"""A user's own model, from a function in a Python file: `mine.py:build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gddim_cli.errors import DataError, UsageError
from gddim_cli.models.acceleration import Speed
from gddim_cli.models.model import module_of
from gddim_cli.models.network import Network
from gddim_cli.models.wrapped import Denoiser
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.runtime.tensors import same_defaults
from gddim_cli.runtime.user_file import function_of, guarded


def load_user_model(reference: str, device: torch.device, settings: dict[str, Any], speed: Speed) -> Denoiser:
    """The model that `FILE.py:FUNCTION` returns. The file is executed like any Python program.

    The function is called with the settings as keyword arguments. It returns a `gddim.Denoiser`, or a pair: a
    module, and a dict with the other arguments of `Denoiser` (`image_shape`, `prediction`, ...).

    Args:
        speed: holds the dtype, float32 or float64, to which a module is converted.

    Raises:
        UsageError: `speed` has a 16-bit dtype, or sets TF32, NHWC, compilation or CUDA graphs. None of these apply to a
            user's network.
        DataError: the file or the function is missing, raises an error, or returns something else.
    """
    if speed.half or speed.enabled():
        raise UsageError(
            f"{reference}: --dtype bfloat16 and float16, --tf32, --compile and --cuda-graph do not apply to a network of "
            "your own; leave them out, or apply them to the network inside the function"
        )
    function = reference.rpartition(":")[2]
    with same_defaults():
        path, build = function_of(reference)
        model = guarded(path, f"{function}()", lambda: build(**settings))
    if isinstance(model, tuple) and len(model) == 2 and callable(model[0]) and isinstance(model[1], dict):
        module, convention = model
        model = guarded(path, f"Denoiser with the arguments from {function}()", lambda: Denoiser(module, **convention))
    if not isinstance(model, Denoiser):
        raise DataError(
            f"{path}: {function}() returned {type(model).__name__}; expected a gddim.Denoiser, or a module and "
            "a dict of Denoiser's other arguments"
        )
    module = module_of(model)
    if isinstance(module, nn.Module):
        move = module.to
        guarded(path, f"moving the network to {device}", lambda: move(device, speed.state), is_out_of_memory)
    model.network.network = UserNetwork(path, model.network.network)
    model.sha256 = sha256(path)
    return model


class UserNetwork:
    """A network from a user's file. Its errors are raised as DataError, except out-of-memory errors."""

    def __init__(self, path: Path, network: Network) -> None:
        self.path, self.network = path, network
        self.module = getattr(network, "module", network)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        return guarded(self.path, "the network", lambda: self.network(x, level), is_out_of_memory)
