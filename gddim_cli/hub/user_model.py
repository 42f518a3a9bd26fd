"""A user's own model, from a function in a Python file: `mine.py:build`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gddim_cli.errors import DataError
from gddim_cli.models.wrapped import Denoiser
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.user_file import function_of, guarded


def load_user_model(reference: str, device: torch.device, settings: dict[str, Any]) -> Denoiser:
    """The model that `FILE.py:FUNCTION` returns. The file is executed, as any program is.

    The function returns a `gddim.Denoiser`. It is called with the settings as keyword arguments.

    Raises:
        DataError: the file or the function is missing, raises an error, or returns something else.
    """
    path, build = function_of(reference)
    function = reference.rpartition(":")[2]
    model = guarded(path, f"{function}()", lambda: build(**settings))
    if not isinstance(model, Denoiser):
        raise DataError(f"{path}: {function}() returned {type(model).__name__}; a gddim.Denoiser is needed")
    module = model.network.network
    if isinstance(module, nn.Module):
        module.to(device)
    model.sha256 = sha256(path)
    return model
