"""Plots eps along one solution for K = R and for K = L, as in Figure 1 of gDDIM: docs/eps_trajectories.png.

    python benchmarks/eps_trajectories.py [--checkpoint mnist]

One image is sampled through CLD with 1000 steps of gDDIM of order 3. At the states of this solution, eps is computed
for both choices of K and plotted against t for a few pixels. gDDIM extrapolates eps, which is nearly constant for K = R
and rotates for K = L.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.cld import CLD
from gddim_cli.hub.load import load
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.files import replacing

mpl.use("Agg")
from matplotlib import pyplot as plt

STEPS = 1000
PIXELS = [(6, 14), (10, 10), (14, 14), (14, 18), (20, 13)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="mnist")
    parser.add_argument("--out", type=Path, default=Path("docs/eps_trajectories.png"))
    chosen = parser.parse_args()
    cld = CLD()
    model = load(chosen.checkpoint, torch.device("cpu"))
    request = SamplingRequest.of({"nfe": STEPS, "order": 3, "denoise": False})
    fine = prepare(request, torch.device("cpu"), model=model, diffusion=cld)
    assert fine.sampler.coefficients is not None
    times = fine.sampler.coefficients.t
    states: list[Tensor] = [fine.start([0])]
    fine.run([0], lambda _, u: states.append(u))
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.5), sharex=True)
    for column, k in enumerate(("R", "L")):
        eps = model.eps(cld, k)  # type: ignore[arg-type]
        with torch.inference_mode():
            found = np.stack([eps(u, t)[0, :, 0].numpy() for u, t in zip(states, times.tolist(), strict=True)])
        for row, part in enumerate("xv"):
            for i, j in PIXELS:
                axes[row, column].plot(times, found[:, row, i, j], linewidth=1)
            axes[row, column].set_title(f"eps, {part} part, K = {k}", fontsize=10)
            moved = np.abs(np.diff(found[:, row], axis=0)).sum(axis=0).mean()
            print(f"K = {k}, {part} part: the total variation of a pixel's eps is {moved:.2f} on average")
    for axis in axes[1]:
        axis.set_xlabel("t")
    figure.tight_layout()
    with replacing(chosen.out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    main()
