"""Measures everything that needs a GPU, in less than ten minutes; prints a table and a list. See docs/gpu.md.

python benchmarks/gpu.py > gpu.md                   # the network of cld-cifar10, random weights, no download
python benchmarks/gpu.py --checkpoint mnist         # a model that is on this machine
python benchmarks/gpu.py --device cpu --small       # the same code, in a minute or two, anywhere
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from gpu_budget import Budget
from gpu_checks import automatic, distance_of_states, product_rates
from gpu_commands import Commands
from gpu_features import features_rate
from gpu_memory import survived
from gpu_models import CPU, Model, random_model, real_model
from gpu_table import CUDNN, Row, conclusion, distance, fastest, goals, table
from gpu_tool import tool
from torch import Tensor

from gddim_cli.cli.progress import say
from gddim_cli.errors import GddimError
from gddim_cli.images.quantize import Pixels, quantize
from gddim_cli.models.acceleration import Speed
from gddim_cli.runs.batch_size import attempt
from gddim_cli.runtime.rounding import rounding

COMPARED = 64
"""Number of images that are compared with those of float32."""
EXACT = 2
"""Number of images that are made in float64 on the CPU."""
SHORT = 20.0
"""A run that takes fewer seconds is repeated, and the faster run counts."""
BF16, FP16 = torch.bfloat16, torch.float16
COMPILING, EAGER = 100.0, 20.0
"""Estimated maximum time of a row on an H100, in seconds, with and without compilation."""
LAST = 240.0
"""Estimated time of the measurements that follow the table, in seconds."""
SETTINGS = {  # the most important settings come first, since time may run out
    "fp32": Speed(),
    "tf32": Speed(tf32=True),
    "bf16": Speed(BF16, channels_last=False),
    "bf16, channels last": Speed(BF16, channels_last=True),
    "bf16, channels last, graph": Speed(BF16, channels_last=True, cuda_graph=True),
    "bf16, channels last, compiled, graph": Speed(BF16, channels_last=True, compile=True, cuda_graph=True),
    "tf32, channels last": Speed(tf32=True, channels_last=True),
    f"bf16, channels last, graph, {CUDNN}": Speed(BF16, channels_last=True, cuda_graph=True),
    "fp16, channels last": Speed(FP16, channels_last=True),
    "tf32, channels last, compiled, graph": Speed(tf32=True, channels_last=True, compile=True, cuda_graph=True),
    "fp32, channels last": Speed(channels_last=True),
    "bf16, channels last, compiled": Speed(BF16, channels_last=True, compile=True),
    f"tf32, channels last, {CUDNN}": Speed(tf32=True, channels_last=True),
    "fp16, channels last, compiled, graph": Speed(FP16, channels_last=True, compile=True, cuda_graph=True),
    "tf32, channels last, compiled": Speed(tf32=True, channels_last=True, compile=True),
    "fp32, compiled": Speed(compile=True),
}


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The seconds that `work` takes, including work that is still running on the device when the call returns."""
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


@torch.inference_mode()
def looped(network: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor], times: int) -> float:
    """The seconds of `times` evaluations, one after the other."""

    def loop() -> None:
        for _ in range(times):
            network(*inputs)

    network(*inputs)  # warms up
    return seconds(loop, inputs[0].device)


@torch.inference_mode()
def measure(model: Model, name: str, speed: Speed, batch: int, device: torch.device, exact: Tensor) -> Row:
    """Measures one row of the table; raises torch's error if memory runs out."""
    prepared = model.prepared(device, speed)
    network = prepared.model.network
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    inputs = model.inputs(batch, device, prepared.dtype)
    first = seconds(lambda: network(*inputs), device)
    y = network(*model.inputs(len(exact), device, prepared.dtype)).double().cpu()
    alone = looped(network, inputs, model.nfe)
    images: list[np.ndarray] = []

    def run() -> None:
        images[:] = [prepared.images(prepared.run(range(batch)))]

    spent = seconds(run, device)
    if spent < SHORT:
        spent = min(spent, seconds(run, device))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    error = float((y - exact).norm() / exact.norm())
    return Row(name, batch, first, batch / spent, batch / alone, memory, error, quantize(images[0][:COMPARED], "round"))


