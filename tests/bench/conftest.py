"""A small checkpoint of digits' size, which the bundled classifier can measure, and `gddim bench` on it."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import msgspec
import pytest
import torch

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.models.networks.unet import DenoisingUNet

SMALL = {
    "image_channels": 1,
    "image_size": 28,
    "sigma_data": 0.5,
    "channels": [8],
    "blocks": 1,
    "embedding": 16,
    "patch": 4,
}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser of random weights, 28x28 gray images."""
    torch.manual_seed(0)
    network = DenoisingUNet(**SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    card = Card("small", "A test's network", Images(1, 28), {"kind": "denoiser", **SMALL}, "denoiser", {"name": "cld"})
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    native.write(path, card, network.state_dict())
    return path


@pytest.fixture
def bench(gddim, small: Path, tmp_path: Path):
    """Runs `gddim bench WORDS` on the small checkpoint, of gDDIM unless they say otherwise, into `tmp_path / out`."""

    def run(*words: object, out: str = "out"):
        of = () if "--sampler" in words or str(words[0]).endswith(".yaml") else ("--sampler", "gddim")
        return gddim("bench", *words, *of, "--checkpoint", small, "--ref", "mnist", "--out", tmp_path / out)

    return run


def stand_in(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network on CLD in place of the released checkpoints, and the digits' evaluator under the paper's protocol."""
    from gddim_cli.bench import resources
    from gddim_cli.evaluation.factory import open_evaluator
    from gddim_cli.evaluation.protocols import find_protocol
    from gddim_cli.hub.load import load
    from gddim_cli.hub.store import card_of

    def loaded(name: str, *words: object, **named: object):
        model = load(str(small), *words, **named)
        card, real = model.card, card_of(name)
        return dataclasses.replace(
            model, card=msgspec.structs.replace(card, diffusion=real.diffusion, sampling=real.sampling)
        )

    digits = open_evaluator("mnist", None, None, None, torch.device("cpu"), (28, 28, 1))
    paper = dataclasses.replace(digits, protocol=find_protocol("gddim-paper"))
    monkeypatch.setattr("gddim_cli.runs.prepare.load", loaded)
    factory = types.SimpleNamespace(open=lambda metric, _: paper.with_metric(metric))
    monkeypatch.setattr(resources, "EvaluatorFactory", lambda *_: factory)
