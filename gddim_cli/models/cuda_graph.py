"""Captures an evaluation of a network as a CUDA graph. Replaying the graph launches hundreds of kernels in one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from gddim_cli.runtime.memory import is_out_of_memory

WARM_UP = 3
"""Number of evaluations before a capture. During these, libraries choose kernels and the compiler compiles the network.
Neither is possible during a capture."""

Evaluation = Callable[[Tensor, Tensor], Tensor]


class Graph:
    """A captured evaluation for one batch size, made by `capture`."""

    def __init__(self, graph: torch.cuda.CUDAGraph, x: Tensor, level: Tensor, y: Tensor) -> None:
        self._graph, self._x, self._level, self._y = graph, x, level, y

    @torch.inference_mode()
    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """The prediction for inputs of the captured shapes."""
        with torch.cuda.device(x.device):
            self._x.copy_(x)
            self._level.copy_(level)
            self._graph.replay()
            # The next replay overwrites the output, but multistep samplers keep past outputs, so a copy is returned.
            return self._y.clone()


@torch.inference_mode()
def capture(forward: Evaluation, x: Tensor, level: Tensor) -> Graph | None:
    """Captures `forward(x, level)` as a graph.

    Returns None if memory runs out during the capture, which needs extra memory. If memory runs out earlier, in the
    warm-up evaluations, torch's own error is raised.
    """
    x, level = x.clone(), level.clone()
    with torch.cuda.device(x.device):
        current = torch.cuda.current_stream()
        warm_up(forward, x, level, current)
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local" lets other threads, such as the one that writes images, use the GPU during the capture.
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
    """Cleans up after a failed capture that torch could not end.

    After such a failure the current stream is still the capture's stream, and the allocator still takes that stream's
    memory from the graph's pool. Until both are undone, the allocator refuses to free memory.
    """
    torch.cuda.set_stream(current)
    with suppress(RuntimeError):  # raised if torch did end the capture, or had not begun it
        torch._C._cuda_endAllocateToPool(current.device_index, graph.pool())
