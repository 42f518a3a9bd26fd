"""Published protocols, which fix reference, mode, quantization and number of images. This module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gddim_cli.errors import UsageError, nearest

Mode = Literal["legacy_tensorflow", "clean", "legacy_pytorch", "dinov2", "lenet"]
"""A network and how images are resized for it: clean-fid's three modes, DINOv2, and the bundled classifier of digits."""
MODES: tuple[Mode, ...] = get_args(Mode)
INCEPTION_MODES: tuple[Mode, ...] = ("legacy_tensorflow", "clean", "legacy_pytorch")
DEFAULT_MODE: Mode = "legacy_tensorflow"
FULL = 50_000
"""The number of images in published FID values. If fewer are measured, the label states their number: FID@N."""


@dataclass(frozen=True)
class Protocol:
    """One published way of measuring FID.

    Attributes:
        ref: the named reference.
        mode: the network, and how images are resized for it.
        quantize: how images in [-1, 1] become uint8.
        num: the number of images.
        source: the paper that uses it.
    """

    name: str
    ref: str
    mode: Mode
    quantize: Literal["floor", "round"]
    num: int
    source: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("gddim-paper", "cifar10-tf", "legacy_tensorflow", "floor", FULL, "arXiv 2206.05564"),
        Protocol("edm", "cifar10-edm", "legacy_tensorflow", "round", FULL, "arXiv 2206.00364"),
        Protocol("clean", "cifar10", "clean", "round", FULL, "arXiv 2104.11222"),
    )
}


def find_mode(name: str) -> Mode:
    """The mode of that name; raises UsageError for an unknown name."""
    if name not in MODES:
        raise UsageError(f"--mode: there is no '{name}'; {nearest(name, MODES)}")
    return name


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; raises UsageError for an unknown name."""
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol: there is no '{name}'; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
