"""Any number of images, read batch by batch and never all held in memory."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from gddim_cli.images.quantize import Pixels
from gddim_cli.images.subset import chosen

AHEAD = 2  # batches read while the caller works on one
Read = Callable[[int, int], Pixels]


@dataclass(frozen=True)
class ImageSource(ABC):
    """Images of one size, all grey or all colour, in a fixed order.

    Attributes:
        name: the path, as the user gave it.
        count: the number of images.
        shape: the shape of each, (H, W, C); C is 1 or 3.
        quantize: how they became uint8, "floor" or "round", if a `run.json` says so.
        ignored: the number of other files in the same place.
        is_run: whether they are a run of gddim, whose order is random.
        rows: for each image, its index among all images of the source.
        chosen_from: if the images are a random choice, the number of those that they were chosen from.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    quantize: str | None = field(default=None, kw_only=True)
    ignored: int = field(default=0, kw_only=True)
    is_run: bool = field(default=False, kw_only=True)
    rows: Sequence[int] = field(default=range(sys.maxsize), kw_only=True, repr=False)
    chosen_from: int | None = field(default=None, kw_only=True)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Pixels]:
        """The images `start` to `stop` (as in a slice), uint8 [B, H, W, C] with B = `size`, or less in the last.

        The following batches are read in the background.

        Raises:
            DataError: an image cannot be read; raised when its turn comes, naming it.
        """
        first, last, _ = slice(start, stop).indices(self.count)
        waiting: deque[Future[Pixels]] = deque()
        with self._opened() as read, ThreadPoolExecutor(self._threads) as pool:
            try:
                for begin in range(first, last, size):
                    waiting.append(pool.submit(read, begin, min(begin + size, last)))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # also if the caller stops early: batches that are being read are awaited, others not begun
                pool.shutdown(cancel_futures=True)

    def at_most(self, num: int) -> Self:
        """The source itself, or `num` of its images: the first ones of a run, else a fixed random choice, in their order."""
        if num >= self.count:
            return self
        if self.is_run:
            return replace(self, count=num)
        rows = [self.rows[i] for i in chosen(self.count, num)]
        return replace(self, count=num, rows=rows, chosen_from=self.chosen_from or self.count)

    def read_all(self, size: int = 64) -> Pixels:
        """All images in memory, uint8 [N, H, W, C].

        Raises:
            DataError: an image cannot be read.
        """
        images = np.empty((self.count, *self.shape), np.uint8)
        for i, batch in enumerate(self.batches(size)):
            images[i * size : i * size + len(batch)] = batch
        return images

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of the images' names and content: any change changes it."""

    @property
    def _threads(self) -> int:
        """Threads that read; with one, the batches are read in their order."""
        return 1

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Read]:
        """A function that reads the images from one index to another."""
