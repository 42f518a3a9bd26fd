"""Fetches published files by name, verifies and converts them, keeps them in the cache, and removes them on request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gddim_cli.checkpoints.card import Card, FileCard, Source
from gddim_cli.checkpoints.convert import convert_release
from gddim_cli.errors import CheckpointError, DownloadError, OutputError, UsageError, nearest
from gddim_cli.hub import store
from gddim_cli.hub.fetch import OnBytes
from gddim_cli.hub.places import forget_parts, kept_path, parts_folder, place_of, places
from gddim_cli.hub.verify import check_content
from gddim_cli.runtime.files import replacing, sha256, writing
from gddim_cli.runtime.text import printable

NATIVE_SHARE = 0.26
"""The size of a converted file relative to the published training state, which has four copies of the weights."""
SLACK, SLACK_BYTES = 1.5, 64 << 20
"""A file may have up to `SLACK * size + SLACK_BYTES` bytes, where `size` is the size on its card, often an estimate."""
SPARE = 64 << 20
"""Disk space, in bytes, that must remain free after a download."""


@dataclass(frozen=True)
class Original:
    """A published file or folder on this machine.

    Attributes:
        path: where the file or folder is.
        source: the address or path that it came from, to be recorded.
        ours: whether gddim downloaded the file and may therefore remove it.
    """

    path: Path
    source: str
    ours: bool


@dataclass(frozen=True)
class Download:
    """Fetches files by name, with these options.

    Attributes:
        say: called with one line of text for each step.
        on_bytes: called with the number of bytes that have arrived and the total; see `OnBytes`.
        file: the published file, if the user already has it.
        keep: whether the published file is kept beside the converted one.
        offline: whether access to the network is forbidden.
    """

    say: Callable[[str], None]
    on_bytes: OnBytes
    file: Path | None = None
    keep: bool = False
    offline: bool = False

    def get(self, name: str) -> Path:
        """Returns the path of the checkpoint or file `name` in the cache; fetches it if it is missing or has changed.

        Raises:
            UsageError: the name is unknown, or the file ships with the package.
            DownloadError: the file cannot be fetched, or differs from the first download.
            CheckpointError: the file is not the model that its card describes.
            OutputError: the cache cannot be written, or the disk is too full.
        """
        card = card_with_source(name)
        place = place_of(card)
        with store.locked(name, self.say):
            if place.is_file() and self._sound(card, place):
                return place
            self._note_license(card)
            original = self._original(card)
            try:
                self._accept(card, original, place)
            except (DownloadError, CheckpointError):
                # This is the wrong file, so the next attempt must start afresh and not resume this download.
                if original.ours:
                    original.path.unlink(missing_ok=True)
                    forget_parts(name)
                raise
            if original.ours:
                self._put_away(card, original.path)
            else:
                forget_parts(name)  # An earlier, interrupted download may have left partial files.
        return place

    def _sound(self, card: Card | FileCard, place: Path) -> bool:
        """Whether the file in the cache is the one that was downloaded."""
        seen = store.read_record(card.name)
        expected = seen and (seen.native_sha256 or seen.sha256)
        sound = not expected or sha256(place) == expected
        state = "already downloaded" if sound else "changed since its download, fetching it again"
        self.say(f"{card.name}: {state}: {place}")
        return sound

    def _note_license(self, card: Card | FileCard) -> None:
        """Prints a note if the weights' license is non-commercial."""
        terms = card.license.get("weights", "")
        if "NC" in terms or "non-commercial" in terms:
            self.say(f"{card.name}: license {printable(terms)}: not for commercial use")

    def _original(self, card: Card | FileCard) -> Original:
        """The published file: the one given with `--from`, the one kept by `--keep`, or a download."""
        assert card.source is not None
        if self.file is not None:
            if not self.file.is_file() and not (self.file.is_dir() and card.source.hugging_face):
                raise UsageError(f"--from: {self.file} is not a file")
            return Original(self.file, str(self.file.resolve()), ours=False)
        kept = kept_path(card)
        if kept.is_file():
            return Original(kept, str(kept), ours=True)
        if self.offline:
            raise DownloadError(
                f"{card.name} is not on this machine, and --offline forbids fetching it; "
                f"--from FILE uses your own copy of the file at {card.source.page}"
            )
        return self._fetch(card, card.source)

    def _fetch(self, card: Card | FileCard, source: Source) -> Original:
        """Downloads from the first address that works."""
        part = parts_folder(card.name) / source.file
        with writing(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in part.parent.iterdir() if path.is_file())
        require_room(part, card, source.size - there)
        found = list(places(card))
        for number, (where, fetch) in enumerate(found, 1):
            self.say(f"{card.name}: fetching {source.file} from {printable(where)}")
            try:
                return Original(fetch(part, self._counted(part, card, source)), where, ours=not source.hugging_face)
            except DownloadError as error:
                if number < len(found):
                    self.say(f"{card.name}: {printable(where)}: {error}; trying the next address")
                    continue
                other = f" from {source.page}" if source.page != where else ""
                raise DownloadError(
                    f"{card.name} cannot be fetched from {printable(where)}: {error}; or download {source.file} in a "
                    f"browser{other}, and then: gddim download {card.name} --from FILE"
                ) from error
        raise DownloadError(f"{card.name}: its card names no address")

    def _counted(self, part: Path, card: Card | FileCard, source: Source) -> OnBytes:
        """The callback for arriving bytes.

        It stops the download if the disk cannot hold the file, or if the file is far larger than its card says.
        """
        limit = int(SLACK * source.size) + SLACK_BYTES
        checked: list[int] = []

        def on_bytes(have: int, total: int | None) -> None:
            if max(have, total or 0) > limit:
                forget_parts(card.name)
                raise DownloadError(
                    f"the file has more than {limit / 1e6:.0f} MB, but its card says {source.size / 1e6:.0f} MB; not kept"
                )
            if total and not checked:
                require_room(part, card, total - have)
                checked.append(total)
            self.on_bytes(have, total)

        return on_bytes

    def _accept(self, card: Card | FileCard, original: Original, place: Path) -> None:
        """Verifies the published file, converts or copies it to `place`, and records its sha256, size and source.

        Raises:
            DownloadError, CheckpointError, OutputError: as `get`.
        """
        assert card.source is not None
        path, seen = original.path, store.read_record(card.name)
        digest = store.content_digest(path)
        if card.source.sha256 and not digest.startswith(card.source.sha256):
            raise DownloadError(
                f"{path}: sha256 {digest} is not {card.source.sha256}... as in the card of {card.name}; not kept"
            )
        if seen and seen.sha256 != digest:
            raise DownloadError(
                f"{path}: sha256 {digest} is not the {seen.sha256} that {card.name} had on {seen.date}; not kept "
                f"(to trust the new one: gddim checkpoints remove {card.name} --forget)"
            )
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
        native = None
        if isinstance(card, FileCard):
            check_content(card, path)
            with replacing(place) as temporary:
                shutil.copyfile(path, temporary)
        else:
            self.say(f"{card.name}: {size / 1e6:.0f} MB, sha256 {digest[:16]}...; converting")
            convert_release(path, card, place, store.card_of)
            native = sha256(place)
        date = datetime.now(UTC).date().isoformat()
        if seen is None or seen.native_sha256 != native:
            store.write_record(card.name, store.Record(digest, size, original.source, date, native))
        self.say(f"{card.name}: {place} ({place.stat().st_size / 1e6:.0f} MB)")

    def _put_away(self, card: Card | FileCard, original: Path) -> None:
        """Removes the published file, or with `keep` moves it to `kept_path`, where the next call finds it."""
        kept = kept_path(card)
        if self.keep and isinstance(card, Card) and original != kept:
            with writing(kept):
                kept.parent.mkdir(parents=True, exist_ok=True)
                original.replace(kept)
        if not self.keep:
            kept.unlink(missing_ok=True)
        forget_parts(card.name)


