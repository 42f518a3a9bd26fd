"""Published files by name: fetched, verified, converted once, kept in the cache; and given back."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gddim_cli.checkpoints.card import Card, FileCard, Source
from gddim_cli.checkpoints.convert import convert_release
from gddim_cli.errors import CheckpointError, DownloadError, OutputError, UsageError, nearest
from gddim_cli.hub import store
from gddim_cli.hub.fetch import OnBytes, fetch_drive, fetch_url
from gddim_cli.runtime.files import replacing, sha256, writing

NATIVE_SHARE = 0.26  # of a training state's size: one of four copies of the weights
SPARE = 64 << 20


@dataclass(frozen=True)
class Download:
    """How names are fetched.

    Attributes:
        say: is told of what is done, a line at a time.
        on_bytes: is told of the bytes that have come.
        file: the published file, where the person has it already.
        keep: whether the published file is kept beside the converted one.
        offline: never to touch the network.
    """

    say: Callable[[str], None]
    on_bytes: OnBytes
    file: Path | None = None
    keep: bool = False
    offline: bool = False

    def get(self, name: str) -> Path:
        """The file in the cache that `name` stands for, fetched unless it is there.

        Raises:
            UsageError: no such name, or one that ships with the package.
            DownloadError: it cannot be fetched, or is not what was seen at the first download.
            CheckpointError: what came is not what its card says.
            OutputError: the cache cannot be written, or the disk is too full.
        """
        card = card_with_source(name)
        place = place_of(card)
        with store.locked(name, self.say):
            if place.is_file() and self._sound(card, place):
                return place
            original, source = self._original(card)
            try:
                self._accept(card, original, source, place)
            except (DownloadError, CheckpointError):
                # It is not the file: nothing of it must be taken for a part of the next attempt.
                if original != self.file:
                    original.unlink(missing_ok=True)
                    forget_parts(name)
                raise
            if original == self.file:
                forget_parts(name)  # of a download that was cut before
            else:
                self._put_away(card, original)
        return place

    def _sound(self, card: Card | FileCard, place: Path) -> bool:
        """Whether the file that is there is the one that was downloaded."""
        seen = store.read_record(card.name)
        expected = seen and (seen.native_sha256 or seen.sha256)
        sound = not expected or sha256(place) == expected
        self.say(f"{card.name}: {'already there' if sound else 'changed since its download, fetching anew'}: {place}")
        return sound

    def _original(self, card: Card | FileCard) -> tuple[Path, str]:
        """The published file, and where it is from."""
        if self.file is not None:
            if not self.file.is_file():
                raise UsageError(f"--from: {self.file} is not a file")
            return self.file, str(self.file.resolve())
        assert card.source is not None
        kept = kept_path(card.source)
        if kept.is_file():
            return kept, str(kept)
        if self.offline:
            raise DownloadError(
                f"{card.name} is not on this machine, and --offline forbids to fetch it; "
                f"--from FILE takes a file of {card.source.page}"
            )
        return self._fetch(card.name, card.source)

    def _fetch(self, name: str, source: Source) -> tuple[Path, str]:
        """Downloads from the first place that has the file."""
        part = parts_folder(name) / source.file
        with writing(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in part.parent.iterdir() if path.is_file())
        require_room(part, source, source.size - there)
        problems = []
        for where, fetch in places(source):
            known = [False]

            def on_bytes(have: int, total: int | None, known: list[bool] = known) -> None:
                if total and not known[0]:
                    require_room(part, source, total - have)
                    known[0] = True
                self.on_bytes(have, total)

            self.say(f"{name}: fetching {source.file} from {where}")
            try:
                return fetch(part, on_bytes), where
            except DownloadError as error:
                problems.append(str(error))
                self.say(f"{name}: {error}")
        raise DownloadError(
            f"{name} could not be fetched: {problems[-1] if problems else 'its card names no source'}; if a browser gets "
            f"it from {source.page}: gddim download {name} --from FILE"
        )

    def _accept(self, card: Card | FileCard, original: Path, source: str, place: Path) -> None:
        """Verifies the published file, converts or copies it to `place`, and records what it was.

        Raises:
            DownloadError, CheckpointError, OutputError: as `get`.
        """
        assert card.source is not None
        digest, seen = sha256(original), store.read_record(card.name)
        if card.source.sha256 and not digest.startswith(card.source.sha256):
            raise DownloadError(
                f"{original}: sha256 {digest} is not the one of {card.name}'s card, {card.source.sha256}...; not kept"
            )
        if seen and seen.sha256 != digest:
            raise DownloadError(
                f"{original}: sha256 {digest} is not the {seen.sha256} that {card.name} had on {seen.date}; not kept "
                f"(to trust the new one: gddim checkpoints remove {card.name} --forget)"
            )
        size = original.stat().st_size
        if isinstance(card, FileCard):
            check_content(card, original)
            with replacing(place) as temporary:
                shutil.copyfile(original, temporary)
            native = None
        else:
            self.say(f"{card.name}: {size / 1e6:.0f} MB, sha256 {digest[:16]}...; converting")
            convert_release(original, card, place, store.card_of)
            native = sha256(place)
        date = datetime.now(UTC).date().isoformat()
        if seen is None or seen.native_sha256 != native:
            store.write_record(card.name, store.Record(digest, size, source, date, native))
        self.say(f"{card.name}: {place} ({place.stat().st_size / 1e6:.0f} MB)")

    def _put_away(self, card: Card | FileCard, original: Path) -> None:
        """Removes the published file, or keeps it where the next download finds it."""
        assert card.source is not None
        kept = kept_path(card.source)
        if self.keep and isinstance(card, Card) and original != kept:
            with writing(kept):
                kept.parent.mkdir(parents=True, exist_ok=True)
                original.replace(kept)
        if not self.keep:
            kept.unlink(missing_ok=True)
        forget_parts(card.name)


def card_with_source(name: str) -> Card | FileCard:
    """The card of something that can be downloaded.

    Raises:
        UsageError: no such name, or a checkpoint that ships with the package.
    """
    known = [*store.names(), *store.file_names()]
    if name not in known:
        raise UsageError(f"there is nothing called '{name}' to download; {nearest(name, known)}")
    card = store.file_card_of(name) if name in store.file_names() else store.card_of(name)
    if card.source is None:
        raise UsageError(f"{name} ships with gddim: there is nothing to download")
    return card


def places(source: Source) -> Iterator[tuple[str, Callable[[Path, OnBytes], Path]]]:
    """Where the file may be had, the best first: `GDDIM_MIRROR`, then what its card says."""
    mirror = os.environ.get("GDDIM_MIRROR")
    for url in (f"{mirror.rstrip('/')}/{source.file}" if mirror else None, source.url):
        if url:
            yield url, lambda part, on_bytes, url=url: fetch_url(url, part, on_bytes)  # type: ignore[misc]
    if source.google_drive or source.google_drive_folder:
        yield source.page, lambda part, on_bytes: fetch_drive(source, part, on_bytes)


def place_of(card: Card | FileCard) -> Path:
    """Where in the cache the verified file lies."""
    if isinstance(card, FileCard):
        return store.cache_folder() / "files" / card.source.file
    return store.cached_weights(card.name)


def kept_path(source: Source) -> Path:
    return store.cache_folder() / "originals" / source.file


def parts_folder(name: str) -> Path:
    return store.cache_folder() / "partial" / name


def forget_parts(name: str) -> None:
    """Removes what came of a file."""
    with writing(parts_folder(name)):
        shutil.rmtree(parts_folder(name), ignore_errors=True)


def require_room(part: Path, source: Source, missing: int) -> None:
    """Refuses to begin what the disk cannot hold: the rest of the file and what it is converted to.

    Raises:
        OutputError: naming how much is free and how much is needed.
    """
    native = 0 if source.format == "verbatim" else int(NATIVE_SHARE * source.size)
    needed, free = max(missing, 0) + native + SPARE, shutil.disk_usage(part.parent).free
    if free < needed:
        raise OutputError(
            f"{part.parent}: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are needed; free some space, or set "
            "GDDIM_HOME to a folder on another disk"
        )


def check_content(card: FileCard, path: Path) -> None:
    """Refuses a file that has not the arrays that its card says.

    Raises:
        DownloadError: naming what is missing.
    """
    if not card.arrays:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names, broken = set(archive.namelist()), archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DownloadError(f"{path}: not a whole .npz file ({error}); not kept") from error
    missing = [array for array in card.arrays if f"{array}.npy" not in names]
    if broken or missing:
        what = f"{broken} in it is damaged" if broken else f"it has no array {missing[0]}"
        raise DownloadError(f"{path}: not the statistics of {card.name}: {what}; not kept")


def remove(name: str, forget: bool, say: Callable[[str], None]) -> int:
    """Gives back the space of a name: converted, kept and partial files. The record of its sha256 stays.

    Args:
        forget: whether the record goes too, so that the next download is trusted whatever it is.

    Returns:
        Bytes that are free again.

    Raises:
        UsageError: no such name, or one that ships with the package.
        OutputError: the files cannot be removed.
    """
    card = card_with_source(name)
    assert card.source is not None
    with store.locked(name, say), writing(store.cache_folder()):
        files = [place_of(card), kept_path(card.source), *parts_folder(name).glob("*")]
        files += [store.record_path(name)] if forget else []
        there = [path for path in files if path.is_file()]
        freed = sum(path.stat().st_size for path in there)
        for path in there:
            path.unlink()
        forget_parts(name)
    return freed
