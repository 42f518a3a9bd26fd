"""How a network runs: its precision, its memory layout, compiled, or captured as one CUDA graph."""

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
from gddim_cli.runtime.memory import is_out_of_memory

HALF = (torch.bfloat16, torch.float16)
WARM_UP = 3
"""Evaluations before a capture: libraries choose their kernels, the compiler compiles, which no graph can hold."""

REFUSALS = ("TorchDynamoException", "FailOnRecompileLimitHit", "FailOnCacheLimitHit")
"""What torch's compiler raises, by names that not every version has."""


@dataclass(frozen=True)
class Speed:
    """How fast, and at what price in rounding. In float32 only `tf32` changes more than the order of sums.

    Attributes:
        dtype: float32, float64; bfloat16 and float16 run as autocast does, on convolutions and products rounded once.
        tf32: products of float32 with 10 bits of mantissa (NVIDIA). Off: torch's own default is on for convolutions.
        channels_last: NHWC layout, in which tensor cores take 16 bits without transposing; None: for those, on CUDA.
        compile: `torch.compile`, one graph without breaks.
        cuda_graph: the evaluation is captured once a batch size and replayed, so that no launch waits for Python.
    """

    dtype: torch.dtype = torch.float32
    tf32: bool = False
    channels_last: bool | None = None
    compile: bool = False
    cuda_graph: bool = False

    @property
    def half(self) -> bool:
        return self.dtype in HALF

    @property
    def state(self) -> torch.dtype:
        """Of the states that go in and come out."""
        return torch.float32 if self.half else self.dtype

    def on(self, device: torch.device) -> Speed:
        """These settings with what a device leaves no choice in filled in.

        Raises:
            UsageError: the device has not what was asked for.
        """
        cuda = device.type == "cuda"
        if self.tf32 and not (cuda and self.dtype == torch.float32):
            raise UsageError("--tf32: it is a rounding of float32 on NVIDIA GPUs; leave it out here")
        if self.cuda_graph and not cuda:
            raise UsageError(f"--cuda-graph: {device.type} has none; leave it out, or take --device cuda")
        last = cuda and self.half if self.channels_last is None else self.channels_last
        return Speed(self.dtype, self.tf32, last, self.compile, self.cuda_graph)

    def enabled(self) -> list[str]:
        """What is on, for people and for `run.json`."""
        return [name for name in ("tf32", "channels_last", "compile", "cuda_graph") if getattr(self, name)]


class Accelerated:
    """A network at speed: `(x [B, C, H, W], level [B])` to its prediction in `speed.state`, NCHW.

    A compiled or captured network knows its batch sizes; a smaller batch, the last one of a run say, is filled up to the
    next of them in place of compiling anew.

    Attributes:
        speed: as it runs on this device.
    """

    def __init__(self, module: nn.Module, device: torch.device, speed: Speed, cache: Path | None = None) -> None:
        """Moves the module there and makes it ready; compilation itself waits for the first batch.

        Args:
            cache: where compiled code is kept for the next time; None: where torch keeps it.

        Raises:
            UsageError: the device has not what `speed` asks for.
        """
        self.speed, self.device = speed.on(device), device
        self.layout = torch.channels_last if self.speed.channels_last else torch.contiguous_format
        # The layout is one of four-dimensional weights; `Module.to` leaves the others as they are.
        self.module = module.to(device, speed.state).to(memory_format=self.layout)
        if speed.half:
            round_weights(self.module, speed.dtype)
        self._forward: Callable[[Tensor, Tensor], Tensor] = self._eager
        if speed.compile:
            self._forward = self._compile(cache)
        self._graphs: dict[int, Graph] = {}
        self._sizes: set[int] = set()
        self._plain = not (speed.compile or speed.cuda_graph)

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Raises GddimError where the network cannot be compiled."""
        x, level = x.to(self.speed.state), level.to(self.speed.state)
        with rounding(self.speed.tf32) if self.device.type == "cuda" else nullcontext():
            return self._eager(x, level) if self._plain else self._known(x, level)

    def _known(self, x: Tensor, level: Tensor) -> Tensor:
        count = len(x)
        size = min((known for known in self._sizes if known >= count), default=count)
        y = self._run(filled(x, size), filled(level, size))
        self._sizes.add(size)  # not one that has failed for want of memory
        return y[:count]

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Uncompiled and uncaptured meanwhile: for sizes that are only tried."""
        before, self._plain = self._plain, True
        try:
            yield
        finally:
            self._plain = before

    def release(self) -> None:
        """Forgets the sizes and gives their memory back."""
        self._graphs.clear()
        self._sizes.clear()
        if self.speed.compile:
            torch.compiler.reset()  # it compiles a function for a few sizes at most
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _eager(self, x: Tensor, level: Tensor) -> Tensor:
        # The cache of autocast keeps weights that learn, and these do not.
        half = torch.autocast(self.device.type, self.speed.dtype, cache_enabled=False) if self.speed.half else None
        with half or nullcontext():
            y = self.module(x.contiguous(memory_format=self.layout), level)
        return y.to(self.speed.state, memory_format=torch.contiguous_format)

    def _run(self, x: Tensor, level: Tensor) -> Tensor:
        if not self.speed.cuda_graph:
            return self._forward(x, level)
        if len(x) not in self._graphs:
            self._graphs[len(x)] = Graph(self._forward, x, level)
        return self._graphs[len(x)](x, level)

    def _compile(self, cache: Path | None) -> Callable[[Tensor, Tensor], Tensor]:
        from torch._dynamo import exc

        refusals = tuple(getattr(exc, name) for name in REFUSALS if hasattr(exc, name))
        if cache:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        # That TF32 is off is the choice of who runs it.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
        try:
            compiled = torch.compile(self._eager, fullgraph=True, dynamic=False)
        except RuntimeError as error:  # this Python or this system has no compiler at all
            raise uncompiled(error) from error

        def run(x: Tensor, level: Tensor) -> Tensor:
            try:
                return compiled(x, level)
            except refusals as error:
                if is_out_of_memory(error):
                    raise
                raise uncompiled(error) from error

        return run


class Graph:
    """An evaluation of one batch size, captured: a replay is one launch for the hundreds of kernels in it."""

    @torch.inference_mode()
    def __init__(self, forward: Callable[[Tensor, Tensor], Tensor], x: Tensor, level: Tensor) -> None:
        self._x, self._level = x.clone(), level.clone()
        with torch.cuda.device(x.device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    forward(self._x, self._level)
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads (that write images, say) may use the GPU meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._y = forward(self._x, self._level)

    @torch.inference_mode()
    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        with torch.cuda.device(x.device):
            self._x.copy_(x)
            self._level.copy_(level)
            self._graph.replay()
            return self._y.clone()  # the next replay writes there, and the sampler keeps a history


@contextmanager
def rounding(tf32: bool) -> Iterator[None]:
    """Products of float32 with or without TF32, and what was before afterwards: the sampler's own never with it.

    By the older pair of names: after the newer ones are set, torch refuses to read these, which its compiler does.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the weights that autocast would round, at each evaluation anew, once.

    Convolutions and linear layers only: norms, frequencies and the arithmetic between stay in float32, so that the
    numbers are those of autocast on float32 weights, bit for bit.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            part.to(dtype)


def filled(x: Tensor, size: int) -> Tensor:
    """The batch with its last row repeated up to `size` rows."""
    return x if len(x) == size else torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])])


def uncompiled(error: Exception) -> GddimError:
    first = str(error).strip().partition("\n")[0]
    return GddimError(f"--compile: torch cannot compile this network here ({first}); leave --compile out")
