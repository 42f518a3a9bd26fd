"""A run's folder: its images, and `run.json`, which records how they were made."""

from __future__ import annotations

import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gddim_cli.errors import DataError, OutputError, UsageError
from gddim_cli.images.decode import decode, png_is_whole
from gddim_cli.images.pictures import LARGEST_FILE
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import ABOUT, as_picture, write_png
from gddim_cli.runs.record import RUN, Run, Session, mean_nfe, read_run
from gddim_cli.runs.request import SamplingRequest, differences
from gddim_cli.runs.storage.base import Storage, remove
from gddim_cli.runs.storage.manifest import MANIFEST, read_manifest, remove_manifest
from gddim_cli.runs.storage.registry import FORMATS, open_storage
from gddim_cli.runtime.distributed import SharedCounter, World
from gddim_cli.runtime.files import LOCK, eventually, locked, read_plain, refuse_strangers, replacing, writing
from gddim_cli.runtime.json_files import json_bytes
from gddim_cli.runtime.text import counted

GRID = "grid.png"
GRACE = 10.0
"""Seconds to wait for another run to end. If its launcher is killed, its processes end only after their current step."""
PATIENCE = 60.0
"""Seconds within which files written by another machine must appear in a shared folder."""
OWN_GRID = re.compile(f"iTXt{ABOUT}\\0.{{,80}}pixels: ([0-9a-f]{{8}})".encode(), re.DOTALL)
TEMPORARY = re.compile(r"\.(.+)\.\w{8}\.tmp")


