"""Measures a batch size for `--batch-size auto`, and splits batches that do not fit in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from gddim_cli.errors import CapacityError
from gddim_cli.models.acceleration import Accelerated
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runtime.memory import is_out_of_memory

T = TypeVar("T")

GAIN = 1.05
"""The factor by which a larger batch size must raise the images per second to be worth its memory."""
MOST = 4096
"""The largest batch size to consider."""
USABLE = 0.9
"""The fraction of the free GPU memory to use. The rest is left for the sampler's history and for other programs."""
FIRST, SECOND = 1, 8
"""The two batch sizes from whose peak memory `max_batch_size` extrapolates."""
LONG_ENOUGH, MANY = 0.5, 50
"""`mean_seconds` stops repeating an evaluation after this many seconds, or this many evaluations."""


@dataclass(frozen=True)
class BatchSizeProbe:
    """Times single evaluations of a run's network at trial batch sizes, without compilation or CUDA graphs."""

    prepared: PreparedRun

    def seconds(self, size: int) -> float:
        """The seconds of one evaluation: the faster of two, after a warm-up. Raises torch's own error if memory runs out."""
        self._evaluate(size)
        return min(self._evaluate(size) for _ in range(2))

    def mean_seconds(self, size: int) -> float:
        """The mean number of seconds that one evaluation takes, after a warm-up.

        Unlike the fastest evaluation, the mean includes the slowdown by other programs on the machine.
        """
        self._evaluate(size)
        spent = [self._evaluate(size)]
        while sum(spent) < LONG_ENOUGH and len(spent) < MANY:
            spent.append(self._evaluate(size))
        return sum(spent) / len(spent)

    def max_batch_size(self) -> int:
        """The largest batch size that fits in a GPU's free memory, extrapolated from the peak memory of two batches.

        On other devices, returns `MOST`. Their free memory is not known, because an operating system may grant more
        memory than the machine has.
        """
        device = self.prepared.device
        if device.type != "cuda":
            return MOST
        self._evaluate(FIRST)  # Libraries allocate workspaces on their first use.
        peaks = []
        for size in (FIRST, SECOND):
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            self._evaluate(size)
            peaks.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.empty_cache()
        return fitting(peaks, torch.cuda.mem_get_info(device)[0])

    @torch.inference_mode()
    def _evaluate(self, size: int) -> float:
        prepared = self.prepared
        network = prepared.model.network.network
        shape = (size, *prepared.state_shape)
        u = torch.zeros(shape, dtype=prepared.dtype, device=prepared.device)
        with network.plainly() if isinstance(network, Accelerated) else nullcontext():
            started = time.perf_counter()
            prepared.eps(u, prepared.config.t_start)
            if u.is_cuda:
                torch.cuda.synchronize(u.device)
        return time.perf_counter() - started


def fitting(peaks: Sequence[int], free: int) -> int:
    """The number of images that fit into the usable part of `free` bytes, but at least 1 and at most `MOST`.

    The memory of a batch is modeled as a constant, such as a library's workspace, plus an amount per image.

    Args:
        peaks: the peak memory, in bytes, of a batch of `FIRST` images and of a batch of `SECOND` images.
    """
    each = max((peaks[1] - peaks[0]) / (SECOND - FIRST), 1.0)
    fixed = max(peaks[0] - FIRST * each, 0.0)
    return int(min(max((USABLE * free - fixed) / each, 1), MOST))


def best_size(seconds: Callable[[int], float], most: int) -> int:
    """Doubles the batch size, from 1, until two doublings in a row bring no gain; returns the last size with a gain.

    A gain means over 5 % more images per second than the best size so far. The search also ends at the first batch size
    that does not fit in memory.

    Args:
        seconds: maps a batch size to the seconds of one evaluation.
        most: the largest batch size to try.

    Raises:
        CapacityError: not even one image fits.
    """
    best, rate, tried, idle = 0, 0.0, 1, 0
    while tried <= most and idle < 2:
        spent = attempt(lambda size=tried: seconds(size))  # type: ignore[misc]
        if spent is None:
            break
        idle += 1
        if tried / spent > GAIN * rate:
            best, rate, idle = tried, tried / spent, 0
        tried *= 2
    if not best:
        raise CapacityError("--batch-size auto: not even one image fits in memory; try another --device or --dtype")
    return best


def attempt(work: Callable[[], T]) -> T | None:
    """The result of `work`; None if memory ran out.

    An out-of-memory error keeps the tensors of its stack frames alive. Once this function has returned None, nothing
    refers to the error any more, and the memory of these tensors is free.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


class OomRetry(Generic[T]):
    """Runs `work` on batches. A batch that does not fit in memory is split in halves.

    The results cover every image of a batch exactly once.

    Attributes:
        most: the largest batch size to try, which is half of the size that last failed; None before the first failure.
    """

    def __init__(self, work: Callable[[Sequence[int]], T], release: Callable[[], None]) -> None:
        """`work` makes a batch, or raises CapacityError if memory runs out; `release` then frees memory."""
        self.work, self.release = work, release
        self.most: int | None = None

    def __call__(self, indices: Sequence[int]) -> Iterator[T]:
        """Yields the result of the batch or, if the batch was split, the results of its parts in order.

        Raises:
            CapacityError: not even a single image fits in memory.
        """
        if self.most is None or len(indices) <= self.most:
            try:
                made = self.work(indices)
            except CapacityError:
                if len(indices) == 1:
                    raise
            else:
                yield made
                return
            self.most = (len(indices) + 1) // 2
            self.release()
        half = (len(indices) + 1) // 2
        yield from self(indices[:half])
        yield from self(indices[half:])
