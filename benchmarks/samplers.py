"""Every sampler beside the others, as Markdown tables: docs/samplers.md.

    python benchmarks/samplers.py [--only mixture|checkpoint] [--checkpoint mnist] [--images 8] [--draws 128]

On a mixture of three Gaussians in the plane (exact score): the largest distance of deterministic samplers from the exact
solution, and the sliced Wasserstein distance of stochastic ones from draws of the mixture. On a checkpoint: the root mean
square distance, per pixel in [-1, 1], from the converged solution of the same noise.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError
from gddim_cli.hub.load import load
from gddim_cli.runs.sampler import Sampler
from gddim_cli.samplers.multistep import Draw
from gddim_cli.samplers.registry import Choices, Plan, plan
from gddim_cli.verification import TWO_PIXELS, ExactFlow, exact_flow, example_mixture, prior_states

BUDGETS = [5, 10, 20, 50, 100, 200]
DIFFUSIONS: list[Diffusion] = [CLD(), VP(), VE(), PSLD()]
DETERMINISTIC: list[tuple[str, str, dict[str, Any]]] = [
    *((f"gDDIM order {q}", "gddim", {"order": q}) for q in range(4)),
    *((f"gDDIM order {q} + corrector", "gddim", {"order": q, "corrector": True}) for q in (0, 1)),
    ("Heun", "heun", {}),
    ("RK45, tuned", "rk45", {}),
    ("Euler", "em", {"lam": 0.0}),
]
STOCHASTIC: list[tuple[str, str, dict[str, Any]]] = [
    *((f"gDDIM lambda {lam:g}", "gddim", {"lam": lam}) for lam in (0.3, 0.5, 1.0)),
    *((f"Euler-Maruyama lambda {lam:g}", "em", {"lam": lam}) for lam in (0.3, 0.5, 1.0)),
    ("SSCS", "sscs", {}),
    ("ancestral", "ancestral", {}),
]


def ready(name: str, diffusion: Diffusion, nfe: int, choices: dict[str, Any], t_end: float | None) -> Plan | None:
    """The plan without a denoising step, or None where the method does not suit or has no step."""
    defaults = dataclasses.replace(diffusion.sampling, denoise=False)
    if t_end:
        defaults = dataclasses.replace(defaults, t_end=t_end)
    try:
        return plan(name, diffusion, defaults, nfe, Choices(**choices))
    except UsageError:
        return None


def table(title: str, rows: dict[str, list[str]]) -> None:
    print(f"\n**{title}**\n")
    print("| sampler | " + " | ".join(f"NFE {nfe}" for nfe in BUDGETS) + " |")
    print("| --- " * (len(BUDGETS) + 1) + "|")
    for name, cells in rows.items():
        if any(cells):
            print(f"| {name} | " + " | ".join(cells) + " |")


def spent(cell: str, asked: int, real: int) -> str:
    return cell if real == asked else f"{cell} ({real})"


def on_the_mixture(exact: ExactFlow) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for label, name, choices in DETERMINISTIC:
        cells = []
        for nfe in BUDGETS:
            made, count = ready(name, exact.diffusion, nfe, choices, exact.t_end), 0
            if made is None:
                cells.append("")
                continue

            def eps(u: Tensor, t: float) -> Tensor:
                nonlocal count
                count += 1
                return exact.eps(u, t)

            if made.tune:
                made = made.tune(eps, exact.start)
            count = 0
            end = made.solve(eps, exact.start, no_noise, None)
            cells.append(spent(f"{float((end - exact.at(exact.t_end)).abs().max()):.1e}", nfe, count))
        rows[label] = cells
    return rows


def no_noise(_: int) -> Tensor:
    raise AssertionError("a deterministic sampler draws nothing")


def sliced_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Sliced 2-Wasserstein distance of two samples of one size, [N, d], over 64 fixed directions."""
    directions = np.random.default_rng(5).standard_normal((a.shape[1], 64))
    directions /= np.linalg.norm(directions, axis=0)
    difference = np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)
    return float(np.sqrt((difference**2).mean()))


