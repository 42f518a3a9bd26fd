"""CLD-SGM's training states (Dockhorn et al., arXiv 2112.07068).

The network predicts the learned part of the velocity's score (`mixed_score`).
"""

from __future__ import annotations

from pathlib import Path

from gddim_cli.checkpoints.formats import ncsnpp
from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.checkpoints.formats.torch_outline import ncsnpp_channels


def detect(path: Path) -> bool:
    """Whether the file is a training state whose network takes two images (position and velocity) and returns one."""
    channels = ncsnpp_channels(path)
    return channels is not None and channels[0] == 2 * channels[1]


def read(path: Path) -> Contents:
    """The averaged weights by name (`3.weight` and so on)."""
    from gddim_cli.checkpoints.formats import torch_pickle

    return Contents(torch_pickle.read_training_state(path))


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card and tensors of the released model or of a variant of it. See `ncsnpp.convert`."""
    like = conversion.like or conversion.find_card("cldsgm-cifar10")
    return ncsnpp.convert(contents, conversion, "torch", like)


SPEC = FormatSpec(
    "cldsgm", "training state of CLD-SGM's program (torch)", detect, read, convert, options=ncsnpp.Options
)
