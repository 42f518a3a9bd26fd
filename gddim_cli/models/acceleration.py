"""How a network runs: precision, memory layout, compilation, CUDA graphs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gddim_cli.errors import GddimError, UsageError
from gddim_cli.models.cuda_graph import Graph, capture
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.runtime.rounding import rounding

HALF = (torch.bfloat16, torch.float16)
REFUSALS = ("TorchDynamoException", "FailOnRecompileLimitHit", "FailOnCacheLimitHit")
"""Names of the exceptions by which torch's compiler refuses a network. Not every torch version has all of them."""


@dataclass(frozen=True)
class Speed:
    """Settings that affect speed. In float32, all of them except `tf32` change results only by rounding errors.

    Attributes:
        dtype: precision of the network. With bfloat16 and float16, convolutions and linear layers run in that precision, as
            under autocast, and everything else in float32.
        tf32: whether the factors of float32 products are rounded to 10 bits of mantissa (NVIDIA GPUs only). If
            False, nothing is rounded, not even the factors in convolutions, which torch itself rounds by default.
        channels_last: whether tensors are stored as NHWC. None: only on CUDA in 16 bits, where NHWC is faster.
        compile: whether the network is compiled by `torch.compile`, as a single graph without graph breaks.
        cuda_graph: whether the evaluation is captured once per batch size and replayed, so that the GPU does not wait for
            Python.
    """

    dtype: torch.dtype = torch.float32
    tf32: bool = False
    channels_last: bool | None = None
    compile: bool = False
    cuda_graph: bool = False

    @property
    def half(self) -> bool:
        """Whether the dtype has 16 bits."""
        return self.dtype in HALF

    @property
    def state(self) -> torch.dtype:
        """The dtype of the network's inputs and outputs."""
        return torch.float32 if self.half else self.dtype

    def on(self, device: torch.device) -> Speed:
        """The settings for a device, with `channels_last` resolved to True or False.

        Raises:
            UsageError: the device does not support a setting.
        """
        cuda = device.type == "cuda"
        if self.tf32 and not (cuda and self.dtype == torch.float32):
            raise UsageError("--tf32: supported in float32 on NVIDIA GPUs only; leave it out")
        if self.cuda_graph and not cuda:
            raise UsageError(f"--cuda-graph: unsupported by --device {device.type}; leave it out, or use --device cuda")
        last = cuda and self.half if self.channels_last is None else self.channels_last
        return Speed(self.dtype, self.tf32, last, self.compile, self.cuda_graph)

    def enabled(self) -> list[str]:
        """The names of the settings that are on, for messages and `run.json`."""
        return [name for name in ("tf32", "channels_last", "compile", "cuda_graph") if getattr(self, name)]


class Accelerated:
    """A network that runs with the settings of a `Speed`.

    It maps x [B, C, H, W] and noise levels or times [B] to a prediction of dtype `speed.state`, stored as NCHW.
    Compiled code and CUDA graphs work for one batch size only. A smaller batch, such as the last one of a run, is
    therefore padded to the next larger size used before. The network is then not compiled or captured again.

    Attributes:
        speed: the settings for this device.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        speed: Speed,
        cache: Path | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Moves the module to the device and prepares it for the settings; compilation happens at the first batch.

        Args:
            cache: the folder in which compiled code is kept for later runs; None for torch's own.
            say: called with a message if there is not enough memory for a CUDA graph.

        Raises:
            UsageError: the device does not support a setting.
        """
        self.speed, self.device = speed.on(device), device
        self.layout = torch.channels_last if self.speed.channels_last else torch.contiguous_format
        # The layout applies to four-dimensional weights; `Module.to` leaves the others unchanged.
        self.module = module.to(device, speed.state).to(memory_format=self.layout)
        if speed.half:
            round_weights(self.module, speed.dtype)
        self._forward: Callable[[Tensor, Tensor], Tensor] = self._eager
        if speed.compile:
            self._forward = self._compile(cache)
        self._graphs: dict[int, Graph] = {}
        self._captures, self._say = speed.cuda_graph, say
        self._sizes: set[int] = set()
        self._plain = not (speed.compile or speed.cuda_graph)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """The prediction; raises GddimError if the network cannot be compiled."""
        x, level = x.to(self.speed.state), level.to(self.speed.state)
        with rounding(self.speed.tf32) if self.device.type == "cuda" else nullcontext():
            return self._eager(x, level) if self._plain else self._known(x, level)

    def _known(self, x: Tensor, level: Tensor) -> Tensor:
        count = len(x)
        size = min((known for known in self._sizes if known >= count), default=count)
        y = self._run(padded(x, size), padded(level, size))
        # The size is recorded after the evaluation. A size that ran out of memory is therefore not used again.
        self._sizes.add(size)
        return y[:count]

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """A context in which the network runs without compilation and CUDA graphs, for trying out batch sizes."""
        before, self._plain = self._plain, True
        try:
            yield
        finally:
            self._plain = before

    def release(self) -> None:
        """Forgets the batch sizes used so far and frees the memory of their graphs."""
        self._graphs.clear()
        self._sizes.clear()
        if self.speed.compile:
            torch.compiler.reset()  # torch limits the number of sizes that a function is compiled for
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _eager(self, x: Tensor, level: Tensor) -> Tensor:
        # Autocast caches only weights that require gradients, and these weights do not.
        half = torch.autocast(self.device.type, self.speed.dtype, cache_enabled=False) if self.speed.half else None
        with half or nullcontext():
            y = self.module(x.contiguous(memory_format=self.layout), level)
        return y.to(self.speed.state, memory_format=torch.contiguous_format)

    def _run(self, x: Tensor, level: Tensor) -> Tensor:
        if self._captures and len(x) not in self._graphs:
            graph = capture(self._forward, x, level)
            if graph is None:
                self._without_graphs(len(x))
            else:
                self._graphs[len(x)] = graph
        return self._graphs[len(x)](x, level) if self._captures else self._forward(x, level)

    def _without_graphs(self, count: int) -> None:
        """Stops using CUDA graphs and frees their memory, which the evaluation itself may need."""
        self._captures = False
        self._graphs.clear()
        torch.cuda.empty_cache()
        self._say(f"--cuda-graph: not enough memory to capture {count} images; continuing without a CUDA graph")

    def _compile(self, cache: Path | None) -> Callable[[Tensor, Tensor], Tensor]:
        from torch._dynamo import exc

        refusals = tuple(getattr(exc, name) for name in REFUSALS if hasattr(exc, name))
        if cache:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        # TF32 is off unless the user asks for it, so torch's advice to enable TF32 is suppressed.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
        try:
            compiled = torch.compile(self._eager, fullgraph=True, dynamic=False)
        except RuntimeError as error:  # torch.compile does not support this Python version or this system
            raise compilation_error(error) from error

        def run(x: Tensor, level: Tensor) -> Tensor:
            try:
                return compiled(x, level)
            except refusals as error:
                if is_out_of_memory(error):
                    raise
                raise compilation_error(error) from error

        return run


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights of convolutions and linear layers once, since autocast would round them at every evaluation.

    Normalization layers, embedding frequencies and the arithmetic between layers stay in float32. Results are therefore
    bit for bit the same as with float32 weights under autocast.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            part.to(dtype)


def padded(x: Tensor, size: int) -> Tensor:
    """The batch, padded to `size` rows by repeating its last row."""
    return x if len(x) == size else torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])])


def compilation_error(error: Exception) -> GddimError:
    """The error for a network that torch cannot compile."""
    first = str(error).strip().partition("\n")[0]
    return GddimError(f"--compile: torch cannot compile the network on this machine ({first}); leave --compile out")
