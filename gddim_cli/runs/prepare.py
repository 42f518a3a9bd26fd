"""From a person's words to what is sampled: shared by every command that makes images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gddim_cli.checkpoints.card import Card
from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.registry import find_diffusion
from gddim_cli.runtime.files import sha256


def choose_diffusion(card: Card, name: str | None) -> tuple[Diffusion, SamplingConfig]:
    """The card's diffusion with the card's defaults, or another with its own.

    Raises:
        UsageError: an unknown diffusion.
    """
    own = card.make_diffusion()
    if name is None or name == own.name:
        return own, card.sampling.config(own)
    other = find_diffusion(name)
    if other == own:
        return own, card.sampling.config(own)
    # How images become uint8 is the model's matter, not the diffusion's.
    return other, dataclasses.replace(other.sampling, quantize=card.sampling.config(own).quantize)


def identity(medium: Diffusion, reference: str | None) -> dict[str, Any]:
    """What `run.json` says of the diffusion: name and parameters, and the sha256 of a Python file that defines it."""
    parameters: dict[str, Any] = dataclasses.asdict(medium) if dataclasses.is_dataclass(medium) else {}
    file = {"file_sha256": sha256(Path(reference))} if reference and reference.endswith(".py") else {}
    return {"name": medium.name, **parameters, **file}
