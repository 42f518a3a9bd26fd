"""The catalogue: every checkpoint and published file, and whether it is on this machine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, FileCard
from gddim_cli.checkpoints.formats.registry import recognize
from gddim_cli.hub import store
from gddim_cli.hub.load import locate
from gddim_cli.runtime.text import printable
from gddim_cli.settings import declared

State = Literal["bundled", "downloaded", "available"]


class Entry(msgspec.Struct, frozen=True):
    """A line of the catalogue.

    Attributes:
        kind: `checkpoint`, `statistics`, `inception` or `network`.
        diffusion: the diffusion that a checkpoint is sampled in by default; empty for files.
        images: size and channels, `32x32x3`; empty for files.
        classes: number of class labels.
        parameters: number of weights; None if unknown.
        size: bytes on this machine, or approximately what it will take.
        state: whether and where it is on this machine.
        fid: the published FID.
    """

    name: str
    title: str
    kind: str
    state: State
    size: int | None
    diffusion: str = ""
    images: str = ""
    classes: int = 0
    parameters: int | None = None
    fid: float | str | None = None


def entries() -> list[Entry]:
    """All names, checkpoints first.

    Raises:
        CheckpointError, DataError: a card is wrong.
    """
    return [checkpoint(store.card_of(name)) for name in store.names()] + [
        file(store.file_card_of(name)) for name in store.file_names()
    ]


def checkpoint(card: Card) -> Entry:
    """A checkpoint's line."""
    path = store.find_weights(card.name)
    state: State = "available"
    if path is not None:
        state = "bundled" if path.parent == store.bundled_folder() else "downloaded"
    parameters = card.parameters or (numbers_in(path) if path else None)
    estimate = 4 * parameters if parameters else card.source.size if card.source else None
    return Entry(
        card.name,
        printable(card.title),
        "checkpoint",
        state,
        path.stat().st_size if path else estimate,
        diffusion=printable(card.diffusion.get("name")),
        images=f"{card.images.size}x{card.images.size}x{card.images.channels}",
        classes=card.labels,
        parameters=parameters,
        fid=card.published.get("fid"),
    )


def file(card: FileCard) -> Entry:
    """A published file's line."""
    path = store.find_file(card.name)
    state: State = "downloaded" if path else "available"
    return Entry(card.name, printable(card.title), card.kind, state, path.stat().st_size if path else card.source.size)


def numbers_in(path: Path) -> int | None:
    """The number of weights in a safetensors file, from its header alone; None if the header is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(min(length, 1 << 24)))
            return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def details(name: str) -> dict[str, Any]:
    """The whole card of a name, with its path and what was recorded when it was downloaded; or what a file or folder says.

    Raises:
        CheckpointError: there is no such name, its card is wrong, or the file is of no known format.
    """
    known_file = name in store.file_names()
    if not known_file and name not in store.names() and exists(name):
        return details_of_file(locate(name)[0])
    found = store.file_card_of(name) if known_file else store.card_of(name)
    path = store.find_file(name) if known_file else store.find_weights(name)
    record = store.read_record(name)
    here = {"path": str(path) if path else None, "seen": msgspec.to_builtins(record) if record else None}
    page = {"page": found.source.page} if found.source else {}
    return {**msgspec.to_builtins(found), **page, **here}


def details_of_file(path: Path) -> dict[str, Any]:
    """The card of a native file; of any other model file or folder its format, and the settings that it may need.

    Raises:
        CheckpointError: damaged, or of no known format.
    """
    if native.is_native(path):
        card, _ = native.read(path)
        return {**msgspec.to_builtins(card), "path": str(path)}
    spec = recognize(path)
    settings = {key: setting.help for key, setting in declared(spec.options).items()}
    return {"format": spec.name, "title": spec.title, "settings": settings, "path": str(path)}


def exists(name: str) -> bool:
    """Whether a file or folder has this path."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # no file can have this name
        return False
