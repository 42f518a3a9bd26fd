"""Formats with many images per file, `images-000000-009999.SUFFIX`.

During a run, each batch is written to a file of its own, called a part. At the end of the run, the parts are joined
into shards of `SHARD_SIZE` images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from gddim_cli.errors import DataError
from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.storage.base import Storage, is_special, stacked
from gddim_cli.runs.storage.manifest import Manifest, Stored
from gddim_cli.runtime.files import sha256, writing

T = TypeVar("T")

SHARD_SIZE = 10_000


class Shards(Storage):
    """The base of sharded formats. A file's name gives its first and last index; the file itself lists all indices."""

    SUFFIX: str
    MAGIC: tuple[int, bytes]
    """A position in the file, and the bytes that every file of the format has there."""

    @abstractmethod
    def index(self, file: Path) -> list[int]:
        """The indices of the images in a file, in the order of the file; raises DataError if the file cannot be read."""

    @abstractmethod
    def images(self, file: Path, indices: Sequence[int]) -> list[Pixels]:
        """The images with these indices in a file, each [H, W, C]; raises DataError if the file cannot be read."""

    @abstractmethod
    def merge(self, target: Path, indices: Sequence[int], parts: dict[int, Path]) -> None:
        """Writes `target` with these images atomically; `parts` maps each index to its current file."""

    @abstractmethod
    def verify(self, file: Path) -> None:
        """Reads the whole file; raises DataError if the file is damaged."""

    def damaged(self, num: int, manifest: Manifest | None) -> dict[Path, set[int]]:
        recorded = {stored.name: stored.sha256 for stored in manifest.files} if manifest else {}
        return {file: set(self._span(file, num)) for file in self.files(num) if not self._is_sound(file, recorded)}

    def foreign(self, num: int, manifest: Manifest | None) -> list[Path]:
        known = {stored.name: stored.sha256 for stored in manifest.files} if manifest else None

        def is_foreign(file: Path) -> bool:
            if is_special(file) or (known is not None and file.name not in known):
                return True
            if file.is_dir():
                return False
            at, magic = self.MAGIC
            with file.open("rb") as content:
                head = content.read(at + len(magic))
            if head[at:] != magic:
                return bool(head.strip(b"\0"))
            return known is not None and sha256(file) != known[file.name] and self._is_sound(file, {})

        return [file for file in self.files(num) if is_foreign(file)]

    def _is_sound(self, file: Path, recorded: Mapping[str, str]) -> bool:
        if not file.is_file():
            return False
        if file.name in recorded:
            return sha256(file) == recorded[file.name]
        try:
            self.verify(file)
        except DataError:
            return False
        first, last = span(file.name)
        indices = self.index(file)
        return len({*indices}) == len(indices) and all(first <= index <= last for index in indices)

    def _span(self, file: Path, num: int) -> range:
        first, last = span(file.name)
        return range(first, min(last + 1, num))

    def files(self, num: int) -> list[Path]:
        names = (file.name for file in self.folder.iterdir() if self.NAMES.fullmatch(file.name))
        return sorted((self.folder / name for name in names if span(name)[0] < num), key=lambda file: span(file.name))

    def done(self, num: int) -> set[int]:
        return self._of_files(num, lambda files: {index for file in files for index in self.index(file)})

    def read(self, indices: Iterable[int]) -> Pixels:
        wanted = list(indices)
        return self._of_files(max(wanted) + 1, lambda files: self.collect(wanted, self._located(wanted, files)))

    def _of_files(self, num: int, look: Callable[[list[Path]], T]) -> T:
        """The result of `look` on the files. Calls it again if another process, which joins parts, removes a file."""
        while True:
            files = self.files(num)
            try:
                return look(files)
            except DataError:
                if all(file.exists() for file in files):
                    raise

    def collect(self, indices: Sequence[int], parts: dict[int, Path]) -> Pixels:
        """The images with these indices, [N, H, W, C]; `parts` maps each index to its file."""
        found: dict[int, Pixels] = {}
        for file in dict.fromkeys(parts[index] for index in indices):
            here = [index for index in indices if parts[index] == file]
            found.update(zip(here, self.images(file, here), strict=True))
        return stacked((parts[index], found[index]) for index in indices)

    def locate(self, indices: Sequence[int]) -> dict[int, Path]:
        """The file of each image.

        Raises:
            DataError: an image is in no file.
        """
        return self._of_files(max(indices) + 1, lambda files: self._located(indices, files))

    def _located(self, indices: Sequence[int], files: Sequence[Path]) -> dict[int, Path]:
        first, wanted = min(indices), set(indices)
        parts: dict[int, Path] = {}
        for file in files:
            if span(file.name)[1] >= first:
                parts.update((index, file) for index in self.index(file) if index in wanted)
        lost = wanted - parts.keys()
        if lost:
            raise DataError(f"{self.folder}: image {min(lost)} is missing from the folder; rerun the same command")
        return parts

    def join(self, num: int) -> None:
        """Writes all shards before removing any part, because a part may hold images of two shards."""
        targets = [self.folder / self.name(indices) for indices in ranges(num)]
        parts = set(self.files(num))
        for target, indices in zip(targets, ranges(num), strict=True):
            if target not in parts or self.index(target) != list(indices):
                self.merge(target, indices, self.locate(indices))
        with writing(self.folder):
            for part in parts - set(targets):
                part.unlink(missing_ok=True)

    def describe(self, num: int) -> list[Stored]:
        files = [(self.folder / self.name(indices), indices) for indices in ranges(num)]
        return [Stored(file.name, (r[0], r[-1]), file.stat().st_size, sha256(file)) for file, r in files]

    def name(self, indices: Sequence[int]) -> str:
        return f"images-{indices[0]:06d}-{indices[-1]:06d}{self.SUFFIX}"


def ranges(num: int) -> list[range]:
    """The range of indices of each shard of a run with `num` images."""
    return [range(first, min(first + SHARD_SIZE, num)) for first in range(0, num, SHARD_SIZE)]


def span(name: str) -> tuple[int, int]:
    """The first and the last index in a file's name."""
    _, first, last = name.partition(".")[0].split("-")
    return int(first), int(last)
