"""`--format npz`: uint8 arrays `images` [N, H, W, C] with their `index` [N]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gddim_cli.files import read_member, replacing
from gddim_cli.images import Pixels
from gddim_cli.storage.shards import Shards


class Npz(Shards):
    """Shards that numpy reads."""

    SUFFIX = ".npz"
    NAMES = re.compile(r"images-\d{6,}-\d{6,}\.npz")

    def index(self, file: Path) -> list[int]:
        return [int(index) for index in read_member(file, "index")]

    def images(self, file: Path, indices: Sequence[int]) -> list[Pixels]:
        rows = {index: row for row, index in enumerate(self.index(file))}
        images = read_member(file, "images")
        return [images[rows[index]] for index in indices]

    def store(self, indices: Sequence[int], pixels: Pixels) -> None:
        with replacing(self.folder / self.name(indices), make_folder=False) as temporary, temporary.open("wb") as file:
            np.savez(file, images=pixels, index=np.array(indices, dtype=np.int64))

    def merge(self, target: Path, indices: Sequence[int], parts: dict[int, Path]) -> None:
        assert target.name == self.name(indices)
        self.store(indices, self.read(parts))
