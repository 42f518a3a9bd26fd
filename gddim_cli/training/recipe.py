"""A training recipe."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


Positive = Annotated[float, msgspec.Meta(gt=0)]


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class NoiseLevels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The law of `ln sigma` in training: normal, with a share spread evenly from `min` to `max`."""

    mean: float = -0.6
    std: Positive = 1.4
    even: Share = 0.15
    min: Positive = 0.001
    max: Positive = 260.0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a training run is. All but `steps` is fixed once it has begun; the cooldown comes before whatever they are."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[\w-]+$")]
    steps: Count
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    warmup: Count = 500
    decay_from: Count = 5000
    """From this step on the learning rate falls as 1/sqrt(step)."""
    cooldown: Count = 1000
    """Over so many last steps it falls to nothing."""
    ema: Share = 0.9995
    seed: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    flip: bool = False
    network: dict[str, Any] = {}
    sigma: NoiseLevels = NoiseLevels()
    data: dict[str, str] = {}
    """What the card will say of the data: `title`, `license`, `source`."""
