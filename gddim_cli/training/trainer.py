"""Training a preconditioned denoiser: batches, loss, learning rate, averaged weights.

Karras et al. (arXiv 2206.00364), Table 1: `loss = E lambda(sigma) |D(x + sigma n; sigma) - x|^2` with
`lambda = (sigma^2 + s^2) / (sigma s)^2` and `s = sigma_data`. Unlike in the paper, a share of the
noise levels has ln(sigma) drawn uniformly over the whole range of the recipe. The network thus also learns the extreme
noise levels at which sampling starts and ends.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from gddim_cli.errors import DataError, NumericsError
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.runtime.memory import memory_for, physical_memory
from gddim_cli.runtime.rounding import rounding
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.recipe import Network, Recipe

BYTES_PER_PARAMETER = 20
"""Training memory per weight, in float32: the weight, its average, its gradient and two moments of Adam."""


class Trainer:
    """Trains a denoiser step by step.

    Batch `i` depends only on (`recipe.seed`, `i`), so interrupted and uninterrupted runs give the same weights (bit for
    bit on a CPU with the same number of threads).

    Attributes:
        network, average: the weights that are trained, and their exponential moving average.
        done: number of steps taken.
        seconds: time that these steps took.
    """

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device) -> None:
        """Raises DataError if the network does not fit the images, CapacityError if it does not fit into memory."""
        self.recipe, self.device = recipe, device
        self.count = len(data.images)
        self.classes = data.classes.count if data.classes else 0
        self.arguments = network_arguments(recipe, data)
        self.sigma_data: float = self.arguments["sigma_data"]
        # On a CPU, too large an allocation may raise no error: the system kills the program once it writes to the memory.
        if device.type == "cpu":
            refuse_large_batch(recipe, data)
        torch.manual_seed(recipe.seed)
        try:
            self.network = DenoisingUNet(**self.arguments)
        except ValueError as error:
            raise DataError(f"recipe {recipe.name}: the network cannot be built: {error}") from error
        self.average = DenoisingUNet(**self.arguments)
        self.average.load_state_dict(self.network.state_dict())
        with memory_for(self.count, device, "use fewer images, a smaller network, or --device cpu"):
            self.network.to(device)
            self.average.to(device).requires_grad_(False).eval()
            self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.classes.labels).to(device) if data.classes else None
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.99), fused=True)
        self.done = 0
        self.seconds = 0.0

    @property
    def parameters(self) -> int:
        """Number of weights of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @rounding(tf32=False)
    def step(self) -> float:
        """One optimizer step, in float32 without TF32; returns the loss.

        Raises:
            NumericsError: the loss is not finite; the step is then not taken.
            CapacityError: the batch does not fit in memory.
        """
        started = time.perf_counter()
        size = self.recipe.batch_size
        with memory_for(
            size, self.device, f"lower batch_size in the recipe (to {max(1, size // 2)}), or use a smaller network"
        ):
            loss = self._loss(*self._batch(self.done))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            value = loss.item()
            if not math.isfinite(value):
                raise NumericsError(
                    f"the loss is {value} at step {self.done + 1}; lower learning_rate in the recipe (it is "
                    f"{self.recipe.learning_rate:g}) and start again in another folder, or with --force"
                )
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.done)
            self.optimizer.step()
        self.done += 1
        self._average(min(self.recipe.ema, self.done / (9 + self.done)))
        self.seconds += time.perf_counter() - started
        return value

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, plateau, decay as 1/sqrt(step), and linear decay to zero over the last `cooldown` steps.

        In a run shorter than three cooldowns, the last third of the steps is the cooldown.
        """
        recipe = self.recipe
        cooldown = max(1, min(recipe.cooldown, recipe.steps // 3))
        factor = min(1.0, (step + 1) / recipe.warmup, math.sqrt(recipe.decay_from / (step + 1)))
        return recipe.learning_rate * factor * min(1.0, max(0, recipe.steps - step) / cooldown)

    def _loss(self, clean: Tensor, noise: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        s = self.sigma_data
        condition = sigma if labels is None else with_classes(sigma, labels, self.classes)
        estimate = self.network(clean + sigma[:, None, None, None] * noise, condition)
        weight = (sigma**2 + s**2) / (sigma * s) ** 2
        return ((estimate - clean).square().mean(dim=(1, 2, 3)) * weight).mean()

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Images in [-1, 1], standard normal noise, noise levels [B] and class labels [B]; a hidden label is -1."""
        recipe, levels = self.recipe, self.recipe.sigma
        generator = torch.Generator(self.device).manual_seed(recipe.seed * 1_000_003 + step)
        random: dict[str, Any] = {"generator": generator, "device": self.device}
        size = recipe.batch_size
        index = torch.randint(len(self.images), (size,), **random)
        picked = self.images[index]
        if recipe.flip:
            mirrored = torch.rand(size, 1, 1, 1, **random) < 0.5
            picked = torch.where(mirrored, picked.flip(-1), picked)
        clean = picked.float() / 127.5 - 1
        lowest, highest = math.log(levels.min), math.log(levels.max)
        normal = levels.mean + levels.std * torch.randn(size, **random)
        even = lowest + (highest - lowest) * torch.rand(size, **random)
        chosen = torch.where(torch.rand(size, **random) < levels.even, even, normal)
        sigma = chosen.clamp(lowest, highest).exp()
        noise = torch.randn(clean.shape, **random)
        if self.labels is None:
            return clean, noise, sigma, None
        hidden = torch.rand(size, **random) < recipe.label_dropout
        return clean, noise, sigma, self.labels[index].masked_fill(hidden, -1)

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        averages, values = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(averages, values, 1 - decay)


