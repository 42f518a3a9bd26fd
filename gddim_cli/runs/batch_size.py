"""Batch sizes: measured for `--batch-size auto`, and halved when memory runs out."""

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
"""The smallest ratio of images per second for which a doubled batch is worth its memory."""
MOST = 4096
USABLE = 0.9
"""The share of the free memory that is used; the sampler's history and other programs need the rest."""
FIRST, SECOND = 1, 8
LONG_ENOUGH, MANY = 0.5, 50
"""Seconds, and evaluations, over which the time of one is averaged."""


@dataclass(frozen=True)
class BatchSizeProbe:
    """Times single evaluations of a run's network, uncompiled, at trial batch sizes."""

    prepared: PreparedRun

    def seconds(self, size: int) -> float:
        """Seconds of one evaluation: the faster of two after a warm-up. Raises torch's own error when memory runs out."""
        self._evaluate(size)
        return min(self._evaluate(size) for _ in range(2))

    def mean_seconds(self, size: int) -> float:
        """Seconds of one evaluation: the mean of as many as fit in `LONG_ENOUGH`, so that other work on the machine counts."""
        self._evaluate(size)
        spent = [self._evaluate(size)]
        while sum(spent) < LONG_ENOUGH and len(spent) < MANY:
            spent.append(self._evaluate(size))
        return sum(spent) / len(spent)

    def max_batch_size(self) -> int:
        """The largest batch that fits in a GPU's free memory, estimated from the peaks of two small batches; else `MOST`.

        On the CPU nothing is estimated, because the system may promise more memory than it has.
        """
        device = self.prepared.device
        if device.type != "cuda":
            return MOST
        self._evaluate(FIRST)  # libraries allocate workspaces on their first use
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
    """The number of images, 1 to `MOST`, that fit into `free` bytes, from the peaks of `FIRST` and of `SECOND` images.

    Memory that does not depend on the batch (a library's workspace) counts once.
    """
    each = max((peaks[1] - peaks[0]) / (SECOND - FIRST), 1.0)
    fixed = max(peaks[0] - FIRST * each, 0.0)
    return int(min(max((USABLE * free - fixed) / each, 1), MOST))


def best_size(seconds: Callable[[int], float], most: int) -> int:
    """The smallest power of two, up to `most`, after which images/s grow by less than 5 % for two doublings.

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

    When this returns, the error and the tensors that its frames hold are released; only then is their memory free.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


class OomRetry(Generic[T]):
    """Runs `work` on batches; a batch that does not fit in memory is split in halves. Nothing is lost or done twice.

    Attributes:
        most: the largest batch size since the last failure; None before the first one.
    """

    def __init__(self, work: Callable[[Sequence[int]], T], release: Callable[[], None]) -> None:
        """`work` raises CapacityError when memory runs out; `release` then frees what it can."""
        self.work, self.release = work, release
        self.most: int | None = None

    def __call__(self, indices: Sequence[int]) -> Iterator[T]:
        """The results of the batch, or of its parts in order.

        Raises:
            CapacityError: a single image does not fit.
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