def released(device: torch.device) -> None:
    """Frees the memory that the last setting used."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def plain(model: Model, tf32: bool, batches: Sequence[int], device: torch.device) -> float | None:
    """Images/s of the uncompiled float32 module in a loop, at the fastest batch size; None if none fits in memory."""
    module = copy.deepcopy(model.module).to(device)
    with rounding(tf32):
        spent = {
            batch: attempt(lambda n=batch: looped(module, model.inputs(n, device, torch.float32), model.nfe))  # type: ignore[misc]
            for batch in batches
        }
    return max((batch / used for batch, used in spent.items() if used), default=None)


def exact_run(model: Model) -> tuple[Tensor, Pixels]:
    """The output of one evaluation, and the sampled images, both in float64 on the CPU."""
    prepared = model.prepared(CPU, Speed(torch.float64))
    with torch.inference_mode():
        y = prepared.model.network(*model.inputs(EXACT, CPU, torch.float64))
    return y, quantize(prepared.images(prepared.run(range(EXACT))), "round")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="use a small network, small batches and NFE 4")
    parser.add_argument("--checkpoint", help="measure a model on this machine instead of random weights")
    parser.add_argument("--nfe", type=int, help="network evaluations per image (default: 50; small: 4)")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes (default: 64 256; small: 2 4)")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="measure only fp32 and settings with WORD in the name"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="time limit; what does not fit is left out")
    chosen = parser.parse_args(words)
    chosen.nfe = chosen.nfe or (4 if chosen.small else 50)
    chosen.batches = chosen.batches or ([2, 4] if chosen.small else [64, 256])
    return chosen


def row_or_reason(measured: Callable[[], Row]) -> Row | None:
    """The row; None, with a note on stderr, if memory runs out or the network cannot be compiled."""
    try:
        row = attempt(measured)
    except GddimError as error:
        say(f"  {error}")
        return None
    say("  not enough memory" if row is None else f"  {row.rate:.3g} images/s")
    return row


def all_rows(
    model: Model, batches: Sequence[int], device: torch.device, exact: Tensor, only: Sequence[str], budget: Budget
) -> list[Row]:
    """The rows of the settings that the device supports.

    A setting is measured at every batch size; if it is compiled, only at the batch size that was fastest so far.
    """
    rows: list[Row] = []
    for name, speed in SETTINGS.items():
        if device.type != "cuda" and (speed.tf32 or speed.cuda_graph):
            continue
        if name != "fp32" and only and not any(word in name for word in only):
            continue
        alike = [row for row in rows if precision(SETTINGS[row.name]) == precision(speed)] or rows
        best = max(alike, key=lambda row: row.rate).batch if alike else batches[0]
        for batch in [best] if speed.compile else batches:
            if not budget.allows(f"{name}, batch {batch}", COMPILING if speed.compile else EAGER):
                break
            say(f"{name}, batch {batch}")
            with timed_algorithms(CUDNN in name):
                row = row_or_reason(lambda n=name, s=speed, b=batch: measure(model, n, s, b, device, exact))  # type: ignore[misc]
            released(device)
            if row is None:
                break
            rows.append(row)
    return rows


@contextmanager
def timed_algorithms(on: bool) -> Iterator[None]:
    """A context in which cuDNN, if `on`, times its algorithms for each shape. Restores the previous setting."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def precision(speed: Speed) -> tuple[torch.dtype, bool]:
    return speed.dtype, speed.tf32


def header(model: Model, device: torch.device, checkpoint: str | None) -> str:
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    what = f"`{checkpoint}`" if checkpoint else "the architecture of `cld-cifar10`, **random weights**"
    numbers, images = sum(p.numel() for p in model.module.parameters()), model.card.images
    return (
        f"{name}, torch {torch.__version__}, {datetime.now(UTC).date()}; {what}: {numbers:,} parameters, "
        f"{model.flop / 1e9:.3g} GFLOP per evaluation, {images.channels}x{images.size}x{images.size}; NFE {model.nfe}\n"
    )


