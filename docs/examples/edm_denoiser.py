"""Declares a network in EDM's convention, for use as `--checkpoint docs/examples/edm_denoiser.py:build`.

The network is the bundled denoiser without its preconditioning, that is, `F(c_in y; ln(sigma) / 4)` as in EDM. The
declared model can be sampled through the diffusions cld, vp, vp-cosine, ve and psld.
"""

from torch import Tensor, nn

import gddim_cli as gddim


class Raw(nn.Module):
    """The raw network `F` of the bundled denoiser."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.denoiser.unet(x, c_noise)


def build() -> gddim.Denoiser:
    """The model. `gddim sample` calls this function."""
    model = gddim.load_model("mnist", device="cpu")
    network = model.network.network.module
    return gddim.Denoiser(
        Raw(network),
        model.image_shape,
        *model.sigma_range,
        name="edm-mnist",
        prediction="edm",
        sigma_data=network.sigma_data,
    )
