"""Where published files are: the addresses they are fetched from, and their paths in the cache."""

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
    """The addresses of the card's file, each with a function that fetches the file from that address.

    `GDDIM_MIRROR` comes first, then the addresses on the card. They are tried in this order.
    """
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
    """The file's path on a mirror: `CARD/FILE` if several cards have files of this name, else `FILE`."""
    assert card.source is not None
    cards = [store.card_of(name) for name in store.names()] if isinstance(card, Card) else []
    same = [other for other in cards if other.source and other.source.file == card.source.file]
    return f"{card.name}/{card.source.file}" if len(same) > 1 else card.source.file


def place_of(card: Card | FileCard) -> Path:
    """The path in the cache for the card's file after verification (and, for a checkpoint, conversion)."""
    if isinstance(card, FileCard):
        return store.cache_folder() / "files" / card.source.file
    return store.cached_weights(card.name)


def kept_path(card: Card | FileCard) -> Path:
    """The path in the cache where `--keep` puts the published file."""
    assert card.source is not None
    return store.cache_folder() / "originals" / card.name / card.source.file


def parts_folder(name: str) -> Path:
    return store.cache_folder() / "partial" / name


def forget_parts(name: str) -> None:
    """Removes a partial download."""
    with writing(parts_folder(name)):
        shutil.rmtree(parts_folder(name), ignore_errors=True)
