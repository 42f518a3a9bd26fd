"""The settings of `gddim sample` that are not part of a `SamplingRequest`, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from gddim_cli.cli.shared_settings import Force, Machine, ModelSettings
from gddim_cli.settings import about, declared

MOST_IMAGES = 10_000_000
FOLDER_ONLY = ("format", "trajectory", "save_raw", "overwrite", "compile", "cuda_graph")
"""The settings that --compare does not support."""

PRESET = "Use the scheme of the gDDIM paper: order 2, --predict eps, K = R and a quadratic time grid."
OUT = (
    "Output folder. If you rerun the same command, it makes only the missing images. With --compare: the image file to "
    "write. Default: imgs; with --compare: sheet.png."
)
COMPARE = (
    "Compare samplers: instead of a folder, write one image file with a row for each of these samplers and a column "
    "for each number in --nfe. All samples start from the same noise. A sampler's settings follow its name as "
    ":key=value."
)
NUM = (
    "Number of images in the folder. Default: 100; with --init-noise, the number of states in the file given there. With "
    "--compare: number of samples for each sampler and NFE; the default is then 8."
)
FORMAT = "Storage format. png: one file per image. npz, tar: files with up to 10 000 images each; a .tar contains PNGs."
TRAJECTORY = (
    "Also write an animation in which the grid of images forms from noise. With .png: a filmstrip of a few images."
)
SAVE_RAW = "Also write the final states as float32, before quantization."
OVERWRITE = "Remove the run in the folder and start again."
BATCH_SIZE = (
    "Number of images per batch; auto chooses it by timing. It affects the speed, and changes images only by rounding. "
    "rk45 is an exception, because it chooses its steps for each batch."
)
COMPILE = "Compile the network. This takes minutes the first time; the result is cached."
CUDA_GRAPH = "Replay each evaluation as one CUDA graph, on NVIDIA GPUs. This speeds up small batches."

BatchSize = (
    Annotated[Literal["auto"], msgspec.Meta(description="auto")] | Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
)


class SampleSettings(Machine, frozen=True, kw_only=True):
    """What `gddim sample` writes, and how it computes."""

    preset: Annotated[str, about(PRESET, metavar="paper")] | None = None
    set: ModelSettings | None = None
    out: Annotated[Path, about(OUT, panel="Output")] | None = None
    compare: Annotated[str, about(COMPARE, panel="Output", metavar="NAME[:ORDER],...")] | None = None
    num: Annotated[int, about(NUM, panel="Output", short="-n", ge=1, le=MOST_IMAGES)] | None = None
    format: Annotated[str, about(FORMAT, panel="Output", metavar="png|npz|tar")] = "png"
    trajectory: Annotated[Path, about(TRAJECTORY, panel="Output", metavar="FILE.gif|webp|mp4|png")] | None = None
    save_raw: Annotated[Path, about(SAVE_RAW, panel="Output", metavar="FILE.npy")] | None = None
    overwrite: Annotated[bool, about(OVERWRITE, panel="Output", flag="--overwrite")] = False
    force: Force = False
    batch_size: Annotated[BatchSize, about(BATCH_SIZE, panel="Speed", metavar="N|auto")] = 64
    compile: Annotated[bool, about(COMPILE, panel="Speed", flag="--compile")] = False
    cuda_graph: Annotated[bool, about(CUDA_GRAPH, panel="Speed", flag="--cuda-graph")] = False

    def beside_sheet(self) -> list[str]:
        """The given options that `--compare` does not support."""
        known = declared(SampleSettings)
        found = [known[key].flag for key in FOLDER_ONLY if getattr(self, key) != known[key].default]
        return [*found, *["--batch-size auto"] * self.automatic]

    @property
    def automatic(self) -> bool:
        """Whether the batch size is chosen by timing."""
        return self.batch_size == "auto"

    @property
    def size(self) -> int:
        """The batch size; with `auto`, the first batch size tried."""
        return 64 if self.batch_size == "auto" else self.batch_size
