"""Where published files are: the addresses that have them, and their places in the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from gddim_cli.checkpoints.card import Card, FileCard
from gddim_cli.hub import huggingface, store
from gddim_cli.hub.fetch import OnBytes, fetch_drive, fetch_url
from gddim_cli.runtime.files import writing


def places(card: Card | FileCard) -> Iterator[tuple[str, Callable[[Path, OnBytes], Path]]]:
    """The addresses of the file, in the order in which they are tried: `GDDIM_MIRROR`, then the card's."""
    source, mirror = card.source, os.environ.get("GDDIM_MIRROR")
    assert source is not None
    for url in (f"{mirror.rstrip('/')}/{name_on_mirror(card)}" if mirror else None, source.url):
        if url:
            yield url, lambda part, on_bytes, url=url: fetch_url(url, part, on_bytes)  # type: ignore[misc]
    if source.hugging_face:
        reference = f"{huggingface.SCHEME}{source.hugging_face}"
        yield source.page, lambda _part, _on_bytes: huggingface.snapshot(reference, lambda _: None)
    if source.google_drive or source.google_drive_folder:
        yield source.page, lambda part, on_bytes: fetch_drive(source, part, on_bytes)


def name_on_mirror(card: Card | FileCard) -> str:
    """The file's path on a mirror: its name, in a folder named after the card if several cards have that file name."""
    assert card.source is not None
    cards = [store.card_of(name) for name in store.names()] if isinstance(card, Card) else []
    same = [other for other in cards if other.source and other.source.file == card.source.file]
    return f"{card.name}/{card.source.file}" if len(same) > 1 else card.source.file


def place_of(card: Card | FileCard) -> Path:
    """The path of the verified file in the cache."""
    if isinstance(card, FileCard):
        return store.cache_folder() / "files" / card.source.file
    return store.cached_weights(card.name)


def kept_path(card: Card | FileCard) -> Path:
    """The path at which --keep keeps the published file."""
    assert card.source is not None
    return store.cache_folder() / "originals" / card.name / card.source.file


def parts_folder(name: str) -> Path:
    return store.cache_folder() / "partial" / name


def forget_parts(name: str) -> None:
    """Removes a partial download."""
    with writing(parts_folder(name)):
        shutil.rmtree(parts_folder(name), ignore_errors=True)
