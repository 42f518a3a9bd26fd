"""Everything that needs a GPU, as one table: docs/gpu.md.

python benchmarks/gpu.py > table.md                 # the network of cld-cifar10, random weights, no download
python benchmarks/gpu.py --checkpoint mnist         # a model that is on this machine
python benchmarks/gpu.py --device cpu --small       # the same code, in a minute or two, anywhere
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from gpu_features import features_rate
from gpu_models import CPU, Model, random_model, real_model
from torch import Tensor

from gddim_cli.acceleration import Speed, rounding
from gddim_cli.batching import Trials, attempt, best_size
from gddim_cli.cli.progress import duration, say
from gddim_cli.errors import GddimError
from gddim_cli.images import Pixels, quantize

COMPARED = 64
"""Images whose distance from float32's is taken."""
EXACT = 2
"""Images that are made in float64 on the CPU."""
SHORT = 20.0
"""Seconds below which a run is repeated, and the quicker one taken."""
CLOSE = 0.99
"""Of the pixels within one grey level: such a setting counts as float32's equal."""

BF16, FP16 = torch.bfloat16, torch.float16
SETTINGS = {
    "fp32": Speed(),
    "fp32, channels last": Speed(channels_last=True),
    "tf32": Speed(tf32=True),
    "tf32, channels last": Speed(tf32=True, channels_last=True),
    "bf16": Speed(BF16, channels_last=False),
    "bf16, channels last": Speed(BF16, channels_last=True),
    "bf16, channels last, graph": Speed(BF16, channels_last=True, cuda_graph=True),
    "fp16, channels last": Speed(FP16, channels_last=True),
    "fp32, compiled": Speed(compile=True),
    "tf32, channels last, compiled": Speed(tf32=True, channels_last=True, compile=True),
    "tf32, channels last, compiled, graph": Speed(tf32=True, channels_last=True, compile=True, cuda_graph=True),
    "bf16, channels last, compiled": Speed(BF16, channels_last=True, compile=True),
    "bf16, channels last, compiled, graph": Speed(BF16, channels_last=True, compile=True, cuda_graph=True),
    "fp16, channels last, compiled, graph": Speed(FP16, channels_last=True, compile=True, cuda_graph=True),
}


@dataclass(frozen=True)
class Row:
    """One setting at one batch size.

    Attributes:
        first: seconds of the first evaluation, compilation and capture in it.
        rate: images/s of the whole sampler, to the images on the CPU.
        alone: images/s of as many evaluations of the network alone.
        memory: the peak, bytes; 0 on the CPU.
        error: of one evaluation against float64 on the CPU, relative, in the 2-norm.
        pixels: the first `COMPARED` images.
    """

    name: str
    batch: int
    first: float
    rate: float
    alone: float
    memory: int
    error: float
    pixels: Pixels


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of work that may be under way on the device when it returns."""
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


@torch.inference_mode()
def looped(network: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor], times: int) -> float:
    """Seconds of so many evaluations, one after the other."""

    def loop() -> None:
        for _ in range(times):
            network(*inputs)

    network(*inputs)  # warms up
    return seconds(loop, inputs[0].device)


@torch.inference_mode()
def measure(model: Model, name: str, speed: Speed, batch: int, device: torch.device, exact: Tensor) -> Row:
    """One row; raises what torch raises where memory ends."""
    sampler = model.sampler(device, speed)
    network = sampler.checkpoint.network
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    inputs = model.inputs(batch, device, sampler.dtype)
    first = seconds(lambda: network(*inputs), device)
    y = network(*model.inputs(len(exact), device, sampler.dtype)).double().cpu()
    alone = looped(network, inputs, model.nfe)
    images: list[np.ndarray] = []

    def run() -> None:
        images[:] = [sampler.image(sampler.run(range(batch)))]

    spent = seconds(run, device)
    if spent < SHORT:
        spent = min(spent, seconds(run, device))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    error = float((y - exact).norm() / exact.norm())
    return Row(name, batch, first, batch / spent, batch / alone, memory, error, quantize(images[0][:COMPARED], "round"))


def released(device: torch.device) -> None:
    """Gives back what the last setting held."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def distance(pixels: Pixels, reference: Pixels) -> tuple[float, float]:
    """Root mean square difference in grey levels, and the share of pixels within one, of the images that both have."""
    count = min(len(pixels), len(reference))
    off = pixels[:count].astype(np.float64) - reference[:count]
    return float(np.sqrt((off**2).mean())), float((np.abs(off) <= 1).mean())


def plain(model: Model, tf32: bool, batches: Sequence[int], device: torch.device) -> float:
    """Images/s of the module as it is, eager float32, called in a loop; the best of the batch sizes."""
    module = copy.deepcopy(model.module).to(device)
    with rounding(tf32):
        spent = {
            batch: attempt(lambda n=batch: looped(module, model.inputs(n, device, torch.float32), model.nfe))  # type: ignore[misc]
            for batch in batches
        }
    return max(batch / used for batch, used in spent.items() if used)


