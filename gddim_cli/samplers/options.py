"""Options that several samplers share."""

from __future__ import annotations

from typing import Annotated

from gddim_cli.settings import about

Order = Annotated[
    int,
    about(
        "Number of past evaluations that each step of gddim uses besides the current one. Default: 2; 0 if --lambda is above 0.",
        label="order {}",
        ge=0,
        le=3,
    ),
]
Lambda = Annotated[
    float,
    about(
        "Amount of noise in the reverse process: 0 is deterministic, 1 is the reverse-time SDE. Default: 0 for gddim, 1 for em.",
        label="λ = {}",
        ge=0,
        le=10,
    ),
]
