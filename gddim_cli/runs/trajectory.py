"""The film that `--trajectory` writes: the run's first images after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gddim_cli.images.film import write_film
from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.record import Extra, Run
from gddim_cli.runtime.files import sha256


def is_current(path: Path, earlier: Run | None, images: int) -> bool:
    """Whether the file is the film that the earlier run wrote, and the film shows this number of images."""
    film = earlier.trajectory if earlier else None
    return bool(film and path.exists() and film.images == images and film.sha256 == sha256(path))


def write_trajectory(path: Path, batches: Sequence[Sequence[Pixels]], arranged: Callable[[Pixels], Pixels]) -> Extra:
    """Writes the film and returns its record for `run.json`.

    Args:
        batches: for each batch, a list of frames [B, H, W, C], from the noise to the images.
        arranged: puts the images of a step into one picture.

    Raises:
        OutputError: the file cannot be written.
    """
    longest = max(len(frames) for frames in batches)
    # With adaptive samplers, batches take different numbers of steps: the last frame of a shorter batch is repeated.
    parts = [[*frames, *[frames[-1]] * (longest - len(frames))] for frames in batches]
    steps = [np.concatenate(step) for step in zip(*parts, strict=True)]
    write_film(path, steps, arranged)
    return Extra(sha256(path), len(steps[0]))
