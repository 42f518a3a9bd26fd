"""One cell of a benchmark, and the settings that plans have besides those of sampling, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from gddim_cli.bench.published import require_row
from gddim_cli.evaluation.metrics.registry import METRICS, find_metric
from gddim_cli.evaluation.protocols import PROTOCOLS, Mode, find_protocol
from gddim_cli.runs.request import SamplingRequest, sampling_settings
from gddim_cli.samplers.registry import SAMPLERS
from gddim_cli.settings import Setting, about, declared

MetricText = Annotated[
    str,
    about(
        "Metric, with options as in kid:subsets=50. Metrics of the same images share them and their features.",
        panel="Metrics",
        metavar="NAME",
        complete=lambda: list(METRICS),
    ),
]
Num = Annotated[
    int,
    about(
        "Images per cell. Default: the plan's, else the protocol's, else 500.",
        panel="Images",
        short="-n",
        ge=2,
        most=10**7,
    ),
]
Ref = Annotated[
    str,
    about(
        "Reference, as for gddim fid: a name, or an .npz of statistics.",
        panel="Reference",
        metavar="NAME|PATH",
        min_length=1,
    ),
]
ProtocolName = Annotated[
    str,
    about(
        "Published protocol, as for gddim fid: reference, mode, quantisation and number of images.",
        panel="Reference",
        metavar="|".join(PROTOCOLS),
        complete=lambda: list(PROTOCOLS),
    ),
]
ModeName = Annotated[
    Mode, about("Preprocessing and network. Default: those that the reference was made with.", panel="Reference")
]
Inception = Annotated[
    str, about("Another network with Inception's interface.", panel="Reference", metavar="FILE", min_length=1)
]
Title = Annotated[str, about("Title of the table that a row's cells stand in.", min_length=1)]
Published = Annotated[str, about("Row of the paper's tables whose numbers stand beside the cells: table1.R, say.")]


class Cell(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number to measure: which images, how they are evaluated, and where the number is printed.

    Attributes:
        request: what to sample, as the plan says it.
        metric, ref, protocol, mode, inception: how the images are evaluated, as for `gddim fid`.
        num: number of images; None stands for the protocol's.
        table: title of the table; cells of one title share one.
        published: a row of the paper's tables.
        key: of the cell's `Result`; empty until the plan has been checked.
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

    solver_error: (
        Annotated[
            bool,
            about(
                "Also measure how far the images of deterministic samplers are from the converged solution. Needs no reference.",
                panel="Metrics",
            ),
        ]
        | None
    ) = None
    solver_error_images: (
        Annotated[int, about("Images for --solver-error. Default: 16.", panel="Metrics", ge=1, le=10_000)] | None
    ) = None
    keep_images: Annotated[
        bool, about("Keep each cell's images, in a folder that gddim sample can continue.", panel="Output")
    ] = False
    out: Annotated[
        str,
        about(
            "Folder of the benchmark. Rerunning the same command resumes it.",
            panel="Output",
            metavar="FOLDER",
            min_length=1,
        ),
    ] = "bench"
    batch_size: Annotated[
        int, about("Batch size. Affects speed, not results (except with rk45).", panel="Speed", ge=1, le=100_000)
    ] = 64
    device: Annotated[
        str,
        about(
            "Device the networks run on; auto takes a GPU if there is one.", panel="Speed", metavar="auto|cpu|cuda|mps"
        ),
    ] = "auto"


PLAN_SETTINGS = declared(PlanSettings)
CHECKS = {"sampler": SAMPLERS.find, "metric": find_metric, "protocol": find_protocol, "published": require_row}
"""What refuses a name that a type does not; called with the name and its place."""


def cell_settings() -> dict[str, Setting]:
    """Every setting of a cell by key. The seeds are a list of `seed`; what is not given is the plan's."""
    sampling = sampling_settings()
    seeds = replace(sampling.pop("seed"), key="seeds", help="Seeds, one cell each; tables show mean and spread.")
    sampling["seeds"] = replace(seeds, about=replace(seeds.about, flag="--seeds"))
    help = "Checkpoints: names that `gddim checkpoints` lists, or paths of files. Default: mnist."
    sampling["checkpoint"] = replace(sampling["checkpoint"], help=help)
    return {key: replace(setting, default=None) for key, setting in {**sampling, **declared(Cell)}.items()}