def main(words: Sequence[str] | None = None) -> None:
    chosen = arguments(words)
    device = torch.device(chosen.device)
    budget = Budget(60 * chosen.minutes, 0.0 if device.type != "cuda" else LAST)
    model = real_model(chosen.checkpoint, chosen.nfe) if chosen.checkpoint else random_model(chosen.small, chosen.nfe)
    limits = product_rates(device, 256 if chosen.small else 8192)
    loops = plain_loops(model, chosen.batches, device)
    exact, exact_pixels = exact_run(model)
    rows = all_rows(model, chosen.batches, device, exact, chosen.only or (), budget)
    reference = max((row.pixels for row in rows if row.name == "fp32"), key=len, default=None)
    best = fastest(rows, reference)
    write([header(model, device, chosen.checkpoint), *table(rows, model, reference), ""])
    write([*conclusion(best, loops), *(f"- {name} products: {rate:.3g} TFLOP/s" for name, rate in limits.items())])
    if reference is not None:
        rms, within = distance(reference, exact_pixels)
        write(
            [
                f"- fp32 against float64 on the CPU, {EXACT} images: RMS {rms:.3f} gray levels, {100 * within:.2f} % within one"
            ]
        )
    else:
        say("fp32 has no row, so no distances from fp32 are measured")
    budget.reserved = 0.0
    rest(model, best, chosen, device, budget)
    features = features_rate(device, model.card.images.size, *((2, 1) if chosen.small else (64, 10)))
    away = distance_of_states(device, model.nfe)
    write(
        [f"- Inception's features for FID (pytorch-fid's), batch {2 if chosen.small else 64}: {features:.3g} images/s"]
    )
    write([f"- final states of the bundled model in fp32: {away:.1e} from the CPU's, relative, NFE {model.nfe}", ""])
    write(goals(best, model, loops, limits, features, away))


def plain_loops(model: Model, batches: Sequence[int], device: torch.device) -> dict[str, float]:
    """Images/s of the plain network in a loop, by a name that states the precision."""
    loops = {}
    for name in ("fp32", "tf32") if device.type == "cuda" else ("fp32",):
        rate = plain(model, name == "tf32", batches, device)
        released(device)
        if rate is None:
            say(f"the plain network in a loop, {name}: not enough memory for any of the batches {list(batches)}")
        else:
            loops[f"the plain network in a loop, {name}"] = rate
    return loops


def rest(model: Model, best: Row | None, chosen: argparse.Namespace, device: torch.device, budget: Budget) -> None:
    """Measures what is not in the table: the complete tool, its reaction to a lack of memory, and its commands."""
    speed, name, batch = (SETTINGS[best.name], best.name, best.batch) if best else (Speed(), "fp32", chosen.batches[0])
    graph = Speed(BF16, cuda_graph=device.type == "cuda")
    short = max(chosen.batches[0] // 2, 2)
    with tempfile.TemporaryDirectory() as folder:
        size = (32, 3, 10) if chosen.small else (1024, 50, 300)
        commands = Commands(chosen.device, Path(folder), *size)
        for what, work in {
            "the complete tool": lambda: tool(model, speed, name, batch, 2 if chosen.small else 4, device),
            "batch size": lambda: automatic(model, device),
            "out of memory": lambda: survived(model, Speed(BF16), short, 0.6, device),
            "out of memory in a capture": lambda: survived(model, graph, short, 1.1, device),
            "two processes": commands.two_processes,
            "killed": commands.killed,
            "gddim train": commands.train,
            "gddim tune": commands.tune,
        }.items():
            write(budget.lines(what, work))
            released(device)


def write(lines: Sequence[str]) -> None:
    """Prints lines without delay, since time may run out."""
    if lines:
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
