"""The extractor of each mode."""

from __future__ import annotations

from pathlib import Path

import torch

from gddim_cli.errors import UsageError, nearest
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.extractors.dinov2 import load_dinov2
from gddim_cli.evaluation.extractors.inception import load_inception
from gddim_cli.evaluation.extractors.lenet import SCORES, load_lenet
from gddim_cli.evaluation.protocols import INCEPTION_MODES, MODES


def load_extractor(mode: str, device: torch.device, inception: Path | None = None) -> Extractor:
    """The extractor of a mode. In Inception's modes, the file `inception`, if given, replaces the published network.

    Raises:
        UsageError: the mode is unknown, or `inception` is given for a mode of another network.
        DataError: the weights are not on this machine, do not match their card, or cannot be read.
    """
    if mode in INCEPTION_MODES:
        return load_inception(mode, device, inception)
    if inception is not None and mode in ("lenet", SCORES):
        raise UsageError(
            "--inception: this reference is measured with lenet-mnist, not with Inception; choose a mode of Inception "
            "with --mode"
        )
    if inception is not None:
        raise UsageError(
            f"--inception: mode {mode} uses another network than Inception; leave out one of the two options"
        )
    if mode in ("lenet", SCORES):
        return load_lenet(device, mode=mode)
    if mode == "dinov2":
        return load_dinov2(device)
    raise UsageError(f"--mode: there is no '{mode}'; {nearest(mode, MODES)}")
