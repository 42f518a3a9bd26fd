"""A small recipe, and white squares on black to train it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import yaml

from gddim_cli.training.dataset import Classes, Dataset
from gddim_cli.training.recipe import Recipe
from gddim_cli.training.run import TrainingRun

SMALL: dict[str, Any] = {
    "name": "squares",
    "steps": 30,
    "batch_size": 8,
    "cooldown": 1,
    "network": {"channels": [16], "blocks": 1, "embedding": 16},
    "data": {"title": "Squares", "license": "CC0", "source": "This test"},
}


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """The recipe as plain dicts and lists."""
    return SMALL


@pytest.fixture(scope="session")
def squares() -> np.ndarray:
    """White squares on black, uint8 [32, 8, 8]."""
    x = np.zeros((32, 8, 8), np.uint8)
    for i in range(32):
        x[i, i % 4 : i % 4 + 4, i // 8 : i // 8 + 4] = 255
    return x


@pytest.fixture
def config(tmp_path: Path, squares: np.ndarray) -> Path:
    """The recipe's file; `squares.npz` is beside it."""
    np.savez(tmp_path / "squares.npz", squares)
    (tmp_path / "squares.yaml").write_text(yaml.safe_dump(SMALL))
    return tmp_path / "squares.yaml"


@pytest.fixture(scope="session")
def training() -> Callable[..., TrainingRun]:
    """`training(images, out, labels=..., force=..., **changes)`: a run of the small recipe with these changes."""

    def begin(
        images: np.ndarray, out: Path, labels: np.ndarray | None = None, force: bool = False, **changes: Any
    ) -> TrainingRun:
        recipe = msgspec.convert({**SMALL, **changes}, Recipe)
        classes = None if labels is None else Classes(labels.astype(np.int64), int(labels.max()) + 1)
        out.mkdir(parents=True, exist_ok=True)
        return TrainingRun(recipe, Dataset(images[:, None], classes), out, torch.device("cpu"), force)

    return begin


@pytest.fixture
def train(gddim, config: Path, tmp_path: Path):
    """`train(*words)`: `gddim train squares.yaml` into `run`, in two steps unless there are others."""

    def call(
        *words: object,
        recipe: Path = config,
        out: object = tmp_path / "run",
        data: object = tmp_path / "squares.npz",
        steps: int = 2,
    ):
        return gddim("train", recipe, "--data", data, "--out", out, "--steps", steps, "--device", "cpu", *words)

    return call
