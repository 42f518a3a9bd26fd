"""Measures orders of convergence on a mixture with its exact score; prints the Markdown tables of docs/numerics.md.

python benchmarks/convergence.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.verification.exact import (
    ExactFlow,
    convergence,
    corrected_errors,
    exact_flow,
    example_mixture,
    one_step_errors,
    slopes,
)

CPU = torch.device("cpu")
STEPS = [80, 160, 320, 640]
CASES: list[tuple[Diffusion, KChoice]] = [(CLD(), "R"), (CLD(), "L"), (VP(), "R"), (VE(), "R"), (PSLD(), "R")]
ONE_STEP: list[tuple[str, str, int, int, dict[str, Any]]] = [
    ("Euler", "em", 1, 1, {"lambda": 0.0}),
    ("Heun", "heun", 2, 2, {}),
    ("gDDIM order 0 + corrector", "gddim", 2, 2, {"order": 0, "corrector": True}),
    ("gDDIM order 1 + corrector", "gddim", 3, 2, {"order": 1, "corrector": True}),
    ("gDDIM order 2 + corrector", "gddim", 4, 2, {"order": 2, "corrector": True}),
]


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def multistep(exact: ExactFlow) -> None:
    for order in range(4):
        errors, warm_up = convergence(exact, order, STEPS)
        added = [f"{warm_up[-1]:.1e}", f"{slopes(STEPS, warm_up)[-1]:.2f}"] if order else ["none", ""]
        measured = f"{slopes(STEPS, errors)[-1]:.2f}"
        row(exact.diffusion.name, exact.k, order, ", ".join(f"{e:.1e}" for e in errors), measured, *added)


def others(exact: ExactFlow) -> None:
    """Prints the rows of the other deterministic samplers, for N and 2 N steps. N is 1000 for Euler, else 320."""
    for label, name, order, evaluations, options in ONE_STEP:
        base = 1000 if order == 1 else 320
        counts, errors = [], []
        for steps in (base, 2 * base):
            given = {
                "sampler": name,
                "nfe": steps * evaluations,
                "t_end": exact.t_end,
                "denoise": False,
                "dtype": "float64",
            }
            made = prepare(
                SamplingRequest.of({**given, **options}), CPU, model=example_mixture(), diffusion=exact.diffusion
            )
            made.initial = exact.start.numpy()
            end = made.run(range(len(exact.start)))
            counts.append(made.sampler.steps)
            errors.append(float((end - exact.at(exact.t_end)).abs().max()))
        row(
            exact.diffusion.name,
            label,
            order,
            ", ".join(f"{e:.1e}" for e in errors),
            f"{slopes(counts, errors)[0]:.2f}",
        )


def corrected(exact: ExactFlow) -> None:
    for order in range(4):
        steps = [80, 160] if order == 3 else [160, 320]  # with more steps, rounding errors dominate
        errors = corrected_errors(exact, order, steps)
        measured = f"{slopes(steps, errors)[0]:.2f}"
        row(exact.diffusion.name, order, order + 2, ", ".join(f"{e:.1e}" for e in errors), measured)


def main() -> None:
    flows = [exact_flow(diffusion, k) for diffusion, k in CASES]
    of_r = [exact for exact in flows if exact.k == "R"]
    orders = ["error at N and 2 N steps", "measured order"]
    added = ["effect of the warm-up at 640", "its slope"]
    tables: list[tuple[list[str], list[ExactFlow], Callable[[ExactFlow], None]]] = [
        (["diffusion", "K", "order", "error at 80, 160, 320, 640 steps", "slope", *added], flows, multistep),
        (["diffusion", "sampler", "stated order", *orders], of_r, others),
        (["diffusion", "order of the predictor", "stated order", *orders], of_r, corrected),
    ]
    for heads, cases, rows in tables:
        row(*heads)
        row(*["---"] * len(heads))
        for exact in cases:
            rows(exact)
        print()
    for exact in of_r:
        error = max(one_step_errors(exact.diffusion, [0.9, 0.5, 0.1, 0.01, 1e-3]))
        print(
            f"- one step of order 0 from T to any t, exact score of a point, {exact.diffusion.name}: error {error:.0e}"
        )


if __name__ == "__main__":
    main()