@dataclass
class Ledger:
    """Counts the images that all processes have stored in one call of `gddim sample`, and their network evaluations.

    Attributes:
        counted: a number whose low 32 bits count the images of all processes, and whose higher bits count their network
            evaluations. Both are updated in one operation, so a killed process never counts images without their
            evaluations.
    """

    run: Run
    session: Session
    counted: SharedCounter
    began: float = field(default_factory=time.perf_counter)

    def add(self, images: int = 0, nfe: int = 0) -> None:
        """Adds images that took `nfe` evaluations each; updates the session and the run to the totals of all processes.

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
        """The images in the folder."""
        return open_storage(self.path, self.format)

    @contextmanager
    def locked(self, on_wait: Callable[[], object]) -> Iterator[None]:
        """A context in which no other call uses the folder. Enter it before `open` and leave it after the last `save`.

        Raises:
            OutputError: another call still uses the folder `GRACE` seconds after `on_wait` was called, or the folder
                cannot be written.
        """
        with locked(self.path, "gddim sample", GRACE, on_wait):
            yield

    def identity(self) -> tuple[int, int] | None:
        """The device and inode of the folder's lock file; None if there is no lock file.

        They distinguish the folder from a new folder at the same path: the locked file stays open, so its inode is not
        reused.
        """
        try:
            found = (self.path / LOCK).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def refuse_replaced(self, identity: tuple[int, int] | None) -> None:
        """Raises OutputError if the folder with this identity was removed, and another run has begun in its place."""
        found = self.identity()
        if identity and found and found != identity:
            raise OutputError(
                f"{self.path}: was removed, and another run has begun in its place; rerun the same command with another --out"
            )

    def record(self) -> Run | None:
        """The record of the run in the folder, whatever its settings; None if the folder holds no run.

        Raises:
            DataError: its run.json cannot be read.
        """
        return read_run(self.path) if (self.path / RUN).exists() else None

    def open(self, request: SamplingRequest, num: int, overwrite: bool = False, force: bool = False) -> Run | None:
        """The run in the folder, if any, after checking that `request` may continue it.

        Args:
            num: the number of images that the run is to have.
            overwrite: remove the files of the run in the folder, and return None.
            force: also remove files that the run did not write, if they are named like its files.

        Raises:
            UsageError: the folder holds a run with other settings, or files but no run.json, or a foreign file with the
                name of one of the run's files.
            DataError: its run.json or manifest cannot be read.
            OutputError: the folder cannot be made or written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        refuse_strangers(self.path, RUN, "run", ignored=TEMPORARY)
        with writing(self.path):
            self._sweep()
        if not (self.path / RUN).exists():
            return None
        run = read_run(self.path)
        if overwrite:
            self._refuse_foreign(run, num, force)
            self._remove(run)
            return None
        changed = differences(run.settings, request)
        if run.format != self.format:
            changed.append(f"format: {run.format} -> {self.format}")
        if changed:
            raise UsageError(
                f"--out: {self.path} holds a run with other settings ({'; '.join(changed)}); "
                "choose another folder, or --overwrite"
            )
        self._refuse_foreign(run, num, force)
        return run

    def _refuse_foreign(self, run: Run, num: int, force: bool) -> None:
        """Refuses files that the run did not write, if they are named like its files. With `force`, removes them.

        In a finished run, the manifest says which files are the run's own. An unfinished run has no manifest. There, files
        named like the run's images count as its own if they begin like files of the storage format.

        Raises:
            UsageError: there is such a file; the message names the first one.
        """
        written, manifest = open_storage(self.path, run.format), read_manifest(self.path)
        found = written.foreign(run.num, manifest)
        known = set(written.files(run.num))
        found += [file for file in self.images.files(max(num, run.num)) if file not in known]
        grid = self.path / GRID
        if (grid.is_symlink() or grid.exists()) and not grid.is_dir() and not is_own_grid(grid):
            found.append(grid)
        if found and not force:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UsageError(
                f"--out: {found[0]}{more}: not written by this run; move away what you want to keep; gddim sample --force "
                "replaces the rest"
            )
        for file in found:
            remove(file)

    def mark(self) -> str:
        """Creates an empty file by which other processes recognize the folder, and returns its name.

        Raises:
            OutputError: the file cannot be written.
        """
        with writing(self.path):
            handle, name = tempfile.mkstemp(prefix=f".{RUN}.", suffix=".tmp", dir=self.path)
        os.close(handle)
        return Path(name).name

    def meet(self, token: str, world: World) -> None:
        """Waits for all processes, and checks that they see the file that rank 0 made with `mark`.

        Raises:
            UsageError: this process sees another folder.
        """
        path = self.path / token
        try:
            if not eventually(path.exists, PATIENCE):
                raise UsageError(
                    f"--out: {self.path.absolute()} of {world.name} is not the folder that rank 0 opened; "
                    "all processes must write to one folder: give a path on a shared file system"
                )
            world.barrier()
        finally:
            if world.main:
                path.unlink(missing_ok=True)

    def intact(self, num: int) -> tuple[set[int], str | None]:
        """Removes damaged files; returns the indices below `num` of the undamaged images, and a note on the removal."""
        damaged, note = self.images.damaged(num, read_manifest(self.path)), None
        if damaged:
            count, rest = len(set().union(*damaged.values())), len(damaged) - 1
            more = f" and {counted(rest, 'more file')}" if rest else ""
            again = f"; making {counted(count, 'image')} again" if count else ""
            note = f"damaged and removed: {min(damaged)}{more}{again}"
            remove_manifest(self.path)
            self.images.discard(damaged)
        return self.images.done(num), note

    def _sweep(self) -> None:
        """Removes temporary files that a killed process left behind."""
        looks = [kind.storage.NAMES for kind in FORMATS.values()]
        for file in self.path.iterdir():
            found = TEMPORARY.fullmatch(file.name)
            if found and (found[1] in (RUN, GRID, MANIFEST) or any(name.fullmatch(found[1]) for name in looks)):
                file.unlink(missing_ok=True)

    def _remove(self, run: Run) -> None:
        """Removes the run's images, its grid, its manifest and, last, its run.json."""
        for file in open_storage(self.path, run.format).files(run.num):
            remove(file)
        for name in (GRID, MANIFEST, RUN):
            remove(self.path / name)

    def write_grid(self, picture: Pixels) -> None:
        """Writes the grid of the run's first images, [H, W, C].

        Raises:
            OutputError: the file cannot be written.
        """
        about = f"the first images of a run; CRC-32 of the pixels: {zlib.crc32(np.asarray(as_picture(picture)).tobytes()):08x}"
        write_png(self.path / GRID, picture, make_folder=False, about=about)

    def save(self, run: Run) -> None:
        """Writes `run.json`.

        Raises:
            OutputError: the file cannot be written.
        """
        with replacing(self.path / RUN, make_folder=False) as temporary:
            temporary.write_bytes(json_bytes(run))


def is_own_grid(path: Path) -> bool:
    """Whether a file is the unchanged grid of a run, or what a crash or damage has left of it."""
    try:
        content = read_plain(path, LARGEST_FILE)
        mark = OWN_GRID.search(content[:1000])
        if mark is None or not png_is_whole(content):
            return bool(mark) or not content.strip(b"\0")
        return not path.is_symlink() and f"{zlib.crc32(decode(content, path).tobytes()):08x}" == mark[1].decode()
    except (OSError, DataError):
        return False
