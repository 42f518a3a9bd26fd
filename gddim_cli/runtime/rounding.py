"""Switches TF32 on or off within a context. TF32 rounds the inputs of float32 products to 10 bits of mantissa."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import backends

T = TypeVar("T")
MATMUL: Any = backends.cuda.matmul
CUDNN: Any = backends.cudnn
PRECISION = "fp32_precision"
"""The name of the setting that replaces `allow_tf32`, since torch 2.9."""
# torch warns when the older interface is used; `Switches` explains why both are used.
warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")


@contextmanager
def rounding(tf32: bool) -> Iterator[None]:
    """A context, or a decorator, in which products of float32 are computed with or without TF32.

    It overrides the setting of the process or of the environment variable TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, and
    restores that setting afterwards. Training, feature networks and the sampler's own products never use TF32.
    """
    before, during = Switches.read(), Switches.all(tf32)
    if before == during:
        yield
        return
    during.write()
    try:
        yield
    finally:
        before.write()


def without_tf32(items: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, each computed without TF32; between two items the caller's setting applies."""
    while True:
        with rounding(tf32=False):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


@dataclass(frozen=True)
class Switches:
    """torch's switches for TF32, which hold for the whole process.

    torch 2.9 and later have two interfaces to one state. torch's compiler reads the older one, which raises an error if
    only the newer one has been changed. Therefore both are set. The newer one is set last, so that its values hold.

    Attributes:
        allowed: `allow_tf32` of matrix products and of convolutions; None if reading it raises an error.
        precision: `fp32_precision` of matrix products, convolutions and recurrent networks; empty before torch 2.9.
    """

    allowed: tuple[bool | None, bool | None]
    precision: tuple[str, ...]

    @classmethod
    def all(cls, tf32: bool) -> Switches:
        """All switches on, or all off."""
        return cls((tf32, tf32), ("tf32" if tf32 else "ieee",) * len(precise()))

    @classmethod
    def read(cls) -> Switches:
        """The current state of the switches."""
        return cls((allowed(MATMUL), allowed(CUDNN)), tuple(getattr(part, PRECISION) for part in precise()))

    def write(self) -> None:
        """Sets the switches."""
        for part, value in zip((MATMUL, CUDNN), self.allowed, strict=True):
            if value is not None:
                part.allow_tf32 = value
        for part, name in zip(precise(), self.precision, strict=True):
            setattr(part, PRECISION, name)


def allowed(part: Any) -> bool | None:
    """`allow_tf32` of a part of torch; None if reading it raises an error (see `Switches`)."""
    with suppress(RuntimeError):
        return bool(part.allow_tf32)
    return None


def precise() -> list[Any]:
    """The parts of torch whose `fp32_precision` can be set; empty before torch 2.9."""
    return [MATMUL, CUDNN.conv, CUDNN.rnn] if hasattr(MATMUL, PRECISION) else []
