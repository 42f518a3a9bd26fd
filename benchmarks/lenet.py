"""Trains the digit classifier and computes the reference statistics behind `--ref mnist`. Both are in checkpoints/.

python benchmarks/lenet.py mnist.npz [--epochs 12] [--out checkpoints/] [--statistics-only]
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from gddim_cli.evaluation.extractors.lenet import LENET, load_lenet, scaled, write_classifier
from gddim_cli.evaluation.moments import Moments
from gddim_cli.evaluation.references import KEPT
from gddim_cli.evaluation.statistics import write_statistics
from gddim_cli.models.networks.lenet import LeNet


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to two pixels at random, which preserves the digit."""
    padded = fn.pad(images, (2, 2, 2, 2), value=-1.0)
    top, left = torch.randint(0, 5, (2, len(images)), generator=generator)
    rows, columns = top[:, None] + torch.arange(28), left[:, None] + torch.arange(28)
    return padded[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(images: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> LeNet:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = LeNet()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(images), generator=generator)[: steps // epochs * batch].view(-1, batch):
            loss = fn.cross_entropy(network(shifted(images[rows], generator)), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


@torch.inference_mode()
def accuracy(network: LeNet, images: Tensor, labels: Tensor) -> float:
    return float((network(images).argmax(1) == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument(
        "--statistics-only", action="store_true", help="only make the statistics, with the weights in --out"
    )
    arguments = parser.parse_args()
    with np.load(arguments.data) as archive:
        data: dict[str, Any] = dict(archive)
    path = arguments.out / f"{LENET}.safetensors"
    if not arguments.statistics_only:
        train_classifier(data, arguments.epochs, path)
    extractor = load_lenet(torch.device("cpu"), path)
    for split in ("train", "test"):
        images = data[f"{split}_images"][..., None]
        features = np.concatenate([extractor(images[i : i + 500]) for i in range(0, len(images), 500)])
        moments = Moments.of(features)
        statistics = arguments.out / f"stats-mnist-{split}.npz"
        write_statistics(statistics, moments.gaussian(), extractor, features[:KEPT], f"MNIST {split}", (28, 28, 1))
        print(f"{statistics}: {moments.n} images")


def train_classifier(data: dict[str, Any], epochs: int, path: Path) -> None:
    """Trains on MNIST's training digits, tests on its test digits, and writes the weights with a card."""
    x = {split: scaled(data[f"{split}_images"][..., None]) for split in ("train", "test")}
    y = {split: torch.from_numpy(data[f"{split}_labels"]).long() for split in ("train", "test")}
    started = time.perf_counter()
    network = train(x["train"], y["train"], epochs)
    right = accuracy(network, x["test"], y["test"])
    print(f"{right:.2%} of the test digits right, {time.perf_counter() - started:.0f} s")
    card = {
        "name": LENET,
        "title": "LeNet classifier of MNIST; features of its last hidden layer",
        "data": "MNIST train, 60 000 images, CC BY-SA 3.0",
        "epochs": epochs,
        "test_accuracy": round(right, 4),
        "machine": platform.machine(),
        "license": "Apache-2.0",
    }
    write_classifier(path, card, network)


if __name__ == "__main__":
    main()