def with_classes(sigma: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The condition of a class-conditional network, [B, 1 + classes]: sigma, then the label as one-hot columns.

    A label of -1 stands for no class and gives zeros in all of these columns.
    """
    one_hot = labels[:, None] == torch.arange(classes, device=labels.device)
    return torch.cat([sigma[:, None], one_hot.to(sigma)], dim=1)


def network_arguments(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """Keyword arguments of `DenoisingUNet` for these images.

    Raises:
        DataError: the network is too large for the memory.
    """
    network = recipe.network
    channels, size, _ = data.image_shape
    arguments: dict[str, Any] = {
        "patch": network.patch,
        "channels": list(network.channels),
        "blocks": network.blocks,
        "embedding": network.embedding,
        "image_channels": channels,
        "image_size": size,
        "sigma_data": data.root_mean_square(),
    }
    if data.classes:
        arguments["classes"] = data.classes.count
    needed = BYTES_PER_PARAMETER * least_parameters(recipe.network, channels)
    if needed > physical_memory():
        raise DataError(
            f"recipe {recipe.name}: training this network takes at least {needed / 1e9:.2g} GB, more than the "
            f"{physical_memory() / 1e9:.2g} GB of memory; lower network.channels or network.blocks"
        )
    return arguments


def refuse_large_batch(recipe: Recipe, data: Dataset) -> None:
    """Raises DataError if the activations that a step keeps for the backward pass cannot fit in memory."""
    _, size, _ = data.image_shape
    each = 4 * least_activations(recipe.network, size)
    needed = data.images.nbytes + recipe.batch_size * each
    if needed > physical_memory():
        most = (physical_memory() - data.images.nbytes) // each
        way = f"lower batch_size to {most} or less" if most > 0 else "give smaller images, or raise network.patch"
        raise DataError(
            f"recipe {recipe.name}: a step with {recipe.batch_size} images of {size}x{size} takes at least "
            f"{needed / 1e9:.3g} GB, more than the {physical_memory() / 1e9:.3g} GB of memory; {way}"
        )


def least_activations(network: Network, size: int) -> int:
    """A lower bound on the activations that a step keeps for each image, in residual blocks and attention maps."""
    sides = [(size // network.patch) >> level for level in range(len(network.channels))]
    blocks = sum(12 * network.blocks * width * side**2 for width, side in zip(network.channels, sides, strict=True))
    return blocks + 2 * max(1, network.channels[-1] // 32) * sides[-1] ** 4


def least_parameters(network: Network, image_channels: int) -> int:
    """A lower bound on the number of weights, from the residual blocks and the first and last layer."""
    blocks = sum(2 * network.blocks * width * (18 * width + 2 * network.embedding) for width in network.channels)
    return blocks + 18 * image_channels * network.patch**2 * network.channels[0]
