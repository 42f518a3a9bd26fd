"""One evaluation of a network as a CUDA graph: replaying it launches its hundreds of kernels at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from gddim_cli.runtime.memory import is_out_of_memory

WARM_UP = 3
"""Evaluations before a capture, in which libraries choose kernels and the compiler compiles; a graph cannot capture that."""

Evaluation = Callable[[Tensor, Tensor], Tensor]


class Graph:
    """A captured evaluation of one batch size; call `capture` to make one."""

    def __init__(self, graph: torch.cuda.CUDAGraph, x: Tensor, level: Tensor, y: Tensor) -> None:
        self._graph, self._x, self._level, self._y = graph, x, level, y

    @torch.inference_mode()
    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """The prediction for inputs of the captured shapes."""
        with torch.cuda.device(x.device):
            self._x.copy_(x)
            self._level.copy_(level)
            self._graph.replay()
            return self._y.clone()  # the next replay overwrites it, and multistep samplers keep a history


@torch.inference_mode()
def capture(forward: Evaluation, x: Tensor, level: Tensor) -> Graph | None:
    """The graph of `forward(x, level)`; None if memory runs out during the capture, which needs additional memory.

    Raises torch's own error if memory runs out before that, in the warm-up evaluations.
    """
    x, level = x.clone(), level.clone()
    with torch.cuda.device(x.device):
        current = torch.cuda.current_stream()
        warm_up(forward, x, level, current)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as the one that writes images, may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                y = forward(x, level)
        except RuntimeError as error:
            abandon(graph, current)
            if not is_out_of_memory(error):
                raise
            return None
        return Graph(graph, x, level, y)


def warm_up(forward: Evaluation, x: Tensor, level: Tensor, current: torch.cuda.Stream) -> None:
    """Evaluates a few times on a side stream, as torch requires before a capture."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            forward(x, level)
    current.wait_stream(aside)


def abandon(graph: torch.cuda.CUDAGraph, current: torch.cuda.Stream) -> None:
    """Cleans up after a failed capture that cannot be ended.

    `torch.cuda.graph` then stays on its own stream, and the allocator keeps serving that stream from the graph's memory,
    in which state it refuses to free any.
    """
    torch.cuda.set_stream(current)
    with suppress(RuntimeError):  # the capture could be ended, or had not begun
        torch._C._cuda_endAllocateToPool(current.device_index, graph.pool())
