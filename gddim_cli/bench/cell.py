"""One cell of a benchmark, and the settings that plans have besides those of sampling, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.protocols import PROTOCOLS, Mode
from gddim_cli.runs.request import SamplingRequest, sampling_settings
from gddim_cli.settings import Setting, about, declared

MetricText = Annotated[
    str,
    about(
        "Metric, with options as in kid:subsets=50. Metrics of the same images share them.",
        panel="Metrics",
        metavar="NAME",
        complete=lambda: list(METRICS),
    ),
]
Num = Annotated[
    int, about("Images per cell. Default: the plan's, or the protocol's.", panel="Images", short="-n", ge=2, most=10**7)
]
Ref = Annotated[
    str, about("Reference, as for gddim fid: a name, or an .npz of statistics.", panel="Reference", metavar="NAME|PATH")
]
ProtocolName = Annotated[
    str,
    about(
        "Published protocol: reference, mode, quantisation and number of images.",
        panel="Reference",
        metavar="|".join(PROTOCOLS),
        complete=lambda: list(PROTOCOLS),
    ),
]
ModeName = Annotated[Mode, about("How images come to which network. Default: the reference's.", panel="Reference")]
Inception = Annotated[
    str, about("Another network with Inception's interface.", panel="Reference", metavar="FILE", min_length=1)
]
Title = Annotated[str, about("Title of the table that the cells of a row stand in.", min_length=1)]
Published = Annotated[str, about("Row of the paper's tables to print beside the cells, as table1.R.")]
Toggle = Annotated[
    bool, about("Measure deterministic samplers' distance to the converged solution, too.", panel="Metrics")
]
Images = Annotated[int, about("Images for --solver-error. Default: 16.", panel="Metrics", ge=1, le=10_000)]
Keep = Annotated[bool, about("Keep each cell's images, in a folder that gddim sample can continue.", panel="Output")]
Out = Annotated[
    str, about("Folder of the benchmark. Rerunning the same command resumes it.", panel="Output", metavar="FOLDER")
]
BatchSize = Annotated[
    int, about("Batch size. Affects speed, not results (except with rk45).", panel="Speed", ge=1, le=100_000)
]
Device = Annotated[
    str, about("Device; auto takes a GPU if there is one.", panel="Speed", metavar="auto|cpu|cuda|mps", min_length=1)
]


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value to measure: which images, how they are evaluated, and where the value is printed.

    Attributes:
        request: what to sample, as the plan says it.
        num: number of images; None stands for the protocol's.
        table: title of the table; cells with the same title share one.
        key: of the cell's result, once the plan has been checked.
    """

    request: SamplingRequest
    metric: MetricText = "fid"
    num: Num | None = None
    ref: Ref | None = None
    protocol: ProtocolName | None = None
    mode: ModeName | None = None
    inception: Inception | None = None
    table: Title = ""
    published: Published | None = None
    key: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any], where: Mapping[str, str]) -> Cell:
        """The cell of checked values by key; raises UsageError as `SamplingRequest.of`."""
        own = {key: value for key, value in given.items() if key in declared(cls)}
        rest = {"seed" if key == "seeds" else key: value for key, value in given.items() if key not in own}
        return cls(request=SamplingRequest.of(rest, where), **own)


class PlanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a plan as a whole."""

    solver_error: Toggle | None = None
    solver_error_images: Images | None = None
    keep_images: Keep = False
    out: Out = "bench"
    batch_size: BatchSize = 64
    device: Device = "auto"


PLAN_SETTINGS = declared(PlanSettings)


def cell_settings() -> dict[str, Setting]:
    """Every setting of a cell by key; `seeds` is a list of `seed`. Without a value the plan's holds."""
    found = {**sampling_settings(), **declared(Cell)}
    seed = found.pop("seed")
    about_seeds = replace(seed.about, flag="--seeds")
    found["seeds"] = replace(seed, key="seeds", help="Seeds; tables show mean and spread.", about=about_seeds)
    which = "Checkpoint: a name that `gddim checkpoints` lists, or the path of a file. Default: mnist."
    found["checkpoint"] = replace(found["checkpoint"], help=which)
    return {key: replace(setting, default=None) for key, setting in found.items()}
