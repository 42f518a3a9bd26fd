"""Networks without their initial random numbers, for weights that come from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class Blank(TorchFunctionMode):
    """A context in which `torch.nn.init` does nothing: a network of 10^8 numbers is made in milliseconds.

    The memory of its tensors is not touched, so it costs nothing either until they are written to. (The `meta` device
    does the same, but its first use imports a second of Python.)
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return options["tensor"] if "tensor" in options else args[0]
        return func(*args, **options)