def card_with_source(name: str) -> Card | FileCard:
    """The card of the checkpoint or file `name`, which can be downloaded.

    Raises:
        UsageError: the name is unknown, or names a checkpoint that ships with the package.
    """
    known = [*store.names(), *store.file_names()]
    if name not in known:
        similar = [other for other in known if name in other]
        more = f" and {len(similar) - 8} more, see gddim checkpoints" if len(similar) > 8 else ""
        some = f"names that contain it: {', '.join(similar[:8])}{more}"
        hint = some if len(name) > 3 and len(similar) > 1 else nearest(name, known)
        raise UsageError(f"'{printable(name, 60)}' is not in the catalogue; {hint}")
    card = store.file_card_of(name) if name in store.file_names() else store.card_of(name)
    if card.source is None:
        raise UsageError(f"{name} ships with gddim and needs no download")
    return card


def require_room(part: Path, card: Card | FileCard, missing: int) -> None:
    """Refuses a download if the disk cannot hold the rest of the file and its converted form.

    Raises:
        OutputError: there is too little space; the message says how much is free and how much is needed.
    """
    assert card.source is not None
    native = 0
    if isinstance(card, Card):
        native = 4 * card.parameters if card.parameters else int(NATIVE_SHARE * card.source.size)
    needed, free = max(missing, 0) + native + SPARE, shutil.disk_usage(part.parent).free
    if free < needed:
        raise OutputError(
            f"{part.parent}: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are needed; free some space, or set "
            "GDDIM_HOME to a folder on another disk"
        )


def remove(name: str, forget: bool, say: Callable[[str], None]) -> int:
    """Removes what the cache holds under a name: the converted file, the published file and partial downloads.

    Args:
        forget: whether to remove the record too, so that the next download is accepted whatever its sha256.

    Returns:
        The number of bytes freed.

    Raises:
        UsageError: the name is unknown, or the file ships with the package.
        OutputError: the files cannot be removed.
    """
    card = card_with_source(name)
    assert card.source is not None
    with store.locked(name, say), writing(store.cache_folder()):
        files = [place_of(card), kept_path(card), *parts_folder(name).glob("*")]
        files += [store.record_path(name)] if forget else []
        there = [path for path in files if path.is_file()]
        freed = sum(path.stat().st_size for path in there)
        for path in there:
            path.unlink()
        forget_parts(name)
    return freed
