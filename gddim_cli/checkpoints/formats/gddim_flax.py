"""The gDDIM authors' training states of CLD and BDM networks. Each file is one Flax msgpack map."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.checkpoints.formats import ncsnpp
from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native

KEYS = ("step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng")
"""The keys of the map, in any order."""


def detect(path: Path) -> bool:
    """Whether the file begins with a msgpack map whose first key is one of `KEYS`."""
    import msgpack

    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(64)
    try:
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
        unpacker.feed(start)
        return unpacker.read_map_header() > 0 and unpacker.unpack() in KEYS
    except (ValueError, msgpack.UnpackException, TypeError):
        return False


def read(path: Path) -> Contents:
    """The averaged weights by name (`Conv_0/kernel` and so on)."""
    from gddim_cli.checkpoints.formats import flax_msgpack

    return Contents(flax_msgpack.read(path))


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card and tensors of the released model or of a variant of it. See `ncsnpp.convert`.

    Without `conversion.like`, the model is CLD if the network takes two images (position and velocity), else BDM.
    """
    first = contents.tensors.get("Conv_0/kernel")
    velocity = first is not None and first.dim() == 4 and first.shape[2] % 2 == 0
    like = conversion.like or conversion.find_card("cld-cifar10" if velocity else "bdm-cifar10")
    return ncsnpp.convert(contents, conversion, "flax", like)


SPEC = FormatSpec(
    "gddim-flax", "training state of gDDIM's program (Flax msgpack)", detect, read, convert, options=ncsnpp.Options
)
