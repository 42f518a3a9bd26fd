"""Sample images that show the progress of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gddim_cli.checkpoints.card import Card
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.models.network import Counted
from gddim_cli.runs.batch_size import OomRetry
from gddim_cli.runs.labels import rows_by_class
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.memory import memory_for
from gddim_cli.training.trainer import Trainer

NFE = 20
WIDTH = 1024
"""Approximate width of the grid, in pixels."""
MOST_ROWS = 16


def columns_for(size: int) -> int:
    """The number of images in a row of the grid: 8, or fewer for large images."""
    return min(max(WIDTH // size, 2), 8)


def preview(trainer: Trainer, card: Card) -> tuple[Pixels, int]:
    """Samples images [N, H, W, C] with the averaged weights, always from the same noise.

    With class labels, each row of the grid shows one class.

    Returns:
        The images, and the number of images in a row of the grid.

    Raises:
        CapacityError: not even one image fits in memory.
    """
    columns = columns_for(card.images.size)
    rows = min(trainer.classes, MOST_ROWS) or columns
    classes = ",".join(map(str, range(rows))) if trainer.classes else None
    model = Checkpoint(card, Counted(trainer.average), Path(), "")
    prepared = prepare(SamplingRequest(nfe=NFE, classes=classes), trainer.device, model=model)

    def draw(indices: Sequence[int]) -> Pixels:
        with memory_for(len(indices), trainer.device, "train a smaller network"):
            return quantize(prepared.images(prepared.run(indices)), prepared.config.quantize)

    sampler = OomRetry(draw, release=prepared.release)
    count = rows * columns
    # Training on a batch of this size has fit in memory, and sampling takes less memory than training.
    size = min(count, trainer.recipe.batch_size)
    batches = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]
    images = np.concatenate([made for batch in batches for made in sampler(batch)])
    return (images[rows_by_class(count, rows)] if classes else images), columns
