"""What a number people compare is measured with: reference, mode, quantisation and count together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gddim_cli.errors import UsageError, nearest
from gddim_cli.evaluation.extractors import Mode

FULL = 50_000
"""Images that FID is quoted of; of fewer it is FID@N."""


@dataclass(frozen=True)
class Protocol:
    """One published way of measuring.

    Attributes:
        ref: the named reference.
        mode: how images come to the network.
        quantize: how [-1, 1] became uint8.
        num: images.
        source: who measures so.
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


def find_protocol(name: str) -> Protocol:
    """Raises UsageError for an unknown one."""
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol: there is no '{name}'; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
