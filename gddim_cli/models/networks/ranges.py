"""Types for the sizes of networks, with ranges that far exceed the sizes of published networks.

The sizes that a file gives are checked against these ranges before memory is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

Side = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Channels = Annotated[int, msgspec.Meta(ge=1, le=64)]
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Count = Annotated[int, msgspec.Meta(ge=1, le=64)]
Multiples = Annotated[Sequence[Annotated[int, msgspec.Meta(ge=1, le=32)]], msgspec.Meta(min_length=1, max_length=10)]
Sides = Annotated[Sequence[Side], msgspec.Meta(max_length=10)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Classes = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Taps = Annotated[Sequence[Annotated[int, msgspec.Meta(ge=1, le=64)]], msgspec.Meta(min_length=2, max_length=8)]
