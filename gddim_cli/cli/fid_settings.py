"""The settings of `gddim fid`, each declared once."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.protocols import MODES, PROTOCOLS
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.settings import about, declared

NUM = "Evaluate only this many images: a fixed random subset, or the first ones of a run of gddim sample. Default: all."
REF = (
    "Reference to compare the images with: mnist or cifar10 (each with :train or :test), cifar10-edm, cifar10-tf, "
    "cifar10-scoresde, the path of other images, or an .npz of statistics. May be given several times, or as a "
    "comma-separated list. Default: mnist or cifar10, by the shape of the images."
)
PROTOCOL = "A published way to measure FID: fixes reference, mode, quantisation and number of images."
MODE = (
    "The network and how images are resized for it: legacy_tensorflow, clean, legacy_pytorch (as in clean-fid), dinov2 or "
    "lenet. Default: the mode the reference was made with, else legacy_tensorflow."
)
METRICS_HELP = (
    "Metrics to compute: fid, fid-infinity (extrapolated to infinitely many images), kid, prdc (precision, recall, density, "
    "coverage), is (Inception Score, without a reference), dino (FD-DINOv2), a plugin's, or a Python file. Options follow a "
    "name: prdc:k=3. Default: fid."
)
SAVE_STATS = "Also write the statistics of the images to this file, for use as --ref."
BATCH_SIZE = "Batch size. Affects speed; values change only by rounding."
CACHE = "Cache the features, so that measuring the same images again takes no time. Default: cache."
KEY = "Name of the array of an .npz that holds the images. Default: the only array of images."
FEATURES = (
    "A network of your own, as a function in a Python file that returns it (mine.py:build) or a TorchScript file. Maps images "
    "[N, C, H, W] in [0, 255] to features [N, d]; the result is named after the file."
)
INCEPTION = "Another network with Inception's interface. The result is then FD(FILE), which is not FID."
Text = Annotated[str, msgspec.Meta(min_length=1)]


class FidSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `gddim fid` measures, and how."""

    num: Annotated[int, about(NUM, panel="Images", short="-n", le=10**12)] | None = None
    ref: Annotated[list[str], about(REF, panel="Reference", metavar="NAME|PATH", complete=REFERENCES.keys)] = []
    protocol: (
        Annotated[Text, about(PROTOCOL, panel="Reference", metavar="|".join(PROTOCOLS), complete=PROTOCOLS.keys)] | None
    ) = None
    mode: Annotated[Text, about(MODE, panel="Reference", metavar="MODE", complete=MODES.__iter__)] | None = None
    features: Annotated[Text, about(FEATURES, panel="Reference", metavar="FILE")] | None = None
    metrics: Annotated[Text, about(METRICS_HELP, panel="Metrics", metavar="NAME,...", complete=METRICS.keys)] = "fid"
    save_stats: Annotated[Text, about(SAVE_STATS, panel="Output", metavar="FILE.npz")] | None = None
    batch_size: Annotated[int, about(BATCH_SIZE, panel="Speed", ge=1, le=1_000_000)] = 64
    cache: Annotated[bool, about(CACHE, panel="Speed")] = True
    key: Annotated[Text, about(KEY, panel="Advanced", metavar="KEY")] | None = None
    inception: Annotated[Text, about(INCEPTION, panel="Advanced", metavar="FILE")] | None = None


FID_SETTINGS = declared(FidSettings)
