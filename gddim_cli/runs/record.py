"""The record of a run, `run.json`: how its images were made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import torch

from gddim_cli.errors import DataError
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.storage.registry import FORMATS
from gddim_cli.runtime.files import read_plain
from gddim_cli.runtime.json_files import MOST_BYTES
from gddim_cli.runtime.text import printable, reason
from gddim_cli.runtime.versions import versions

RUN = "run.json"
MOST_IMAGES = 10**9
"""Upper limit of the counts in `run.json`."""


class Session(msgspec.Struct):
    """One call of `gddim sample` that made images of a run. Fields may differ between calls; `device` is rank 0's."""

    started: str
    device: str
    device_name: str
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=MOST_IMAGES)]
    images: Annotated[int, msgspec.Meta(ge=0, le=MOST_IMAGES)]
    nfe: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    seconds: float
    versions: dict[str, str]
    processes: int = 1
    speed: list[str] = []

    def alike(self, other: Session) -> bool:
        """Whether both sessions ran on the same kind of device with the same speed options."""
        return (self.device_name, self.speed) == (other.device_name, other.speed)


def new_session(device: torch.device, batch_size: int, processes: int, speed: Sequence[str] = ()) -> Session:
    """The record of a call that starts now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Session(now, str(device), name, batch_size, 0, 0.0, 0.0, versions(), processes, list(speed))


class Extra(msgspec.Struct, frozen=True):
    """A file that a run wrote outside its folder, identified by its sha256."""

    sha256: str
    images: Annotated[int, msgspec.Meta(ge=0, le=MOST_IMAGES)]


class Run(msgspec.Struct):
    """The content of `run.json`.

    Attributes:
        format: how the images are stored: png, npz or tar.
        settings: the resolved request, which identifies the run.
        num: number of images. Their indices are 0 to num - 1; image i starts from the noise of (seed, i).
        complete: whether all images and the other outputs have been made.
        nfe: network evaluations per image, counted during the run; the mean if batches differ.
        tolerance: the calibrated tolerance of an adaptive sampler.
        sessions: every call that made images.
        noise_levels: the noise levels of an isotropic denoiser at t_start and t_end, as standard deviations for images
            in [-1, 1]; None for other models.
        raw, trajectory: the files of `--save-raw` and `--trajectory`, once written.
    """

    gddim: str
    format: str
    settings: SamplingRequest
    num: Annotated[int, msgspec.Meta(ge=1, le=MOST_IMAGES)]
    seed_range: list[int]
    complete: bool
    nfe: float | None
    tolerance: float | None
    sessions: list[Session]
    noise_levels: tuple[float, float] | None = None
    raw: Extra | None = None
    trajectory: Extra | None = None


def mean_nfe(sessions: Sequence[Session]) -> float | None:
    """The mean number of evaluations per image over all sessions; None before the first image."""
    made = sum(session.images for session in sessions)
    return sum(session.images * session.nfe for session in sessions) / made if made else None


def read_run(folder: Path) -> Run:
    """The record in a folder's `run.json`.

    Raises:
        DataError: the record is missing, damaged, or was written by another version.
    """
    try:
        run = msgspec.json.decode(read_plain(folder / RUN, MOST_BYTES), type=Run)
        if run.format not in FORMATS:
            raise ValueError(f"there is no format {printable(run.format)}")  # noqa: TRY301
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(
            f"{folder / RUN}: cannot be read as a run of this version ({reason(error)}); "
            "choose another folder, or remove this one"
        ) from error
    return run
