"""The registry of architectures, by the names that model cards use."""

from __future__ import annotations

from gddim_cli.models.networks import dhariwal_unet, diffusers_unet, ncsnpp, openai_unet, songunet, unet
from gddim_cli.models.networks.base import NetworkSpec
from gddim_cli.runtime.registry import Registry

NETWORKS = Registry(
    "network",
    NetworkSpec,
    [unet.SPEC, ncsnpp.SPEC, songunet.SPEC, dhariwal_unet.SPEC, openai_unet.SPEC, diffusers_unet.SPEC],
)
