"""A run's folder: images that appear whole, what is done and what is missing, and `run.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from gddim_cli.errors import DataError, UsageError
from gddim_cli.files import read_member, replacing, writing
from gddim_cli.images import Pixels, write_png
from gddim_cli.sampling import Settings, differences

RUN = "run.json"
GRID = "grid.png"
PNG = re.compile(r"\d{6,}\.png")
SHARD = re.compile(r"images-\d{6,}-\d{6,}\.npz")
SHARD_SIZE = 10_000


class Session(msgspec.Struct):
    """One call of the command on a run: what may change from call to call."""

    started: str
    device: str
    device_name: str
    batch_size: int
    images: int
    nfe: float
    seconds: float
    versions: dict[str, str]


class Extra(msgspec.Struct, frozen=True):
    """A file that a run wrote outside its folder: so that another run's is not taken for it."""

    sha256: str
    images: int


class Run(msgspec.Struct):
    """What `run.json` holds.

    Attributes:
        settings: the run's identity.
        num: images wanted; indices 0 to num - 1, each from the noise of (seed, index).
        complete: whether all of them are there.
        nfe: evaluations of the network that an image took, as counted; the mean where batches differ.
        tolerance: of an adaptive sampler, as tuned.
        sessions: every call that made images.
        raw, trajectory: of `--save-raw` and `--trajectory`, once they are written.
    """

    gddim: str
    settings: Settings
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


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. A file that is there is whole, so what is done can be read off the names.

    Attributes:
        path: the folder.
        format: "png", one file an image; "npz", a file a batch, joined to shards of 10 000 at the end.
    """

    path: Path
    format: str

    def open(self, settings: Settings, overwrite: bool) -> Run | None:
        """The run that the folder holds, if any, after checking that `settings` may go on with it.

        With `overwrite` the run's own files are removed: those that its run.json accounts for, and nothing else.

        Raises:
            UsageError: it holds a run of other settings, or images that no run.json explains.
            DataError: its run.json cannot be read.
            OutputError: the folder cannot be made or written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / RUN).exists():
            strangers = [
                file.name for file in self.path.iterdir() if PNG.fullmatch(file.name) or SHARD.fullmatch(file.name)
            ]
            if strangers:
                raise UsageError(
                    f"--out: {self.path} holds {min(strangers)} but no {RUN} that says how it was made; choose another"
                )
            return None
        if overwrite:
            self._remove()
            return None
        run = read_run(self.path)
        changed = differences(run.settings, settings)
        if changed:
            raise UsageError(
                f"--out: {self.path} holds a run with other settings ({'; '.join(changed)}); "
                "choose another folder, or --overwrite"
            )
        return run

    def _remove(self) -> None:
        """Removes the images of the run that is there, its grid, and last its record."""
        num = read_run(self.path).num
        with writing(self.path):
            for file in [*self.pictures(num), *self.shards(num), self.path / GRID, self.path / RUN]:
                file.unlink(missing_ok=True)

    def save(self, run: Run) -> None:
        """Writes `run.json`.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.path / RUN) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")

    def done(self, num: int) -> set[int]:
        """Indices below `num` of the images that are there."""
        if self.format == "png":
            return {int(file.stem) for file in self.pictures(num)}
        return {int(i) for file in self.shards(num) for i in read_member(file, "index")}

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        """Writes images [B, H, W, C].

        Raises:
            OutputError: they cannot be written.
        """
        if self.format == "png":
            for index, image in zip(indices, pixels, strict=True):
                write_png(self.path / f"{index:06d}.png", image)
        else:
            write_shard(self.path / shard_name(indices), indices, pixels)

    def read(self, indices: Iterable[int]) -> Pixels:
        """The images of these indices, [N, H, W, C], from the files.

        Raises:
            DataError: one is missing or cannot be read.
        """
        wanted = list(indices)
        if self.format == "png":
            return np.stack([read_png(self.path / f"{index:06d}.png") for index in wanted])
        found: dict[int, Pixels] = {}
        for file in self.shards(max(wanted) + 1):
            here = {int(index): row for row, index in enumerate(read_member(file, "index"))}
            chosen = [index for index in wanted if index in here]
            if chosen:
                images = read_member(file, "images")
                found.update((index, images[here[index]]) for index in chosen)
        lost = [index for index in wanted if index not in found]
        if lost:
            raise DataError(f"{self.path}: image {lost[0]} is in no file there; run the same command again")
        return np.stack([found[index] for index in wanted])

    def join(self, num: int) -> None:
        """Joins the files of an npz run to shards of at most `SHARD_SIZE` images, in order.

        All are written before a part goes, since a part may hold images of two.
        """
        if self.format == "png":
            return
        wholes = [range(first, min(first + SHARD_SIZE, num)) for first in range(0, num, SHARD_SIZE)]
        targets = {self.path / shard_name(indices): indices for indices in wholes}
        parts = set(self.shards(num))
        for target, indices in targets.items():
            if target not in parts:
                write_shard(target, indices, self.read(indices))
        with writing(self.path):
            for part in parts - set(targets):
                part.unlink()

    def shards(self, num: int) -> list[Path]:
        """Files of images, all of them below `num`."""
        files = (file for file in self.path.iterdir() if SHARD.fullmatch(file.name))
        return sorted(file for file in files if int(file.stem.split("-")[1]) < num)

    def pictures(self, num: int) -> list[Path]:
        """PNGs of the run: a person may keep others there, whatever their names."""
        files = (file for file in self.path.iterdir() if PNG.fullmatch(file.name))
        return sorted(file for file in files if int(file.stem) < num and file.name == f"{int(file.stem):06d}.png")


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


def shard_name(indices: Sequence[int]) -> str:
    return f"images-{indices[0]:06d}-{indices[-1]:06d}.npz"


def write_shard(path: Path, indices: Sequence[int], pixels: Pixels) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=pixels, index=np.array(indices, dtype=np.int64))


def read_png(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error
    return pixels.reshape(*pixels.shape[:2], -1)
