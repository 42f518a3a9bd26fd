"""Compares `gddim fid` with clean-fid on the same folder of 32x32 PNGs, stage by stage: docs/fid.md.

python benchmarks/fid.py [--images 2000] [--through 200] [--inception inception-2015-12-05.pt] [--device cuda]

Without --inception, torchvision's Inception v3 with random weights is used; it has the same interface.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.extractors.inception import SIDE
from gddim_cli.evaluation.extractors.registry import load_extractor
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.moments import Gaussian, Moments, gaussian_of
from gddim_cli.evaluation.resize import bicubic
from gddim_cli.runs.images import open_images

BATCH = 64
Work = Callable[[], Any]


def write_images(folder: Path, count: int) -> None:
    """Writes smooth random RGB images, which compress about as well as photographs."""
    draw = np.random.default_rng(0)
    for i in range(count):
        coarse = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        noise = draw.normal(0, 6, (32, 32, 3))
        smooth = np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC))
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")


class Wrapper(nn.Module):
    """torchvision's Inception v3 with the interface of inception-2015-12-05.pt."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        large = nn.functional.interpolate(x, size=[299, 299], mode="bilinear", align_corners=False)
        features = self.layers((large - 128) / 128)
        return features if return_features else features[:, :1008]


def stand_in(path: Path) -> Path:
    """Writes an Inception network with random weights as TorchScript; it is used if --inception is not given."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    network.fc = nn.Identity()
    network.eval()
    traced = torch.jit.trace(network, torch.zeros(2, 3, SIDE, SIDE), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.script(Wrapper(traced).eval()).save(str(path))  # type: ignore[no-untyped-call]
    return path


def seconds(ours: Work, theirs: Work, runs: int) -> tuple[float, float]:
    """The shortest time of `ours` and of `theirs`, run alternately. (Other load can only make a time longer.)"""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, into in zip((ours, theirs), times, strict=True):
            started = time.perf_counter()
            work()
            into.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def read_and_resize(folder: Path) -> None:
    for batch in open_images(folder).batches(BATCH):
        bicubic(torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).float(), SIDE)


def read_and_resize_cleanfid(folder: Path, workers: int) -> None:
    from cleanfid.utils import ResizeDataset

    dataset = ResizeDataset(sorted(map(str, folder.glob("*.png"))), mode="clean")
    for _ in torch.utils.data.DataLoader(dataset, BATCH, num_workers=workers):
        pass


def measure(folder: Path, extractor: Extractor) -> Gaussian:
    """gddim's path from files to a Gaussian."""
    moments = Moments.empty(extractor.dimension)
    for batch in open_images(folder).batches(BATCH):
        moments.add(extractor(batch))
    return moments.gaussian()


def measure_cleanfid(folder: Path, network: nn.Module, device: torch.device, workers: int) -> Gaussian:
    """clean-fid's path from files to a Gaussian."""
    from cleanfid import fid

    features = fid.get_folder_features(
        str(folder), network, workers, None, False, 0, BATCH, device, "clean", verbose=False
    )
    return Gaussian(np.mean(features, axis=0), np.cov(features, rowvar=False), len(features))


def load_cleanfid(inception: Path, device: torch.device) -> nn.Module:
    from cleanfid.inception_torchscript import InceptionV3W

    network: nn.Module = InceptionV3W(str(inception.parent), download=False).to(device).eval()
    return network


def whole(folder: Path, inception: Path, device: torch.device) -> None:
    measure(folder, load_extractor("clean", device, inception))


def whole_cleanfid(folder: Path, inception: Path, device: torch.device, workers: int) -> None:
    measure_cleanfid(folder, load_cleanfid(inception, device), device, workers)


