"""The settings that choose a network and a published protocol, for `gddim fid` and for plans."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gddim_cli.evaluation.protocols import MODES, PROTOCOLS
from gddim_cli.settings import about

PROTOCOL = "A published protocol for FID, which fixes reference, mode, quantisation and number of images."
MODE = (
    "The network and how images are resized for it: legacy_tensorflow, clean, legacy_pytorch (as in clean-fid), dinov2 or "
    "lenet. Default: the mode the reference was made with; for a reference of digit images, lenet; else "
    "legacy_tensorflow."
)
FEATURES = (
    "A network of your own that maps images [N, C, H, W] in [0, 255] to features [N, d]: a TorchScript file, or a "
    "function in a Python file that returns the network (mine.py:build). The result is named after the file."
)
INCEPTION = "Another network with Inception's interface. The result is then FD(FILE), which is not FID."

Text = Annotated[str, msgspec.Meta(min_length=1)]
ProtocolName = Annotated[Text, about(PROTOCOL, panel="Reference", metavar="|".join(PROTOCOLS), complete=PROTOCOLS.keys)]
ModeName = Annotated[Text, about(MODE, panel="Reference", metavar="MODE", complete=MODES.__iter__)]
Features = Annotated[Text, about(FEATURES, panel="Reference", metavar="FILE")]
Inception = Annotated[Text, about(INCEPTION, panel="Reference", metavar="FILE")]
