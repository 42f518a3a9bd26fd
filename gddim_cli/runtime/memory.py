"""How much memory there is, and what to say when something does not fit in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gddim_cli.errors import CapacityError

SHORT_OF_MEMORY = (
    "DefaultCPUAllocator",  # of the CPU's allocator torch has no exception of its own
    "out of memory",  # the CUDA driver, Apple
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error that torch or NumPy raised, or what it came from, says that memory ran out."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def physical_memory() -> int:
    """Bytes of memory of this machine; 2^62 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


@contextmanager
def memory_for(images: int, device: torch.device, remedy: str | None = None) -> Iterator[None]:
    """Says the way out where so many images at once do not fit.

    Args:
        remedy: the way out; by default a smaller `--batch-size`.

    Raises:
        CapacityError: in place of what torch and NumPy raise then.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = f" ({images // 2}, or auto, which finds one)" if images > 1 else ""
        if remedy:
            raise CapacityError(f"{images} images at once do not fit in the memory of {device}; {remedy}") from error
        raise CapacityError(
            f"--batch-size: {images} images at once do not fit in the memory of {device}; "
            f"run the same command again with a smaller --batch-size{smaller}"
        ) from error
