"""How many images a second Inception turns into features: clean-fid's network of pytorch-fid, with random weights."""

from __future__ import annotations

import time
import warnings
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.acceleration import rounding

SIDE = 299


def random_inception(device: torch.device) -> nn.Module:
    """The network that FID's features come from, its weights random in place of those that would be fetched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cleanfid import inception_pytorch
        from torchvision.models import Inception3

        nothing = mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value={})
        with nothing, mock.patch.object(Inception3, "load_state_dict"):
            network = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False)
    return network.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def features_rate(device: torch.device, side: int, batch: int, batches: int) -> float:
    """Images/s from uint8 [B, side, side, 3] on the CPU to float32 features there, float32 without TF32."""
    network = random_inception(device)
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)

    def features() -> Tensor:
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device).float()
        large = fn.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return network(large / 255)[0].flatten(1).cpu()

    with rounding(tf32=False):
        found = features()
        if found.shape != (batch, 2048) or not torch.isfinite(found).all():
            raise AssertionError(f"features {list(found.shape)} are not what Inception gives")
        started = time.perf_counter()
        for _ in range(batches):
            features()
    return batch * batches / (time.perf_counter() - started)
