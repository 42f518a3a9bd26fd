"""The settings that choose a network and a published protocol, for `gddim fid` and for plans."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gddim_cli.evaluation.protocols import MODES, PROTOCOLS
from gddim_cli.settings import about

PROTOCOL = "Published protocol for FID. It fixes the reference, the mode, the quantization and the number of images."
MODE = (
    "Feature network, and how images are resized for it: legacy_tensorflow, clean or legacy_pytorch (clean-fid's modes), "
    "dinov2, or lenet. Default: the mode with which the reference's statistics were made. If the reference consists of "
    "images, the default is lenet for digits and legacy_tensorflow for other images."
)
FEATURES = (
    "Feature network of your own: a TorchScript file, or a function in a Python file that returns the network, such as "
    "mine.py:build. The network maps images [N, C, H, W] in [0, 255] to features [N, d]. The result is named after FILE."
)
INCEPTION = (
    "File of a network to use instead of the downloaded Inception network. The result is then called FD(FILE), not FID."
)

Text = Annotated[str, msgspec.Meta(min_length=1)]
ProtocolName = Annotated[Text, about(PROTOCOL, panel="Reference", metavar="|".join(PROTOCOLS), complete=PROTOCOLS.keys)]
ModeName = Annotated[Text, about(MODE, panel="Reference", metavar="MODE", complete=MODES.__iter__)]
Features = Annotated[Text, about(FEATURES, panel="Reference", metavar="FILE")]
Inception = Annotated[Text, about(INCEPTION, panel="Reference", metavar="FILE")]
