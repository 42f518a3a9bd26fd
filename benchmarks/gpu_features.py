"""Measures how many images per second the Inception network of `gddim fid` processes, with random weights."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from gddim_cli.evaluation.extractors.registry import load_extractor


def write_random_inception(path: Path) -> None:
    """Writes the random weights with which torchvision initializes pytorch-fid's Inception. Downloads nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cleanfid import inception_pytorch
        from torchvision.models import Inception3

        nothing = mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value={})
        with nothing, mock.patch.object(Inception3, "load_state_dict"):
            network = inception_pytorch.fid_inception_v3()
    torch.save(network.state_dict(), path)


def features_rate(device: torch.device, side: int, batch: int, batches: int) -> float:
    """Images/s when float32 features are computed from uint8 images [batch, side, side, 3], both in CPU memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pt_inception.pth"
        write_random_inception(path)
        extractor = load_extractor("legacy_pytorch", device, path)
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    extractor(images)  # warms up
    started = time.perf_counter()
    for _ in range(batches):
        extractor(images)
    return batch * batches / (time.perf_counter() - started)