def cleanfid_distance(a: Gaussian, b: Gaussian) -> float:
    """clean-fid's Fréchet distance; a shim restores the argument `disp` of `sqrtm`, which scipy 1.18 dropped."""
    from cleanfid import fid

    original = fid.linalg.sqrtm

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> Any:
        return original(matrix) if disp else (original(matrix), 0.0)

    fid.linalg.sqrtm = sqrtm
    try:
        return float(fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    finally:
        fid.linalg.sqrtm = original


def peak(work: Callable[..., Any], arguments: tuple[Any, ...], queue: Any) -> None:
    warnings.simplefilter("ignore")
    work(*arguments)
    # getrusage would not do, because a new process inherits the peak of the process that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    queue.put(int(line.split()[1]) / 1024)


def memory(work: Callable[..., Any], *arguments: Any) -> float:
    """Peak memory in MiB of a new process that does the work, including the libraries that it loads."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak, args=(work, arguments, queue))
    process.start()
    found: float = queue.get()
    process.join()
    return found


def gaussians() -> tuple[Gaussian, Gaussian]:
    """Two Gaussians of 2048 features, whose standard deviations fall by a factor of e^7 from the first to the last."""
    draw = np.random.default_rng(0)
    mix = draw.standard_normal((2048, 2048)) * np.exp(-np.arange(2048) / 300)
    a, b = (gaussian_of((draw.standard_normal((5000, 2048)) @ mix).astype(np.float32)) for _ in range(2))
    return a, b


def row(stage: str, ours: float, theirs: float, unit: str = "s") -> None:
    print(f"| {stage} | {ours:.3g} {unit} | {theirs:.3g} {unit} | {theirs / max(ours, 1e-9):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--through", type=int, default=200, help="number of images that go through the network")
    parser.add_argument("--inception", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="number of data-loading workers of clean-fid")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        every, few = Path(name) / "every", Path(name) / "few"
        for folder, count in ((every, arguments.images), (few, arguments.through)):
            folder.mkdir()
            write_images(folder, count)
        inception = Path(name) / "inception-2015-12-05.pt"
        if arguments.inception:
            inception.symlink_to(arguments.inception.absolute())
        else:
            stand_in(inception)
        print(
            f"{torch.get_num_threads()} threads, {device}; {arguments.images} PNGs of 32x32; ratio: clean-fid / gddim\n"
        )
        print("| stage | gddim | clean-fid | ratio |\n|---|---|---|---|")
        for workers in sorted({0, 2, arguments.workers}):
            times = seconds(lambda: read_and_resize(every), lambda w=workers: read_and_resize_cleanfid(every, w), 5)  # type: ignore[misc]
            row(f"read and resize, clean-fid with {workers} workers", *times)
        row("load the network (gddim also computes its SHA-256)", *seconds(
            lambda: load_extractor("clean", device, inception), lambda: load_cleanfid(inception, device), 3))  # fmt: skip
        extractor, network = load_extractor("clean", device, inception), load_cleanfid(inception, device)
        times = seconds(
            lambda: measure(few, extractor), lambda: measure_cleanfid(few, network, device, arguments.workers), 5
        )
        row(f"read, resize, network, moments ({arguments.through} images)", *times)
        features = np.random.default_rng(0).random((20_000, 2048)).astype(np.float32)
        times = seconds(lambda: Moments.of(features), lambda: (features.mean(0), np.cov(features, rowvar=False)), 3)
        row("mean and covariance, 20 000 x 2048", *times)
        a, b = gaussians()
        found = seconds(lambda: frechet_distance(a, b), lambda: cleanfid_distance(a, b), 3)
        row("Frechet distance, 2048 features", *found)
        paths = (few, inception, device)
        row("memory: read to moments", memory(whole, *paths), memory(whole_cleanfid, *paths, arguments.workers), "MiB")
        row("memory: distance", memory(frechet_distance, a, b), memory(cleanfid_distance, a, b), "MiB")
        difference = abs(frechet_distance(a, b) / cleanfid_distance(a, b) - 1)
        print(f"\nThe relative difference of the two distances is {difference:.1e}")


if __name__ == "__main__":
    main()
