"""A run's folder: images that appear whole, what is done and what is missing, and `run.json`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gddim_cli.errors import DataError, UsageError
from gddim_cli.files import replacing, writing
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


class Run(msgspec.Struct):
    """What `run.json` holds.

    Attributes:
        settings: the run's identity.
        num: images wanted; indices 0 to num - 1, each from the noise of (seed, index).
        complete: whether all of them are there.
        nfe: evaluations of the network that an image took, as counted; the mean where batches differ.
        tolerance: of an adaptive sampler, as tuned.
        sessions: every call that made images.
    """

    gddim: str
    settings: Settings
    num: int
    seed_range: list[int]
    complete: bool
    nfe: float | None
    tolerance: float | None
    sessions: list[Session]


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

        Raises:
            UsageError: it holds a run of other settings, or images that no run.json explains.
            DataError: its run.json cannot be read.
            OutputError: the folder cannot be made or written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            own = self._own_files()
            if overwrite:
                for file in own:
                    file.unlink()
                own = []
        if not (self.path / RUN).exists():
            if own:
                raise UsageError(
                    f"--out: {self.path} holds {own[0].name} but no {RUN} that says how it was made; "
                    "choose another folder, or --overwrite"
                )
            return None
        run = read_run(self.path)
        changed = differences(run.settings, settings)
        if changed:
            raise UsageError(
                f"--out: {self.path} holds a run with other settings ({'; '.join(changed)}); "
                "choose another folder, or --overwrite"
            )
        return run

    def save(self, run: Run) -> None:
        """Writes `run.json`.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.path / RUN) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")

    def done(self) -> set[int]:
        """Indices of the images that are there."""
        if self.format == "png":
            return {int(file.stem) for file in self.path.iterdir() if PNG.fullmatch(file.name)}
        return {int(i) for file in self._shards() for i in read_shard(file, "index")}

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
        for file in self._shards():
            here = {int(index): row for row, index in enumerate(read_shard(file, "index"))}
            chosen = [index for index in wanted if index in here]
            if chosen:
                images = read_shard(file, "images")
                found.update((index, images[here[index]]) for index in chosen)
        return np.stack([found[index] for index in wanted])

    def join(self, num: int) -> None:
        """Joins the files of an npz run to shards of at most 10 000 images, in order; each joined before its parts go."""
        if self.format == "png":
            return
        for first in range(0, num, SHARD_SIZE):
            indices = range(first, min(first + SHARD_SIZE, num))
            target = self.path / shard_name(indices)
            parts = [file for file in self._shards() if first <= int(file.name.split("-")[1]) <= indices[-1]]
            if parts != [target]:
                write_shard(target, indices, self.read(indices))
                for part in parts:
                    if part != target:
                        part.unlink()

    def _shards(self) -> list[Path]:
        return sorted(file for file in self.path.iterdir() if SHARD.fullmatch(file.name))

    def _own_files(self) -> list[Path]:
        """The files that a run writes, and nothing else that a person may keep there."""
        own = (PNG.fullmatch, SHARD.fullmatch, (RUN, GRID).__contains__)
        return sorted(file for file in self.path.iterdir() if any(test(file.name) for test in own))


def read_run(folder: Path) -> Run:
    """What a folder's `run.json` says.

    Raises:
        DataError: it is missing or is not one of ours.
    """
    try:
        return msgspec.json.decode((folder / RUN).read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{folder / RUN}: cannot be read ({error}); --overwrite begins anew") from error


def shard_name(indices: Sequence[int]) -> str:
    return f"images-{indices[0]:06d}-{indices[-1]:06d}.npz"


def write_shard(path: Path, indices: Sequence[int], pixels: Pixels) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=pixels, index=np.array(indices, dtype=np.int64))


def read_shard(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: not a whole file of a run ({error}); remove it and run the same command again"
        ) from error


def read_png(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and run the same command again") from error
    return pixels.reshape(*pixels.shape[:2], -1)


class RawStates:
    """`--save-raw FILE.npy`: final states by index, filled in as images are made; rows of NaN are still missing.

    It is `FILE.npy.partial` until every row is there, then renamed; a later, larger run goes on from it. Written with
    plain writes, since a memory map ends the program where the disk is full.
    """

    def __init__(self, path: Path, num: int, shape: Sequence[int], keep: bool) -> None:
        """Begins the file for `num` states of `shape`, with the rows of an earlier one where `keep`.

        Raises:
            OutputError: it cannot be written.
            DataError: an existing file has states of another shape, or is not an .npy.
        """
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        old = next((existing_states(p, shape) for p in (self.partial, path) if keep and p.exists()), None)
        rows = 0 if old is None else min(num, len(old))
        with replacing(self.partial) as temporary, temporary.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (num, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            self.offset = file.tell()
            for row in range(num):
                file.write((old[row] if old is not None and row < rows else np.full(shape, np.nan, "<f4")).tobytes())

    def done(self) -> set[int]:
        """Indices of the rows that are there."""
        states = np.load(self.partial, mmap_mode="r")
        return {int(i) for i in np.flatnonzero(~np.isnan(states.reshape(len(states), -1)[:, -1]))}

    def store(self, indices: Sequence[int], states: NDArray[np.floating]) -> None:
        """Fills in the rows of these images."""
        with writing(self.partial), self.partial.open("r+b") as file:
            for index, state in zip(indices, states.astype("<f4"), strict=True):
                file.seek(self.offset + index * state.nbytes)
                file.write(state.tobytes())

    def finish(self) -> None:
        """Renames the file to its final name."""
        with writing(self.path):
            self.partial.replace(self.path)


def existing_states(path: Path, shape: Sequence[int]) -> NDArray[np.float32]:
    try:
        states = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--save-raw: {path} is no .npy of an earlier run ({error}); choose another file") from error
    if states.shape[1:] != tuple(shape) or states.dtype != np.float32:
        raise DataError(
            f"--save-raw: {path} holds {states.dtype} states of shape {list(states.shape[1:])}, not float32 {list(shape)}; "
            "choose another file"
        )
    return states


def missing(num: int, *done: set[int]) -> list[int]:
    """Indices below `num` that are not in every set, rising."""
    there = set.intersection(*done)
    return [i for i in range(num) if i not in there]
