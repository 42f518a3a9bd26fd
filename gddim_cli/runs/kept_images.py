"""The images that a benchmark keeps, in a run folder that `gddim sample --format npz` can continue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gddim_cli import __version__
from gddim_cli.errors import DataError, UsageError
from gddim_cli.images.render import grid
from gddim_cli.runs.folder import RunFolder
from gddim_cli.runs.record import Run
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.storage.base import Storage
from gddim_cli.runs.storage.manifest import Manifest, read_manifest, remove_manifest, write_manifest

IN_GRID = 100


@dataclass(frozen=True)
class KeptImages:
    """A run folder whose images are made by the caller, not by `Generation`.

    Attributes:
        request: the resolved request.
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
        """The images in the folder."""
        return self.folder.images

    def check(self) -> bool:
        """Whether the folder holds this run, complete and undamaged. If so, also writes the grid again."""
        try:
            run = self.folder.open(self.request, self.num)
            if run is None or not run.complete or run.num < self.num or self._damaged():
                return False
        except (DataError, UsageError):
            return False
        self._write_grid()
        return True

    def start(self) -> set[int]:
        """Opens the folder, removes damaged images, and returns the indices of the others.

        Raises:
            UsageError, DataError, OutputError: see `RunFolder.open`.
        """
        run = self.folder.open(self.request, self.num)
        if run is None or run.num < self.num:
            self._record(False, run.nfe if run else None, run.tolerance if run else None)
        there, _ = self.folder.intact(self.num)
        remove_manifest(self.path)
        return there

    def finish(self, nfe: float | None, tolerance: float | None) -> None:
        """Writes the grid, the manifest and the record of the complete run, with its NFE and tolerance.

        Raises:
            DataError: an image is missing.
            OutputError: a file cannot be written.
        """
        self.images.join(self.num)
        self._write_grid()
        manifest = Manifest(__version__, "npz", self.num, self.images.describe(self.num))
        write_manifest(self.path, manifest)
        self._record(True, nfe, tolerance)

    def _damaged(self) -> dict[Path, set[int]]:
        return self.images.damaged(self.num, read_manifest(self.path))

    def _write_grid(self) -> None:
        self.folder.write_grid(grid(self.images.read(range(min(self.num, IN_GRID)))))

    def _record(self, complete: bool, nfe: float | None, tolerance: float | None) -> None:
        indices = [0, self.num - 1]
        self.folder.save(Run(__version__, "npz", self.request, self.num, indices, complete, nfe, tolerance, []))
