"""gddim samples from linear diffusion models in few network evaluations (NFE), and measures FID as a function of NFE.

    import gddim_cli as gddim

    model = gddim.load_model("mnist")
    images = gddim.sample(model, nfe=20, num=64, seed=0, diffusion="cld", sampler="gddim", order=2)

The module behind a public name is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gddim_cli.api import Sampler as Sampler
    from gddim_cli.api import fid as fid
    from gddim_cli.api import load_model as load_model
    from gddim_cli.api import sample as sample
    from gddim_cli.checkpoints.formats.base import FormatSpec as FormatSpec
    from gddim_cli.diffusions.base import Diffusion as Diffusion
    from gddim_cli.diffusions.bdm import BDM as BDM
    from gddim_cli.diffusions.cld import CLD as CLD
    from gddim_cli.diffusions.psld import PSLD as PSLD
    from gddim_cli.diffusions.ve import VE as VE
    from gddim_cli.diffusions.vp import VP as VP
    from gddim_cli.diffusions.vp_cosine import VPCosine as VPCosine
    from gddim_cli.errors import GddimError as GddimError
    from gddim_cli.evaluation.metrics.base import MetricSpec as MetricSpec
    from gddim_cli.models.wrapped import Denoiser as Denoiser
    from gddim_cli.runtime.registry import register as register
    from gddim_cli.samplers.base import PreparedSampler as PreparedSampler
    from gddim_cli.samplers.base import SamplerSpec as SamplerSpec
    from gddim_cli.settings import about as about

HOMES = {
    "api": ("Sampler", "fid", "load_model", "sample"),
    "checkpoints.formats.base": ("FormatSpec",),
    "diffusions.base": ("Diffusion",),
    "diffusions.bdm": ("BDM",),
    "diffusions.cld": ("CLD",),
    "diffusions.psld": ("PSLD",),
    "diffusions.ve": ("VE",),
    "diffusions.vp": ("VP",),
    "diffusions.vp_cosine": ("VPCosine",),
    "errors": ("GddimError",),
    "evaluation.metrics.base": ("MetricSpec",),
    "models.wrapped": ("Denoiser",),
    "runtime.registry": ("register",),
    "samplers.base": ("PreparedSampler", "SamplerSpec"),
    "settings": ("about",),
}
"""The public names, by the module of `gddim_cli` that defines them."""
__all__ = ["__version__", *(name for names in HOMES.values() for name in names)]


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"gddim_cli.{home}"), name)
    raise AttributeError(f"module 'gddim_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
