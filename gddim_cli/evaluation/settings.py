"""The settings that choose a network and a published protocol, for `gddim fid` and for plans."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gddim_cli.evaluation.protocols import MODES, PROTOCOLS
from gddim_cli.settings import about

PROTOCOL = "Published protocol for FID. It fixes the reference, the mode, the quantization and the number of images."
MODE = (
    "Feature network, and how images are resized for it: legacy_tensorflow, clean, legacy_pytorch (as in clean-fid), dinov2 "
    "or lenet. Default: the mode that the reference was made with. If the reference consists of images: lenet for digits, "
    "otherwise legacy_tensorflow."
)
FEATURES = (
    "Your own network, which maps images [N, C, H, W] in [0, 255] to features [N, d]: a TorchScript file, or a "
    "function in a Python file that returns the network (mine.py:build). The result is named after the file."
)
INCEPTION = "Another file to use as the Inception network. The result is then called FD(FILE), not FID."

Text = Annotated[str, msgspec.Meta(min_length=1)]
ProtocolName = Annotated[Text, about(PROTOCOL, panel="Reference", metavar="|".join(PROTOCOLS), complete=PROTOCOLS.keys)]
ModeName = Annotated[Text, about(MODE, panel="Reference", metavar="MODE", complete=MODES.__iter__)]
Features = Annotated[Text, about(FEATURES, panel="Reference", metavar="FILE")]
Inception = Annotated[Text, about(INCEPTION, panel="Reference", metavar="FILE")]
