"""How to measure the published FID of a released model."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.evaluation.protocols import FULL, PROTOCOLS
from gddim_cli.hub.store import card_of, names
from gddim_cli.runs.record import read_run


def published_advice(folder: Path, n: int) -> str | None:
    """A note for a run of only `n` images, with the commands that measure the FID that the model's authors published.

    None if there are enough images, or if no published FID or no protocol for it is known.
    """
    name = read_run(folder).settings.checkpoint
    card = card_of(name) if name in names() else None
    if card is None or n >= FULL or not {"fid", "nfe"} <= card.published.keys():
        return None
    protocol = next((found.name for found in PROTOCOLS.values() if found.ref == card.reference), None)
    if protocol is None:
        return None
    out = f"{name}-{FULL}/"
    commands = [
        f"gddim download {name} --protocol {protocol}",
        f"gddim sample --checkpoint {name} --nfe {card.published['nfe']} --num {FULL} --format tar --out {out}",
        f"gddim fid {out} --protocol {protocol}",
    ]
    return (
        f"{n} images show that everything works, not how good {name} is. Its published FID, {card.published['fid']}, was "
        f"measured on {FULL} images; to measure it: {' && '.join(commands)}"
    )
