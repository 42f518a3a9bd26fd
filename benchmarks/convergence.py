"""Order of convergence of gDDIM on a mixture with the exact score, as a Markdown table: docs/numerics.md.

python benchmarks/convergence.py
"""

from __future__ import annotations

from gddim_cli.checks import convergence, exact_flow, one_step_errors, slopes
from gddim_cli.diffusions import CLD, VP, Diffusion
from gddim_cli.diffusions.base import KChoice

STEPS = [80, 160, 320, 640]


def main() -> None:
    print(
        "| diffusion | K | order | error at 80, 160, 320, 640 steps | slope | what the warm-up adds at 640 | its slope |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cases: list[tuple[Diffusion, KChoice]] = [(CLD(), "R"), (CLD(), "L"), (VP(), "R")]
    for diffusion, k in cases:
        exact = exact_flow(diffusion, k)
        for order in range(4):
            errors, warm_up = convergence(exact, order, STEPS)
            row = [diffusion.name, k, order, ", ".join(f"{e:.1e}" for e in errors), f"{slopes(STEPS, errors)[-1]:.2f}"]
            row += [f"{warm_up[-1]:.1e}", f"{slopes(STEPS, warm_up)[-1]:.2f}"] if order else ["none", ""]
            print("| " + " | ".join(map(str, row)) + " |")
    print()
    for diffusion in (CLD(), VP()):
        error = max(one_step_errors(diffusion, [0.9, 0.5, 0.1, 0.01, 1e-3]))
        print(
            f"One step of order 0, K = R, from T to any t, exact score of a point, {diffusion.name}: error {error:.0e}."
        )


if __name__ == "__main__":
    main()
