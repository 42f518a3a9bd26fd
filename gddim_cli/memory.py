"""What to say, and to whom, when something does not fit in the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gddim_cli.errors import CapacityError


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error that torch or NumPy raised says that memory ran out."""
    # Of the CPU's allocator torch has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def memory_for(images: int, device: torch.device) -> Iterator[None]:
    """Says the way out where so many images at once do not fit.

    Raises:
        CapacityError: in place of what torch and NumPy raise then.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise CapacityError(
            f"{images} images at once do not fit in the memory of {device}; "
            "run the same command again with a smaller --batch-size"
        ) from error