def laws_on_the_mixture(diffusion: Diffusion, count: int = 4000) -> dict[str, list[str]]:
    mixture, rng = example_mixture(), np.random.default_rng(6)
    eps = mixture.eps(diffusion, "R")

    def truth() -> np.ndarray:
        chosen = rng.choice(3, size=count, p=mixture.weights.numpy())
        return mixture.means.flatten(1).numpy()[chosen] + mixture.std * rng.standard_normal((count, 2))

    def draws(seed: int) -> Draw:
        shape = (count, diffusion.D, *TWO_PIXELS)
        return lambda k: torch.from_numpy(np.random.default_rng([seed, k]).standard_normal(shape))

    reference = truth()
    rows = {"two draws of the mixture": [f"{sliced_distance(truth(), reference):.3f}"] * len(BUDGETS)}
    for label, name, choices in STOCHASTIC:
        cells = []
        for nfe in BUDGETS:
            made = ready(name, diffusion, nfe, choices, 1e-3)
            if made is None:
                cells.append("")
                continue
            x = made.solve(eps, prior_states(diffusion, count), draws(7), None)[:, 0].flatten(1).numpy()
            cells.append(f"{sliced_distance(x, reference):.3f}" if np.isfinite(x).all() else "not finite")
        rows[label] = cells
    return rows


def images(reference: str, diffusion: Diffusion, made: Plan, count: int, seed: int = 0) -> tuple[np.ndarray, int]:
    model = load(reference, torch.device("cpu"))
    sampler = Sampler(model, diffusion, made, "R", seed, torch.device("cpu"))
    found = sampler.image(sampler.run(range(count)))
    return found, sampler.evaluations


def on_the_checkpoint(reference: str, diffusion: Diffusion, count: int) -> dict[str, list[str]]:
    fine = ready("gddim", diffusion, 1000, {"order": 3}, None)
    assert fine is not None
    converged, _ = images(reference, diffusion, fine, count)
    rows: dict[str, list[str]] = {}
    for label, name, choices in DETERMINISTIC:
        cells = []
        for nfe in BUDGETS:
            made = ready(name, diffusion, nfe, choices, None)
            if made is None:
                cells.append("")
                continue
            found, count_made = images(reference, diffusion, made, count)
            cells.append(spent(f"{float(np.sqrt(((found - converged) ** 2).mean())):.1e}", nfe, count_made))
        rows[label] = cells
    return rows


def noise_on_the_checkpoint(reference: str, count: int) -> None:
    """NFE 50 with the denoising step: stochastic gDDIM beside Euler-Maruyama, as in the paper's Table 2."""
    cld = CLD()

    def made(name: str, nfe: int, **choices: Any) -> Plan:
        return plan(name, cld, cld.sampling, nfe, Choices(**choices))

    truth, _ = images(reference, cld, made("gddim", 200, order=3), count, seed=1)
    again, _ = images(reference, cld, made("gddim", 200, order=3), count, seed=2)
    flat = truth.reshape(count, -1)
    print(
        f"\n**Stochastic samplers on {reference}, CLD, NFE 50: distance of {count} images from {count} converged ones**\n"
    )
    print("| lambda | stochastic gDDIM | Euler-Maruyama |\n| --- | --- | --- |")
    for lam in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        cells = [f"{lam:g}"]
        for name in ("gddim", "em"):
            order = {"order": 0} if name == "gddim" and lam == 0 else {}
            found, _ = images(reference, cld, made(name, 50, lam=lam, **order), count)
            cells.append(f"{sliced_distance(found.reshape(count, -1), flat):.4f}")
        print("| " + " | ".join(cells) + " |")
    print(f"\nTwo converged sets of other noise: {sliced_distance(again.reshape(count, -1), flat):.4f}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="mnist")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--draws", type=int, default=128)
    parser.add_argument("--only", choices=("mixture", "checkpoint"))
    chosen = parser.parse_args()
    if chosen.only != "checkpoint":
        for diffusion in DIFFUSIONS:
            table(f"{diffusion.name}, mixture: largest error at t = 0.05", on_the_mixture(exact_flow(diffusion)))
        for diffusion in DIFFUSIONS:
            table(f"{diffusion.name}, mixture: sliced Wasserstein distance", laws_on_the_mixture(diffusion))
    if chosen.only != "mixture":
        for diffusion in DIFFUSIONS:
            title = (
                f"{diffusion.name}, {chosen.checkpoint}: distance from the converged solution, {chosen.images} images"
            )
            table(title, on_the_checkpoint(chosen.checkpoint, diffusion, chosen.images))
        noise_on_the_checkpoint(chosen.checkpoint, chosen.draws)


if __name__ == "__main__":
    main()
