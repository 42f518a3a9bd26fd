"""A run's folder: its images, and `run.json` that says how they came about."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from gddim_cli.errors import DataError, UsageError
from gddim_cli.runs.request import SamplingRequest, differences
from gddim_cli.runs.storage.base import Storage
from gddim_cli.runs.storage.manifest import MANIFEST
from gddim_cli.runs.storage.registry import FORMATS, open_storage
from gddim_cli.runtime.distributed import SharedCounter
from gddim_cli.runtime.files import locked, replacing, writing
from gddim_cli.runtime.versions import versions

RUN = "run.json"
GRID = "grid.png"
GRACE = 10.0
"""Seconds that a call waits for another's processes to end: those of a launcher that was killed notice it a step later."""
TEMPORARY = re.compile(r"\.(.+)\.\w{8}\.tmp")


class Session(msgspec.Struct):
    """One call of the command on a run: what may change from call to call. `device` is the first process's."""

    started: str
    device: str
    device_name: str
    batch_size: int
    images: int
    nfe: float
    seconds: float
    versions: dict[str, str]
    processes: int = 1
    speed: list[str] = []

    def alike(self, other: Session) -> bool:
        """Whether both ran on the same kind of device, in the same way."""
        return (self.device_name, self.speed) == (other.device_name, other.speed)


def new_session(device: torch.device, batch_size: int, processes: int, speed: Sequence[str] = ()) -> Session:
    """The record of a call that begins now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Session(now, str(device), name, batch_size, 0, 0.0, 0.0, versions(), processes, list(speed))


class Extra(msgspec.Struct, frozen=True):
    """A file that a run wrote outside its folder: so that another run's is not taken for it."""

    sha256: str
    images: int


class Run(msgspec.Struct):
    """What `run.json` holds.

    Attributes:
        format: how its images are stored.
        settings: the resolved request, which is the run's identity.
        num: images wanted; indices 0 to num - 1, each from the noise of (seed, index).
        complete: whether all of them are there.
        nfe: evaluations of the network that an image took, as counted; the mean where batches differ.
        tolerance: of an adaptive sampler, as tuned.
        sessions: every call that made images.
        raw, trajectory: of `--save-raw` and `--trajectory`, once they are written.
    """

    gddim: str
    format: str
    settings: SamplingRequest
    num: int
    seed_range: list[int]
    complete: bool
    nfe: float | None
    tolerance: float | None
    sessions: list[Session]
    raw: Extra | None = None
    trajectory: Extra | None = None


def mean_nfe(sessions: Sequence[Session]) -> float | None:
    """Evaluations an image, over all that were made; None where none was."""
    made = sum(session.images for session in sessions)
    return sum(session.images * session.nfe for session in sessions) / made if made else None


@dataclass
class Ledger:
    """Keeps a session's counts true while its images are made: of those that are stored, by all processes.

    Attributes:
        counted: images, and their evaluations from bit 32 up, by all processes: one number, so that a process that ends in
            between leaves no images without their evaluations.
    """

    run: Run
    session: Session
    counted: SharedCounter
    began: float = field(default_factory=time.perf_counter)

    def add(self, images: int = 0, nfe: int = 0) -> None:
        """Counts images that took `nfe` evaluations each; looks at what others have counted.

        Raises:
            PeerError: the launcher has ended.
        """
        self.counted.add(images + (images * nfe << 32))
        self.session.seconds = time.perf_counter() - self.began
        evaluations, made = divmod(self.counted.total, 1 << 32)
        if made:
            self.session.images, self.session.nfe = made, evaluations / made
        self.run.nfe = mean_nfe(self.run.sessions)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        format: how its images are stored, one of `storage.FORMATS`.
    """

    path: Path
    format: str

    @property
    def images(self) -> Storage:
        """The images that it holds."""
        return open_storage(self.path, self.format)

    @contextmanager
    def locked(self, on_wait: Callable[[], object]) -> Iterator[None]:
        """The folder for one call at a time, from before `open` to after the last `save`.

        Raises:
            OutputError: another is at work there, `GRACE` seconds after `on_wait` was called too; it cannot be written.
        """
        with locked(self.path, "gddim sample", GRACE, on_wait):
            yield

    def open(self, request: SamplingRequest, overwrite: bool) -> Run | None:
        """The run that the folder holds, if any, after checking that `request` may go on with it.

        With `overwrite` the run's own files are removed: those that its run.json accounts for, and nothing else.

        Raises:
            UsageError: it holds a run of other settings, or images that no run.json explains.
            DataError: its run.json cannot be read.
            OutputError: the folder cannot be made or written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._sweep()
        if not (self.path / RUN).exists():
            looks = [kind.NAMES for kind in FORMATS.values()]
            strangers = [file.name for file in self.path.iterdir() if any(name.fullmatch(file.name) for name in looks)]
            if strangers:
                raise UsageError(
                    f"--out: {self.path} holds {min(strangers)} but no {RUN} that says how it was made; choose another"
                )
            return None
        if overwrite:
            self._remove()
            return None
        run = read_run(self.path)
        changed = differences(run.settings, request)
        if run.format != self.format:
            changed.append(f"format: {run.format} -> {self.format}")
        if changed:
            raise UsageError(
                f"--out: {self.path} holds a run with other settings ({'; '.join(changed)}); "
                "choose another folder, or --overwrite"
            )
        return run

    def mark(self) -> str:
        """The name of a new, empty file by which other processes can tell the folder; the next call sweeps it away.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.path):
            handle, name = tempfile.mkstemp(prefix=f".{RUN}.", suffix=".tmp", dir=self.path)
        os.close(handle)
        return Path(name).name

    def _sweep(self) -> None:
        """Removes what a killed process left half-written."""
        looks = [kind.NAMES for kind in FORMATS.values()]
        for file in self.path.iterdir():
            found = TEMPORARY.fullmatch(file.name)
            if found and (found[1] in (RUN, GRID, MANIFEST) or any(name.fullmatch(found[1]) for name in looks)):
                file.unlink(missing_ok=True)

    def _remove(self) -> None:
        """Removes the images of the run that is there, its grid and manifest, and last its record."""
        run = read_run(self.path)
        with writing(self.path):
            for kind in FORMATS.values():
                for file in kind(self.path).files(run.num):
                    file.unlink(missing_ok=True)
            for name in (GRID, MANIFEST, RUN):
                (self.path / name).unlink(missing_ok=True)

    def save(self, run: Run) -> None:
        """Writes `run.json`.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.path / RUN, make_folder=False) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")


def read_run(folder: Path) -> Run:
    """What a folder's `run.json` says.

    Raises:
        DataError: it is missing or is not one of ours.
    """
    try:
        return msgspec.json.decode((folder / RUN).read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{folder / RUN}: cannot be read ({error}); choose another folder, or remove this one yourself"
        ) from error
