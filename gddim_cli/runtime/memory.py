"""The size of the machine's memory, and the recognition and reporting of out-of-memory errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gddim_cli.errors import CapacityError
from gddim_cli.runtime.text import message_of

SHORT_OF_MEMORY = (
    "DefaultCPUAllocator",  # torch on the CPU, where it raises a plain RuntimeError
    "out of memory",  # the CUDA driver, and Apple GPUs
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine",  # cuDNN, if no algorithm has a workspace that fits
)
"""Parts of messages by which a RuntimeError is recognized as an out-of-memory error."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error of torch or NumPy, or an error that caused it, means that memory has run out."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in message_of(error) for words in SHORT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def physical_memory() -> int:
    """The physical memory of this machine in bytes; 2^62 if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


@contextmanager
def memory_for(images: int, device: torch.device, remedy: str | None = None) -> Iterator[None]:
    """A context for work on a batch of images that may run out of memory.

    Args:
        images: the batch size.
        remedy: the advice in the message. Default: a smaller `--batch-size`.

    Raises:
        CapacityError: memory has run out. It replaces the error that torch or NumPy has raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if remedy:
            raise CapacityError(f"{images} images at once do not fit in the memory of {device}; {remedy}") from error
        smaller = f"a smaller --batch-size ({images // 2}, or auto)" if images > 1 else "smaller images or more memory"
        raise CapacityError(
            f"--batch-size: {images} images at once do not fit in the memory of {device}; rerun the same command with "
            f"{smaller}"
        ) from error
