"""How many images at once: a size measured where none is given, and halves where memory ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from gddim_cli.errors import CapacityError
from gddim_cli.models.acceleration import Accelerated
from gddim_cli.runs.sampler import Sampler
from gddim_cli.runtime.memory import is_out_of_memory

T = TypeVar("T")

GAIN = 1.05
"""A doubled batch that makes fewer images more a second than this is not worth its memory."""
MOST = 4096
USABLE = 0.9
"""Of the free memory: the sampler's history and other programs need some."""
FIRST, SECOND = 1, 8


@dataclass(frozen=True)
class BatchSizeProbe:
    """Single evaluations of a sampler's network, uncompiled, at sizes that are only tried."""

    sampler: Sampler

    def seconds(self, size: int) -> float:
        """The quicker of two, after one that warms up. Raises what torch raises where memory ends."""
        self._evaluate(size)
        return min(self._evaluate(size) for _ in range(2))

    def room(self) -> int:
        """How many images the free memory of a GPU holds, from the peaks of two small batches; elsewhere `MOST`.

        Of the CPU's memory more can be promised than there is, so nothing is estimated there.
        """
        device = self.sampler.device
        if device.type != "cuda":
            return MOST
        self._evaluate(FIRST)  # what libraries keep from their first use on is no image's
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
        sampler, images = self.sampler, self.sampler.checkpoint.card.images
        network = sampler.checkpoint.network.network
        shape = (size, sampler.diffusion.D, images.channels, images.size, images.size)
        u = torch.zeros(shape, dtype=sampler.dtype, device=sampler.device)
        with network.plainly() if isinstance(network, Accelerated) else nullcontext():
            started = time.perf_counter()
            sampler.eps(u, sampler.diffusion.sampling.t_start)
            if u.is_cuda:
                torch.cuda.synchronize(u.device)
        return time.perf_counter() - started


def fitting(peaks: Sequence[int], free: int) -> int:
    """How many images fit into `free` bytes, when `FIRST` and `SECOND` of them took `peaks`: 1 to `MOST`.

    What is there for any batch (a library's workspace) counts once.
    """
    each = max((peaks[1] - peaks[0]) / (SECOND - FIRST), 1.0)
    fixed = max(peaks[0] - FIRST * each, 0.0)
    return int(min(max((USABLE * free - fixed) / each, 1), MOST))


def best_size(seconds: Callable[[int], float], most: int) -> int:
    """The batch size, a power of two up to `most`, after which images/s grow by less than 5 % for two doublings.

    Args:
        seconds: what one evaluation of so many images takes.
        most: not to be exceeded.

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
        raise CapacityError("--batch-size auto: not even one image fits in the memory; --device or --dtype may help")
    return best


def attempt(work: Callable[[], T]) -> T | None:
    """What `work` returns; None where memory ended.

    The error, and with it what its frames hold, is gone when this returns: only then is their memory free.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


class OomRetry(Generic[T]):
    """Does work on batches, and where one does not fit into the memory, on its halves: nothing is lost, or done twice.

    Attributes:
        most: the size that batches are cut to from now on; None before anything failed.
    """

    def __init__(self, work: Callable[[Sequence[int]], T], release: Callable[[], None]) -> None:
        """Args: `work`, which raises CapacityError; `release` frees memory after that."""
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
