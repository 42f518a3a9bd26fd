"""Makes the table of conventions in docs/checkpoints.md and the picture docs/edm-mnist.png.

python benchmarks/denoisers.py [OUT.png]

For the table, an exact denoiser D is computed in float64, from a SongUNet with random weights in the place of EDM's F.
For each convention, `gddim.Denoiser` is given a network that predicts this D, with outputs rounded to float32. The
table has the relative difference between the resulting D and the exact D.

The picture has digits of the bundled model, sampled through cld, vp, ve and psld. docs/examples/edm_denoiser.py
declares the model in EDM's convention.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import gddim_cli as gddim
from gddim_cli.images.render import grid
from gddim_cli.models.isotropic import IsotropicDenoiser, from_prediction
from gddim_cli.models.networks.songunet import SongUNet

DOCS = Path(__file__).parent.parent / "docs"
DISCRETE = {"kind": "discrete", "betas": "linear", "steps": 1000}
PREDICTIONS: dict[str, dict[str, Any]] = {
    "`edm`": {"prediction": "edm"},
    "`vp_eps`, continuous": {"prediction": "vp_eps"},
    "`vp_eps`, 1000 steps": {"prediction": "vp_eps", "schedule": DISCRETE},
    "`v`": {"prediction": "v"},
    "`x0`": {"prediction": "x0"},
    "`subvp_eps`": {"prediction": "subvp_eps"},
    "`ve_score`": {"prediction": "ve_score"},
    "`ve_residual`": {"prediction": "ve_residual"},
    "`flow`": {"prediction": "flow"},
}
SIGMAS = (0.05, 0.5, 5.0, 50.0)
SHAPE, COUNT = (3, 16, 16), 8
DIFFUSIONS, NFE, DIGITS = ("cld", "vp", "ve", "psld"), 20, 12


def random_denoiser() -> IsotropicDenoiser:
    """The exact denoiser: a SongUNet with random weights in the place of EDM's F, in float64."""
    torch.manual_seed(0)
    module = SongUNet(
        img_resolution=SHAPE[1],
        in_channels=SHAPE[0],
        out_channels=SHAPE[0],
        model_channels=16,
        channel_mult=[1, 2],
        num_blocks=1,
        attn_resolutions=[8],
    ).double()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return from_prediction(module.eval().requires_grad_(False), "edm")


def native(exact: IsotropicDenoiser, convention: Any, sigma: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that follows a convention and, at one noise level, predicts the exact D, rounded to float32."""
    levels = torch.full((COUNT,), sigma, dtype=torch.float64)

    def network(x: Tensor, level: Tensor) -> Tensor:
        skip, out, inside, expected = (part.view(-1, 1, 1, 1) for part in convention.scaling(levels))
        torch.testing.assert_close(level, expected.flatten().float())
        y = x.double() / inside
        return ((exact(y, levels) - skip * y) / out).float()

    return network


def difference(exact: IsotropicDenoiser, arguments: dict[str, Any], sigma: float) -> float:
    """The largest relative difference, over the images, between D in this convention and the exact D."""
    convention = gddim.Denoiser(lambda x, _: x, SHAPE, **arguments).denoiser.convention
    model = gddim.Denoiser(native(exact, convention, sigma), SHAPE, **arguments)
    noise = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(1))
    y = 0.5 * torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(2)) + sigma * noise
    right = exact(y.double(), torch.full((COUNT,), sigma, dtype=torch.float64))
    return float(((model(y, sigma) - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)).max())


def table() -> list[str]:
    """The lines of the table, in Markdown."""
    exact = random_denoiser()
    lines = ["| parameterization | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |"]
    lines.append("| --- " * (1 + len(SIGMAS)) + "|")
    for name, arguments in PREDICTIONS.items():
        found = [f"{difference(exact, arguments, sigma):.1e}".replace("e-0", "e-") for sigma in SIGMAS]
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    return lines


def picture(path: Path) -> None:
    """Writes digits of the bundled network in EDM's convention, one row per diffusion, all rows with the same seeds."""
    model = gddim.load_model(f"{DOCS / 'examples' / 'edm_denoiser.py'}:build", device="cpu")
    rows = [gddim.sample(model, nfe=NFE, num=DIGITS, diffusion=name) for name in DIFFUSIONS]
    Image.fromarray(grid(np.concatenate(rows), columns=DIGITS)[..., 0]).save(path)


if __name__ == "__main__":
    print("\n".join(table()))
    picture(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "edm-mnist.png")
