"""Any number of images, read batch by batch, so that they need not fit into memory."""

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

AHEAD = 2  # batches that are read in advance while the caller works on one
Read = Callable[[int, int], Pixels]


@dataclass(frozen=True)
class ImageSource(ABC):
    """Images of one size, all gray or all color, in a fixed order.

    Attributes:
        name: the path, as the user gave it.
        count: the number of images.
        shape: the shape of each image, (H, W, C); C is 1 or 3.
        quantize: how the images were converted to uint8, "floor" or "round"; None if no `run.json` records it.
        ignored: the number of other files in the folder or archive.
        is_run: whether the images are a run of gddim. The first images of a run are a random sample.
        rows: for each image, its index among the images of the original source, before `at_most` chose a subset.
        chosen_from: if the images are a random subset, the number of images from which it was chosen.
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
        """The images `start` to `stop` (as in a slice), uint8 [B, H, W, C]; B is `size`, or less in the last batch.

        Meanwhile, the next batches are read in the background.

        Raises:
            DataError: an image cannot be read. The error names the image and is raised when its batch is due.
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
            finally:
                # If the caller stops early, this waits for the batches that are being read and cancels the others.
                pool.shutdown(cancel_futures=True)

    def at_most(self, num: int) -> Self:
        """The source itself if it has at most `num` images, else a source of `num` of them.

        From a run, the first images are taken; from any other source, a fixed random subset in the source's order.
        """
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
        """A SHA-256, hexadecimal, which changes with any change to the images or to the names of picture files."""

    @property
    def _threads(self) -> int:
        """The number of threads that read batches. With one thread, batches are read in their order."""
        return 1

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Read]:
        """A context with a function that reads the images from one index to another (exclusive)."""
