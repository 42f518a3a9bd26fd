"""Encoding and writing on another thread, and copies from a GPU that overlap with its computing."""

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
"""The most pending items, one being written and one waiting, which bounds the memory."""


class Writer(Generic[T, R]):
    """Calls `work` on items, in order, on a separate thread.

    Errors of `work` are raised on the calling thread, by the next call of a method; `on_done` is called there too.
    """

    def __init__(self, work: Callable[[T], R], on_done: Callable[[R], object]) -> None:
        """Starts the thread.

        Args:
            work: called with each item, on the thread.
            on_done: called with each result, in order, on the calling thread.
        """
        self._work, self._on_done = work, on_done
        self._pool = ThreadPoolExecutor(1, "writer")
        self._pending: deque[Future[R]] = deque()

    def put(self, item: T) -> None:
        """Adds an item; waits while `DEPTH` items are pending. Raises what `work` raised on an earlier one."""
        while len(self._pending) >= DEPTH:
            self._take()
        self._pending.append(self._pool.submit(self._work, item))

    def check(self) -> None:
        """Raises what `work` has raised so far; does not wait."""
        while self._pending and self._pending[0].done():
            self._take()

    def finish(self) -> None:
        """Waits for all items. Raises what `work` raised."""
        while self._pending:
            self._take()
        self._pool.shutdown()

    def stop(self) -> None:
        """Ends after an error: pending items are still processed, and their own errors are ignored."""
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
    """Starts to copy a tensor to the CPU; the returned function waits for the copy and returns it.

    From a GPU, a separate stream copies into pinned memory while the next batch is computed.

    Args:
        x: a tensor that will not be written to.
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
    """The stream of a device for copies to the CPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