def table(rows: Sequence[Row], model: Model, reference: Pixels) -> list[str]:
    lines = [
        "| setting | batch | images/s | TFLOP/s | 50 000 images | sampler's own | first evaluation | peak memory "
        "| error of an evaluation | RMS from fp32 | within one grey level |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        rms, within = distance(row.pixels, reference)
        flop = row.alone * model.nfe * model.flop / 1e12
        memory = f"{row.memory / 2**30:.2f} GiB" if row.memory else "-"
        lines.append(
            f"| {row.name} | {row.batch} | {row.rate:.3g} | {flop:.3g} | {duration(50_000 / row.rate)} "
            f"| {100 * (1 - row.rate / row.alone):.1f} % | {row.first:.1f} s | {memory} | {row.error:.1e} "
            f"| {rms:.3f} | {100 * within:.2f} % |"
        )
    return lines


def conclusion(rows: Sequence[Row], reference: Pixels, loops: dict[str, float]) -> list[str]:
    """The fastest setting that is as good as float32, beside the plain loops."""
    lines = [f"- {name}: {rate:.3g} images/s" for name, rate in loops.items()]
    equal = [row for row in rows if distance(row.pixels, reference)[1] >= CLOSE]
    best = max(equal, key=lambda row: row.rate)
    beside = ", ".join(f"{best.rate / rate:.2f} times {name}" for name, rate in loops.items())
    lines.append(
        f"- fastest with {CLOSE:.0%} of pixels within one grey level of fp32: **{best.name}**, batch {best.batch}, "
        f"{best.rate:.3g} images/s: {beside}"
    )
    return lines


def exact_images(model: Model) -> tuple[Tensor, Pixels]:
    """One evaluation, and the images, in float64 on the CPU."""
    sampler = model.sampler(CPU, Speed(torch.float64))
    with torch.inference_mode():
        y = sampler.checkpoint.network(*model.inputs(EXACT, CPU, torch.float64))
    return y, quantize(sampler.image(sampler.run(range(EXACT))), "round")


def automatic(model: Model, device: torch.device) -> str:
    """What `--batch-size auto` takes."""
    trials = Trials(model.sampler(device, SETTINGS["bf16, channels last"]))
    room = trials.room()
    return f"- `--batch-size auto` takes {best_size(trials.seconds, room)} for bf16, of at most {room}"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a small network, small batches, 4 evaluations")
    parser.add_argument("--checkpoint", help="a model on this machine, in place of random weights")
    parser.add_argument("--nfe", type=int, help="evaluations (default: 50; small: 4)")
    parser.add_argument("--batches", type=int, nargs="+", help="sizes (default: 64 256; small: 2 4)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="settings whose names have one of these words")
    chosen = parser.parse_args(words)
    chosen.nfe = chosen.nfe or (4 if chosen.small else 50)
    chosen.batches = chosen.batches or ([2, 4] if chosen.small else [64, 256])
    return chosen


def row_or_reason(measured: Callable[[], Row]) -> Row | None:
    """The row; None, and a word on stderr, where there is not the memory or the compiler for it."""
    try:
        row = attempt(measured)
    except GddimError as error:
        say(f"  {error}")
        return None
    say("  not enough memory" if row is None else f"  {row.rate:.3g} images/s")
    return row


def all_rows(
    model: Model, batches: Sequence[int], device: torch.device, exact: Tensor, only: Sequence[str]
) -> list[Row]:
    """Every setting that the device has: eager ones at every size, compiled ones at the best one of their precision."""
    rows: list[Row] = []
    for name, speed in SETTINGS.items():
        if device.type != "cuda" and (speed.tf32 or speed.cuda_graph):
            continue
        if name != "fp32" and only and not any(word in name for word in only):
            continue
        alike = [row for row in rows if precision(SETTINGS[row.name]) == precision(speed)] or rows
        best = max(alike, key=lambda row: row.rate).batch if alike else batches[0]
        for batch in [best] if speed.compile else batches:
            say(f"{name}, batch {batch}")
            row = row_or_reason(lambda n=name, s=speed, b=batch: measure(model, n, s, b, device, exact))  # type: ignore[misc]
            released(device)
            if row is None:
                break
            rows.append(row)
    return rows


def precision(speed: Speed) -> tuple[torch.dtype, bool]:
    return speed.dtype, speed.tf32


def header(model: Model, device: torch.device, checkpoint: str | None) -> str:
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    what = f"`{checkpoint}`" if checkpoint else "the architecture of `cld-cifar10`, **random weights**"
    numbers, images = sum(p.numel() for p in model.module.parameters()), model.card.images
    return (
        f"{name}, torch {torch.__version__}, {datetime.now(UTC).date()}; {what}: {numbers:,} numbers, "
        f"{model.flop / 1e9:.3g} GFLOP an evaluation, {images.channels}x{images.size}x{images.size}; NFE {model.nfe}.\n"
    )


def main(words: Sequence[str] | None = None) -> None:
    chosen = arguments(words)
    device = torch.device(chosen.device)
    model = real_model(chosen.checkpoint, chosen.nfe) if chosen.checkpoint else random_model(chosen.small, chosen.nfe)
    loops = {"the plain network in a loop, fp32": plain(model, False, chosen.batches, device)}
    if device.type == "cuda":
        loops["the plain network in a loop, tf32"] = plain(model, True, chosen.batches, device)
    exact, best_images = exact_images(model)
    rows = all_rows(model, chosen.batches, device, exact, chosen.only or ())
    reference = max((row for row in rows if row.name == "fp32"), key=lambda row: len(row.pixels)).pixels
    rms, within = distance(reference, best_images)
    print(header(model, device, chosen.checkpoint))
    print("\n".join([*table(rows, model, reference), "", *conclusion(rows, reference, loops)]))
    print(
        f"- fp32 beside float64 on the CPU, {EXACT} images: RMS {rms:.3f} grey levels, {100 * within:.2f} % within one"
    )
    print(automatic(model, device))
    released(device)
    batch, batches = (2, 1) if chosen.small else (64, 10)
    rate = features_rate(device, model.card.images.size, batch, batches)
    print(f"- Inception's features for FID (pytorch-fid's), batch {batch}: {rate:.3g} images/s")


if __name__ == "__main__":
    main()
