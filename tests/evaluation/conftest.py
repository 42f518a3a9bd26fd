"""Networks with Inception's interface and random weights: the real ones cannot be had without the internet."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.models.networks.skip_init import SkipInit


class Layers(nn.Module):
    """Images [B, 3, 299, 299] in [-1, 1] to 2048 features, as `base.layers` of inception-2015-12-05.pt."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 13, stride=13)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(torch.relu(self.first(x)), 8).flatten(1)


class Base(nn.Module):
    """The whole network: resizes [B, 3, H, W] in [0, 255] itself, by a rule that is neither of the other modes'.

    Without `return_features` it gives class probabilities, in which `no_output_bias` leaves out the bias of the last layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()
        self.output = nn.Linear(2048, 1008)
        nn.init.normal_(self.output.weight, std=0.3)
        nn.init.normal_(self.output.bias)

    def forward(
        self, x: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        large = nn.functional.interpolate(x, size=[299, 299], mode="nearest")
        features = self.layers((large - 128) / 128)
        if return_features:
            return features
        scores = nn.functional.linear(features, self.output.weight) if no_output_bias else self.output(features)
        return scores.softmax(1)


@pytest.fixture(scope="session")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript file with the interface of the published one, under its name."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Base().eval()).save(str(path))
    return path


@pytest.fixture(scope="session")
def pytorch_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of pytorch-fid's network, all its tensors, random."""
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    from cleanfid import inception_pytorch

    class CaughtError(Exception):
        """Carries the network out before its weights would be fetched."""

    found: dict[str, Tensor] = {}

    def no_download(*_: object, **__: object) -> dict[str, Tensor]:
        raise CaughtError

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch, SkipInit():
        warnings.simplefilter("ignore")
        patch.setattr(inception_pytorch, "load_state_dict_from_url", no_download)
        original = inception_pytorch._inception_v3
        made: list[nn.Module] = []

        def catch(*words: object, **options: object) -> nn.Module:
            made.append(original(*words, **options))
            return made[0]

        patch.setattr(inception_pytorch, "_inception_v3", catch)
        with pytest.raises(CaughtError):
            inception_pytorch.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in made[0].state_dict().items():
        shape = tensor.shape
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            found[name] = 0.5 + torch.rand(shape, generator=generator)
        elif tensor.dim() > 1:
            fan = tensor[0].numel()
            found[name] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        else:
            found[name] = 1 + 0.1 * torch.randn(shape, generator=generator) if "weight" in name else torch.zeros(shape)
    torch.save(found, path)
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a network has measured, from the start of the test."""
    original, found = Extractor.__call__, list[int]()

    def counted(self: Extractor, images: np.ndarray) -> np.ndarray:
        found.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Extractor, "__call__", counted)
    return found
