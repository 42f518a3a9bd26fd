"""Background work: encoding and writing on a separate thread, and copying to the CPU while the GPU computes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")

DEPTH = 2
"""Maximum number of pending items: one being written and one waiting. The limit bounds the memory used."""


class Writer(Generic[T, R]):
    """Calls `work` on items, in order, on a separate thread.

    An error of `work` is raised on the calling thread, by the next call of `put`, `check` or `finish`. These methods
    also call `on_done`, so it runs on the calling thread too.
    """

    def __init__(self, work: Callable[[T], R], on_done: Callable[[R], object]) -> None:
        """Starts the thread.

        Args:
            work: called with each item, on the separate thread.
            on_done: called with each result, in order, on the calling thread.
        """
        self._work, self._on_done = work, on_done
        self._pool = ThreadPoolExecutor(1, "writer")
        self._pending: deque[Future[R]] = deque()

    def put(self, item: T) -> None:
        """Adds an item; waits while `DEPTH` are pending. Raises the error of `work` on an earlier item, if any."""
        while len(self._pending) >= DEPTH:
            self._take()
        self._pending.append(self._pool.submit(self._work, item))

    def check(self) -> None:
        """Raises the error of `work` on an earlier item, if any. Does not wait for pending items."""
        while self._pending and self._pending[0].done():
            self._take()

    def finish(self) -> None:
        """Waits for all items. Raises the error of `work` on one of them, if any."""
        while self._pending:
            self._take()
        self._pool.shutdown()

    def stop(self) -> None:
        """Ends the thread after an error. Pending items are still processed; errors on them are ignored."""
        self._pool.shutdown()
        for future in self._pending:
            if future.exception() is None:
                self._on_done(future.result())
        self._pending.clear()

    def _take(self) -> None:
        result = self._pending[0].result()
        self._pending.popleft()
        self._on_done(result)


def to_host(x: Tensor) -> Callable[[], NDArray]:
    """Copies a tensor to the CPU. The returned function waits for the copy to finish and returns the array.

    From a CUDA GPU, the tensor is copied into pinned memory on a separate stream, while the GPU computes the next
    batch.

    Args:
        x: the tensor, which must not be modified afterwards.
    """
    if not x.is_cuda:
        return lambda: x.cpu().numpy()
    stream = copy_stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        host.copy_(x, non_blocking=True)
        x.record_stream(stream)
        arrived = stream.record_event()

    def wait() -> NDArray:
        arrived.synchronize()
        return host.numpy()

    return wait


@functools.cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream on which a device copies to the CPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
