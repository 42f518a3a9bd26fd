"""The table of benchmarks/gpu.py, and the conclusions from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gpu_models import Model

from gddim_cli.cli.progress import duration
from gddim_cli.images.quantize import Pixels

CUDNN = "cudnn benchmark"
"""Part of the name of a setting in which cuDNN times its algorithms. gddim itself never lets cuDNN do this, because the
algorithm that cuDNN picks may differ from run to run."""
CLOSE = 0.99
"""A setting counts as equal to float32 if at least this share of its pixels is within one gray level of float32's."""


@dataclass(frozen=True)
class Row:
    """One setting at one batch size.

    Attributes:
        first: seconds of the first evaluation, including compilation and capture.
        rate: images/s of the whole sampler, until the images are on the CPU.
        alone: images/s if only the network is evaluated, equally often.
        memory: peak memory in bytes; 0 on the CPU.
        error: relative error of one evaluation in the 2-norm, against float64 on the CPU.
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


def distance(pixels: Pixels, reference: Pixels) -> tuple[float, float]:
    """Root mean square difference in gray levels, and the share of pixels that differ by one gray level at most.

    If one set has more images than the other, only the first images are compared.
    """
    count = min(len(pixels), len(reference))
    off = pixels[:count].astype(np.float64) - reference[:count]
    return float(np.sqrt((off**2).mean())), float((np.abs(off) <= 1).mean())


def table(rows: Sequence[Row], model: Model, reference: Pixels | None) -> list[str]:
    lines = [
        "| setting | batch | images/s | TFLOP/s | 50 000 images | sampler's own | first evaluation | peak memory "
        "| error of an evaluation | RMS from fp32 | within one gray level |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        off = "- | -"
        if reference is not None:
            rms, within = distance(row.pixels, reference)
            off = f"{rms:.3f} | {100 * within:.2f} %"
        flop = row.alone * model.nfe * model.flop / 1e12
        memory = f"{row.memory / 2**30:.2f} GiB" if row.memory else "-"
        lines.append(
            f"| {row.name} | {row.batch} | {row.rate:.3g} | {flop:.3g} | {duration(50_000 / row.rate)} "
            f"| {100 * (1 - row.rate / row.alone):.1f} % | {row.first:.1f} s | {memory} | {row.error:.1e} "
            f"| {off} |"
        )
    return lines


def fastest(rows: Sequence[Row], reference: Pixels | None) -> Row | None:
    """The fastest of gddim's settings that counts as equal to float32; None if there is none, or no reference."""
    if reference is None:
        return None
    equal = [row for row in rows if CUDNN not in row.name and distance(row.pixels, reference)[1] >= CLOSE]
    return max(equal, key=lambda row: row.rate, default=None)


def conclusion(best: Row | None, loops: dict[str, float]) -> list[str]:
    """Lines that compare the fastest setting with the plain loops."""
    lines = [f"- {name}: {rate:.3g} images/s" for name, rate in loops.items()]
    if best is None:
        return [*lines, f"- no setting has {CLOSE:.0%} of its pixels within one gray level of fp32, or fp32 has no row"]
    beside = ", ".join(f"{best.rate / rate:.2f} times {name}" for name, rate in loops.items())
    return [
        *lines,
        f"- fastest with {CLOSE:.0%} of pixels within one gray level of fp32: **{best.name}**, batch {best.batch}, "
        f"{best.rate:.3g} images/s: {beside or 'no loop to compare with'}",
    ]


def goals(
    best: Row | None, model: Model, loops: dict[str, float], limits: dict[str, float], features: float, away: float
) -> list[str]:
    """Lines that state each goal and whether it is met."""
    loop = next((rate for name, rate in loops.items() if name.endswith("tf32")), None)
    product = limits.get("bf16")
    found: list[tuple[str, float | None, bool]] = [
        ("final states in fp32 within 1e-4 of the CPU's", away, away <= 1e-4)
    ]
    if best is not None:
        flop = best.alone * model.nfe * model.flop / 1e12
        times, share = (best.rate / loop if loop else None), (flop / product if product else None)
        minutes, own = (50_000 / best.rate + 50_000 / features) / 60, 1 - best.rate / best.alone
        found += [
            ("at least 4 times the plain TF32 loop", times, bool(times and times >= 4)),
            ("at least half of the card's rate of bf16 products", share, bool(share and share >= 0.5)),
            ("50 000 images and their features in less than 10 minutes", minutes, minutes < 10),
            ("the sampler's own share under 0.02", own, own < 0.02),
        ]
    return [
        f"- goal: {what}: {'not measured' if value is None else f'{value:.3g}, ' + ('met' if met else 'NOT MET')}"
        for what, value, met in found
    ]
