"""Images that a benchmark keeps: a run folder as `gddim sample --format npz` leaves it, which that can continue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gddim_cli import __version__
from gddim_cli.errors import DataError, UsageError
from gddim_cli.images.render import grid, write_png
from gddim_cli.runs.folder import GRID, Run, RunFolder
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.storage.base import Storage

IN_GRID = 100


@dataclass(frozen=True)
class KeptImages:
    """The folder of a run whose images another program makes.

    Attributes:
        request: resolved.
        num: number of images.
    """

    path: Path
    request: SamplingRequest
    num: int

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.path, "npz")

    @property
    def images(self) -> Storage:
        """The images in it."""
        return self.folder.images

    @property
    def complete(self) -> bool:
        """Whether the folder holds this run with all its images."""
        try:
            run = self.folder.open(self.request, overwrite=False)
        except (DataError, UsageError):
            return False
        return run is not None and run.complete and run.num >= self.num

    def start(self) -> set[int]:
        """Opens the folder and returns the indices of the images in it.

        Raises:
            UsageError, DataError, OutputError: as `RunFolder.open`.
        """
        if self.folder.open(self.request, overwrite=False) is None:
            self._record(False, None, None)
        return self.images.done(self.num)

    def finish(self, nfe: float | None, tolerance: float | None) -> None:
        """Writes the grid and the record of a complete run, with the network evaluations per image and the tolerance.

        Raises:
            DataError: an image is missing.
            OutputError: a file cannot be written.
        """
        self.images.join(self.num)
        write_png(self.path / GRID, grid(self.images.read(range(min(self.num, IN_GRID)))))
        self._record(True, nfe, tolerance)

    def _record(self, complete: bool, nfe: float | None, tolerance: float | None) -> None:
        indices = [0, self.num - 1]
        self.folder.save(Run(__version__, "npz", self.request, self.num, indices, complete, nfe, tolerance, []))
