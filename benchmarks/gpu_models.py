"""The models that benchmarks/gpu.py measures: the large network with random weights, or a model on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.checkpoints.load import Checkpoint, build
from gddim_cli.hub import store
from gddim_cli.hub.load import locate
from gddim_cli.models.acceleration import Accelerated, Speed
from gddim_cli.models.network import Counted
from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest

CPU = torch.device("cpu")
SMALL = {"image_size": 8, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4]}


class RandomDenoiser(nn.Module):
    """An untrained NCSN++ as a denoiser `c_skip y + c_out F(c_in y)` (arXiv 2206.00364, Table 1, sigma_data = 0.5).

    As a noise prediction, an untrained network would drive every pixel far beyond black or white, where all settings
    give the same image. As a denoiser, it gives images that stay within the usual range and depend on every evaluation.
    """

    def __init__(self, network: NCSNpp) -> None:
        super().__init__()
        self.network, self.data = network, 0.5

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[:, None, None, None]
        total = s**2 + self.data**2
        scaled = y / total.sqrt()
        raw = self.network(torch.cat([scaled, scaled], dim=1), sigma)[:, : y.shape[1]]
        return self.data**2 / total * y + s * self.data / total.sqrt() * raw


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        card: the model card.
        module: the network, in float32 on the CPU.
        flop: floating-point operations of one evaluation for one image.
        nfe: network evaluations per image.
    """

    card: Card
    module: nn.Module
    flop: float
    nfe: int

    def prepared(
        self,
        device: torch.device,
        speed: Speed,
        lam: float | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> PreparedRun:
        """The model prepared for sampling by gDDIM; deterministic if `lam` is None."""
        network = Accelerated(copy.deepcopy(self.module), device, speed, store.cache_folder() / "compiled", say)
        given = {"nfe": self.nfe, "lambda": lam, "dtype": str(speed.dtype).removeprefix("torch."), "tf32": speed.tf32}
        return prepare(SamplingRequest.of(given), device, model=Checkpoint(self.card, Counted(network), Path(), ""))

    def inputs(self, count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Noisy images, and their noise levels or times."""
        images = self.card.images
        blocks = 1 if self.card.parameterization == "denoiser" else self.card.make_diffusion().D
        made = torch.randn(
            count, blocks * images.channels, images.size, images.size, generator=torch.Generator().manual_seed(0)
        )
        return made.to(device, dtype), torch.full((count,), 0.5, device=device, dtype=dtype)


def random_model(small: bool, nfe: int) -> Model:
    """The network of cld-cifar10 with random weights, its output scaled to unit variance."""
    card = store.card_of("cld-cifar10")
    arguments = {**card.network, **(SMALL if small else {})}
    arguments.pop("kind")
    torch.manual_seed(0)
    module = RandomDenoiser(NCSNpp(**arguments)).eval().requires_grad_(False)
    images = Images(card.images.channels, arguments["image_size"])
    card = msgspec.structs.replace(card, images=images, parameterization="denoiser")
    model = Model(card, module, 0.0, nfe)
    x, _ = model.inputs(4, CPU, torch.float32)
    last = module.network.conv_out
    scale = module.network(torch.cat([x, x], dim=1), torch.tensor([0.01, 0.1, 1.0, 10.0])).std()
    last.weight /= scale
    return replace(model, flop=count_flop(model))


def real_model(reference: str, nfe: int) -> Model:
    """The model that `--checkpoint reference` selects."""
    path, _ = locate(reference)
    card, tensors = native.read(path)
    model = Model(card, build(card, tensors, path), 0.0, nfe)
    return replace(model, flop=count_flop(model))


def count_flop(model: Model) -> float:
    """Floating-point operations of one evaluation for one image; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        model.module(*model.inputs(1, CPU, torch.float32))
    return float(counter.get_total_flops())
