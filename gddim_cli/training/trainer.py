"""The recipe that made the bundled checkpoint: a preconditioned denoiser, trained on images.

Karras et al. (arXiv 2206.00364), Table 1: `loss = E lambda(sigma) |D(x + sigma n; sigma) - x|^2`,
`lambda = (sigma^2 + s^2) / (sigma s)^2`, here with noise levels that cover a whole diffusion.
"""

from __future__ import annotations

import csv
import hashlib
import math
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import yaml
from torch import Tensor

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.errors import DataError, NumericsError, UsageError
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.models.network import Counted
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.files import probe, replacing, sha256
from gddim_cli.training.recipe import Recipe


@dataclass
class Trainer:
    """A training run in a folder: `step()` by step, `save()`d as often as one likes, taken up where it was cut.

    Batch `i` depends on (`recipe.seed`, `i`) only, so a run that was cut and one that was not make the same weights
    (on one device).

    Attributes:
        images: uint8 [N, C, H, W], square.
        out: the folder; its `state.pt`, where it exists, is gone on from.

    Raises:
        DataError: images that the network cannot take; a `state.pt` that cannot be read.
        UsageError: the folder holds a run of another recipe.
    """

    recipe: Recipe
    images: Tensor
    out: Path
    device: torch.device
    done: int = 0
    seconds: float = 0.0
    log: list[tuple[int, float, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.recipe.seed)
        height, width = self.images.shape[2:]
        if height != width:
            raise DataError(f"the images are {width}x{height}; square ones are needed")
        if self.recipe.sigma.min >= self.recipe.sigma.max:
            raise DataError(f"recipe {self.recipe.name}: sigma.min is not below sigma.max")
        probe(self.state_path)
        self.fingerprint = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()
        self.sigma_data = self._sigma_data()
        try:
            self.network = DenoisingUNet(**self.network_arguments)
            self.average = DenoisingUNet(**self.network_arguments)
        except (TypeError, ValueError) as error:
            raise DataError(f"recipe {self.recipe.name}: the network cannot be built: {error}") from error
        self.average.load_state_dict(self.network.state_dict())
        self.network.to(self.device)
        self.average.to(self.device).requires_grad_(False).eval()
        self.images = self.images.to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.99), fused=True)
        if self.state_path.exists():
            self._resume()

    @property
    def state_path(self) -> Path:
        return self.out / "state.pt"

    @property
    def network_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `DenoisingUNet` for these images."""
        _, channels, height, _ = self.images.shape
        return {
            **self.recipe.network,
            "image_channels": channels,
            "image_size": height,
            "sigma_data": self.sigma_data,
        }

    def _sigma_data(self) -> float:
        grey = np.arange(256) / 127.5 - 1
        counts = np.bincount(self.images.flatten().numpy(), minlength=256)
        return round(float(np.sqrt((grey**2 * counts).sum() / counts.sum())), 4)

    def step(self) -> float:
        """One optimizer step; returns the loss.

        Raises:
            NumericsError: the loss is not finite.
        """
        started = time.perf_counter()
        clean, sigma, noise = self._batch(self.done)
        s = self.sigma_data
        estimate = self.network(clean + sigma[:, None, None, None] * noise, sigma)
        weight = (sigma**2 + s**2) / (sigma * s) ** 2
        loss = ((estimate - clean).square().mean(dim=(1, 2, 3)) * weight).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rate = self.learning_rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.done += 1
        self._average(min(self.recipe.ema, self.done / (9 + self.done)))
        value = loss.item()
        if not math.isfinite(value):
            raise NumericsError(f"the loss became {value} at step {self.done}; lower learning_rate in the recipe")
        self.seconds += time.perf_counter() - started
        self.recent.append(value)
        return value

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, a plateau, 1/sqrt(step), and linearly to nothing over the last `cooldown` steps.

        In a run shorter than three times the cooldown that is its last third.
        """
        recipe = self.recipe
        cooldown = max(1, min(recipe.cooldown, recipe.steps // 3))
        factor = min(1.0, (step + 1) / recipe.warmup, math.sqrt(recipe.decay_from / (step + 1)))
        return recipe.learning_rate * factor * min(1.0, max(0, recipe.steps - step) / cooldown)

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        recipe, levels = self.recipe, self.recipe.sigma
        generator = torch.Generator(self.device).manual_seed(recipe.seed * 1_000_003 + step)
        random: dict[str, Any] = {"generator": generator, "device": self.device}
        size = recipe.batch_size
        picked = self.images[torch.randint(len(self.images), (size,), **random)]
        if recipe.flip:
            mirrored = torch.rand(size, 1, 1, 1, **random) < 0.5
            picked = torch.where(mirrored, picked.flip(-1), picked)
        clean = picked.float() / 127.5 - 1
        lowest, highest = math.log(levels.min), math.log(levels.max)
        normal = levels.mean + levels.std * torch.randn(size, **random)
        even = lowest + (highest - lowest) * torch.rand(size, **random)
        chosen = torch.where(torch.rand(size, **random) < levels.even, even, normal)
        sigma = chosen.clamp(lowest, highest).exp()
        return clean, sigma, torch.randn(clean.shape, **random)

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        averages, values = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(averages, values, 1 - decay)

    def save(self) -> None:
        """Writes `state.pt` and `log.csv` (step, mean loss since the row before, seconds), each whole or not at all.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self.recent:
            self.log.append((self.done, sum(self.recent) / len(self.recent), self.seconds))
            self.recent.clear()
        state = {
            "step": self.done,
            "seconds": self.seconds,
            "recipe": msgspec.to_builtins(self.recipe),
            "images": self.fingerprint,
            "log": self.log,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.state_path) as temporary:
            torch.save(state, temporary)
        with replacing(self.out / "log.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "loss", "seconds"])
            writer.writerows(self.log)

    def export(self, machine: str) -> Path:
        """Writes the averaged weights as `NAME.safetensors`, their card inside and as `NAME.yaml` beside it.

        Args:
            machine: what the card says it was trained on.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.out / f"{self.recipe.name}.safetensors"
        card = self.card(machine)
        native.write(path, card, self.average.state_dict())
        text = yaml.safe_dump(msgspec.to_builtins(msgspec.structs.replace(card, sha256=sha256(path))), sort_keys=False)
        with replacing(path.with_suffix(".yaml")) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def card(self, machine: str) -> Card:
        """The checkpoint's card: what it is and how it came about."""
        recipe, (count, channels, size, _) = self.recipe, self.images.shape
        return Card(
            name=recipe.name,
            title=f"Isotropic denoiser, {sum(p.numel() for p in self.average.parameters()):,} parameters",
            images=Images(channels, size),
            network={"kind": "denoiser", **self.network_arguments},
            parameterization="denoiser",
            diffusion={"name": "cld"},
            training={
                "data": recipe.data.get("title", "a person's own images"),
                "images": count,
                "steps": self.done,
                "batch_size": recipe.batch_size,
                "hours": round(self.seconds / 3600, 2),
                "machine": machine,
                "torch": torch.__version__.split("+")[0],
                "recipe": {
                    k: v for k, v in msgspec.to_builtins(recipe).items() if k not in ("data", "network", "name")
                },
            },
            license={"weights": "Apache-2.0", **({"data": recipe.data["license"]} if "license" in recipe.data else {})},
            cite=[recipe.data["source"]] if "source" in recipe.data else [],
        )

    def samples(self, count: int, nfe: int = 20) -> Pixels:
        """Images [count, H, W, C] drawn from the averaged network so far, always from the same noise."""
        model = Checkpoint(self.card(""), Counted(self.average), self.state_path, "")
        prepared = prepare(SamplingRequest(nfe=nfe), self.device, model=model)
        return quantize(prepared.images(prepared.run(range(count))), prepared.config.quantize)

    def _resume(self) -> None:
        try:
            state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(
                f"{self.state_path}: not a training state of gddim ({' '.join(str(error).split())[:200]}); "
                "move it away to begin anew"
            ) from error
        parts = {"step", "seconds", "recipe", "images", "log", "network", "average", "optimizer"}
        if not isinstance(state, dict) or state.keys() != parts:
            raise DataError(f"{self.state_path}: not a training state of gddim; move it away to begin anew")
        wanted = {**msgspec.to_builtins(self.recipe), "steps": 0, "images": self.fingerprint}
        found = {**state["recipe"], "steps": 0, "images": state["images"]}
        changed = [key for key in wanted if wanted[key] != found.get(key)]
        if changed:
            raise UsageError(
                f"{self.state_path}: that run had other settings: {', '.join(changed)}; "
                "give another --out, or the recipe and images it was begun with (only 'steps' may change)"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.seconds, self.log = state["step"], state["seconds"], state["log"]
