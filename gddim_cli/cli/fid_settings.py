"""The settings of `gddim fid`, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gddim_cli.cli.shared_settings import Force, Machine
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.evaluation.settings import Features, Inception, ModeName, ProtocolName, Text
from gddim_cli.settings import about

NUM = (
    "Evaluate only this many images: the first ones if IMAGES is a run of gddim sample, otherwise a fixed random subset. "
    "Default: all, or the number that --protocol fixes."
)
REF = (
    "Reference to compare the images with: mnist or cifar10 (or with the suffix :train or :test), cifar10-edm, cifar10-tf, "
    "cifar10-scoresde, the path of other images, or an .npz of statistics. May be given several times, or as a "
    "comma-separated list. Default: mnist or cifar10, depending on the shape of the images."
)
METRICS_HELP = (
    "Metrics to compute: fid, fid-infinity (FID extrapolated to infinitely many images), kid, prdc (precision, recall, "
    "density, coverage), is (the Inception Score, which needs no reference), dino (FD-DINOv2), or a metric from a plugin or "
    "a Python file. The options of a metric follow its name, as in prdc:k=3. Default: fid."
)
SAVE_STATS = "Also write the statistics of the images to this file, for use as --ref."
BATCH_SIZE = "Number of images per batch. It affects the speed, and changes metrics only by rounding."
CACHE = "Cache the features, so that measuring the same images again is fast. Default: on."
KEY = "Name of the .npz array with the images. Default: the only array of images."

References = Annotated[list[str], about(REF, panel="Reference", metavar="NAME|PATH", complete=REFERENCES.keys)]


class FidSettings(Machine, frozen=True, kw_only=True):
    """What `gddim fid` measures, and how."""

    num: Annotated[int, about(NUM, panel="Images", short="-n", le=10**12)] | None = None
    ref: References | None = None
    protocol: ProtocolName | None = None
    mode: ModeName | None = None
    features: Features | None = None
    metrics: Annotated[Text, about(METRICS_HELP, panel="Metrics", metavar="NAME,...", complete=METRICS.keys)] = "fid"
    save_stats: Annotated[Path, about(SAVE_STATS, panel="Output", metavar="FILE.npz")] | None = None
    force: Force = False
    batch_size: Annotated[int, about(BATCH_SIZE, panel="Speed", ge=1, le=1_000_000)] = 64
    cache: Annotated[bool, about(CACHE, panel="Speed")] = True
    key: Annotated[Text, about(KEY, panel="Advanced", metavar="KEY")] | None = None
    inception: Inception | None = None
