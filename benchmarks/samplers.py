"""Compares the samplers with each other; prints the Markdown tables of docs/samplers.md.

    python benchmarks/samplers.py [--only mixture|checkpoint] [--checkpoint mnist] [--images 8] [--draws 128]

The first tables use the exact score of a mixture of three Gaussians in the plane. For deterministic samplers, they show
the largest distance from the exact solution. For stochastic samplers, they show the sliced Wasserstein distance from
draws of the mixture. The other tables use a checkpoint. For deterministic samplers, they show the root mean square
distance, per pixel in [-1, 1], from the converged solution of the same noise. For stochastic samplers, they show the
sliced Wasserstein distance from converged images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import UsageError
from gddim_cli.hub.load import load
from gddim_cli.models.model import Model
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.verification.exact import ExactFlow, exact_flow, example_mixture

CPU = torch.device("cpu")
BUDGETS = [5, 10, 20, 50, 100, 200]
DIFFUSIONS: list[Diffusion] = [CLD(), VP(), VE(), PSLD()]
DETERMINISTIC: list[tuple[str, str, dict[str, Any]]] = [
    *((f"gDDIM order {q}", "gddim", {"order": q}) for q in range(4)),
    *((f"gDDIM order {q} + corrector", "gddim", {"order": q, "corrector": True}) for q in (0, 1)),
    ("Heun", "heun", {}),
    ("RK45, calibrated", "rk45", {}),
    ("Euler", "em", {"lambda": 0.0}),
]
STOCHASTIC: list[tuple[str, str, dict[str, Any]]] = [
    *((f"gDDIM lambda {lam:g}", "gddim", {"lambda": lam}) for lam in (0.3, 0.5, 1.0)),
    *((f"Euler-Maruyama lambda {lam:g}", "em", {"lambda": lam}) for lam in (0.3, 0.5, 1.0)),
    ("SSCS", "sscs", {}),
    ("ancestral", "ancestral", {}),
]


def ready(
    name: str, diffusion: Diffusion, nfe: int, options: dict[str, Any], model: Model, **settings: Any
) -> PreparedRun | None:
    """The sampler prepared for the model, by default without a denoising step.

    Returns None if the sampler does not support the diffusion, or if the budget is too small for one step.
    """
    given = {"sampler": name, "nfe": nfe, "denoise": False, **options, **settings}
    try:
        return prepare(SamplingRequest.of(given), CPU, model=model, diffusion=diffusion)
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
    for label, name, options in DETERMINISTIC:
        cells = []
        for nfe in BUDGETS:
            made = ready(name, exact.diffusion, nfe, options, example_mixture(), t_end=exact.t_end, dtype="float64")
            if made is None:
                cells.append("")
                continue
            made.initial = exact.start.numpy()
            end = made.run(range(len(exact.start)))
            cells.append(spent(f"{float((end - exact.at(exact.t_end)).abs().max()):.1e}", nfe, made.evaluations))
        rows[label] = cells
    return rows


def sliced_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Sliced 2-Wasserstein distance of two samples of equal size, [N, d], over 64 fixed directions."""
    directions = np.random.default_rng(5).standard_normal((a.shape[1], 64))
    directions /= np.linalg.norm(directions, axis=0)
    difference = np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)
    return float(np.sqrt((difference**2).mean()))


def laws_on_the_mixture(diffusion: Diffusion, count: int = 4000) -> dict[str, list[str]]:
    mixture, rng = example_mixture(), np.random.default_rng(6)

    def truth() -> np.ndarray:
        chosen = rng.choice(3, size=count, p=mixture.weights.numpy())
        return mixture.means.flatten(1).numpy()[chosen] + mixture.std * rng.standard_normal((count, 2))

    reference = truth()
    rows = {"two draws of the mixture": [f"{sliced_distance(truth(), reference):.3f}"] * len(BUDGETS)}
    for label, name, options in STOCHASTIC:
        cells = []
        for nfe in BUDGETS:
            made = ready(name, diffusion, nfe, options, mixture, t_end=1e-3, dtype="float64", seed=7)
            if made is None:
                cells.append("")
                continue
            x = made.images(made.run(range(count))).reshape(count, -1)
            cells.append(f"{sliced_distance(x, reference):.3f}" if np.isfinite(x).all() else "not finite")
        rows[label] = cells
    return rows


def images(made: PreparedRun, count: int) -> tuple[np.ndarray, int]:
    """The first images, [N, C, H, W], and the number of evaluations per image."""
    return made.images(made.run(range(count))), made.evaluations


def on_the_checkpoint(model: Model, diffusion: Diffusion, count: int) -> dict[str, list[str]]:
    fine = ready("gddim", diffusion, 1000, {"order": 3}, model)
    assert fine is not None
    converged, _ = images(fine, count)
    rows: dict[str, list[str]] = {}
    for label, name, options in DETERMINISTIC:
        cells = []
        for nfe in BUDGETS:
            made = ready(name, diffusion, nfe, options, model)
            if made is None:
                cells.append("")
                continue
            found, evaluations = images(made, count)
            cells.append(spent(f"{float(np.sqrt(((found - converged) ** 2).mean())):.1e}", nfe, evaluations))
        rows[label] = cells
    return rows


def noise_on_the_checkpoint(model: Model, count: int) -> None:
    """Compares stochastic gDDIM with Euler-Maruyama at NFE 50 with the denoising step, as in the paper's Table 2."""

    def drawn(name: str, nfe: int, **settings: Any) -> np.ndarray:
        made = ready(name, CLD(), nfe, {}, model, **{"denoise": True, **settings})
        assert made is not None
        return images(made, count)[0].reshape(count, -1)

    truth, again = (drawn("gddim", 200, order=3, seed=seed) for seed in (1, 2))
    what = f"sliced Wasserstein distance between {count} images and {count} converged ones"
    print(f"\n**Stochastic samplers on {model.name}, CLD, NFE 50: {what}**\n")
    print("| lambda | stochastic gDDIM | Euler-Maruyama |\n| --- | --- | --- |")
    for lam in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        found = (drawn("gddim", 50, order=0, **{"lambda": lam}), drawn("em", 50, **{"lambda": lam}))
        print("| " + " | ".join([f"{lam:g}", *(f"{sliced_distance(x, truth):.4f}" for x in found)]) + " |")
    print(f"\nDistance between two converged sets with different noise: {sliced_distance(again, truth):.4f}.")


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
        model = load(chosen.checkpoint, CPU)
        for diffusion in DIFFUSIONS:
            title = (
                f"{diffusion.name}, {chosen.checkpoint}: distance from the converged solution, {chosen.images} images"
            )
            table(title, on_the_checkpoint(model, diffusion, chosen.images))
        noise_on_the_checkpoint(model, chosen.draws)


if __name__ == "__main__":
    main()
