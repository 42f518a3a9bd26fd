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
        diffusion: the default diffusion for sampling a checkpoint; empty for files.
        images: the images' height, width and channels, such as `32x32x3`; empty for files.
        classes: number of class labels.
        parameters: number of weights; None if unknown.
        size: bytes on this machine, or an estimate if the file is not on this machine; None if unknown.
        state: `bundled` with the package, `downloaded` to the cache, or only `available` for download.
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
    """All lines of the catalogue, checkpoints first.

    Raises:
        CheckpointError, DataError: a card is invalid.
    """
    return [checkpoint(store.card_of(name)) for name in store.names()] + [
        file(store.file_card_of(name)) for name in store.file_names()
    ]


def checkpoint(card: Card) -> Entry:
    """The catalogue's line for a checkpoint."""
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
    """The catalogue's line for a published file."""
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
    """The card of the checkpoint or published file `name`, its path on this machine and the record of its download.

    If `name` is the path of a model file or folder, the result is that of `details_of_file`.

    Raises:
        CheckpointError: there is no such name, its card is invalid, or the file is of no known format.
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
    """The card of a native file; for another model file or folder, its format and the settings that it may need.

    Raises:
        CheckpointError: the file is damaged, or of no known format.
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
