"""The settings of one cell of a benchmark, which is one value to measure, and the settings of a plan as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.settings import Features, Inception, ModeName, ProtocolName, Text
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.settings import about, declared

REF = "Reference, as for gddim fid. With --ref none, gddim draws pictures and measures solver errors only."
NO_REFERENCE = "none"
NUM = "Images per cell. Default: the plan's or the protocol's number."
METRIC = "Metric; its options follow the name, as in kid:subsets=50. Several metrics measure the same images."
SOLVER_ERROR = "Also measure the distance of deterministic samplers from the converged solution."
KEEP_IMAGES = "Keep the images of each cell in a folder of its own. gddim sample can add images to such a folder."
OUT = "Output folder. Rerun the same command to resume."
BATCH_SIZE = "Number of images per batch. It affects the speed, and changes values only by rounding, except with rk45."


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value to measure: its images, their evaluation, and the table that shows the value.

    `request` is not yet resolved. If `num` is None, the protocol or a default gives the number of images. `key` is the
    key of the cell's result; it is empty until the cell has been checked.
    """

    request: SamplingRequest
    metric: Annotated[str, about(METRIC, panel="Metrics", metavar="NAME", complete=METRICS.keys)] = "fid"
    num: Annotated[int, about(NUM, panel="Images", short="-n", ge=2, most=10**7)] | None = None
    ref: Annotated[Text, about(REF, panel="Reference", metavar="NAME|PATH")] | None = None
    protocol: ProtocolName | None = None
    mode: ModeName | None = None
    inception: Inception | None = None
    features: Features | None = None
    table: Annotated[Text, about("Title of the table that shows the row's cells.")] = ""
    published: Annotated[Text, about("Row of the paper's tables to compare with, such as table1.R.")] | None = None
    key: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any], where: Mapping[str, str]) -> Cell:
        """A cell from checked settings by key. `where` and UsageError are as in `SamplingRequest.of`."""
        own = {key: value for key, value in given.items() if key in declared(cls)}
        own["table"] = " ".join(own.get("table", "").split())
        rest = {"seed" if key == "seeds" else key: value for key, value in given.items() if key not in own}
        return cls(request=SamplingRequest.of(rest, where), **own)


class PlanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a plan as a whole."""

    solver_error: Annotated[bool, about(SOLVER_ERROR, panel="Metrics")] | None = None
    solver_error_images: Annotated[
        int, about("Number of images for --solver-error.", panel="Metrics", ge=1, le=10_000)
    ] = 16
    keep_images: Annotated[bool, about(KEEP_IMAGES, panel="Output")] = False
    out: Annotated[Text, about(OUT, panel="Output", metavar="FOLDER")] = "bench"
    batch_size: Annotated[int, about(BATCH_SIZE, panel="Speed", ge=1, le=100_000)] = 64
    device: Annotated[Text, about("Device on which networks run.", panel="Speed", metavar="auto|cpu|cuda|mps")] = "auto"


PLAN_SETTINGS = declared(PlanSettings)
