"""Work for another thread, so that encoding and writing do not hold up the computing; and copies that a GPU makes meanwhile."""

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
"""Pieces that may be under way: the one being written and one that waits, so that memory stays flat."""


class Writer(Generic[T, R]):
    """Does `work` on the things that it is given, in order, on one thread of its own.

    Its errors come out on the calling thread, at the next call; `on_done` is called there too.
    """

    def __init__(self, work: Callable[[T], R], on_done: Callable[[R], object]) -> None:
        """Args: `work` for each thing; `on_done` with each result, in order."""
        self._work, self._on_done = work, on_done
        self._pool = ThreadPoolExecutor(1, "writer")
        self._pending: deque[Future[R]] = deque()

    def put(self, thing: T) -> None:
        """Hands over; waits while `DEPTH` things are under way. Raises what `work` raised on an earlier one."""
        while len(self._pending) >= DEPTH:
            self._take()
        self._pending.append(self._pool.submit(self._work, thing))

    def check(self) -> None:
        """Raises what `work` raised, if it did; does not wait."""
        while self._pending and self._pending[0].done():
            self._take()

    def finish(self) -> None:
        """Waits for all that was handed over. Raises what `work` raised."""
        while self._pending:
            self._take()
        self._pool.shutdown()

    def stop(self) -> None:
        """Ends after an error: what was handed over is still done; errors of its own are no longer news."""
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
    """Starts bringing a tensor to the CPU; the returned function waits for it.

    From a GPU it goes by a stream of its own into pinned memory, while the next batch computes.

    Args:
        x: a tensor that nobody will write to.
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
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
