"""A training run's folder. The run replaces only files that it wrote itself and leaves all others alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gddim_cli import __version__
from gddim_cli.errors import DataError, OutputError, UsageError
from gddim_cli.runs.folder import TEMPORARY
from gddim_cli.runtime.files import LOCK, read_plain, replacing, sha256, writing
from gddim_cli.runtime.json_files import sealed
from gddim_cli.runtime.text import printable
from gddim_cli.training.state import RunSettings

RECORD = "train.json"
STATE = "state.pt"
LOG = "log.csv"
GRID = re.compile(r"grid-\d{6,}\.png")
LARGEST_RECORD = 1 << 26


class Record(msgspec.Struct):
    """The content of `train.json`.

    Attributes:
        settings: the settings of the run.
        files: every file that the run wrote, with its sha256; while a file is being replaced, also the sha256 of its next
            version.
        checksum: SHA-256, hexadecimal, of the record as compact JSON with an empty checksum. A wrong checksum means
            that the record itself is damaged, not that other files have changed.
    """

    gddim: str
    settings: RunSettings
    files: dict[str, list[str]]
    checksum: str


class TrainingFolder:
    """The files of one training run.

    `train.json` lists each file with its sha256, which is added before the file is renamed into place. The run can
    therefore tell whether a file is its own and unchanged, no matter when the run was interrupted.
    """

    def __init__(self, path: Path, settings: RunSettings, force: bool = False) -> None:
        """Removes temporary files from the folder, which the caller must have locked, and reads `train.json`.

        Args:
            force: also replace files that this run did not write.

        Raises:
            UsageError: the folder holds a run of other settings, and `force` is false.
            OutputError: `train.json` is not a record, and `force` is false; or the folder cannot be read.
        """
        self.path, self.settings, self.force = path, settings, force
        self._files: dict[str, list[str]] = {}
        self._written: bytes | None = None
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._sweep()
        record = self._read_record()
        if record is not None and self.is_this_run(record.settings, RECORD):
            self._files = record.files

    def is_this_run(self, found: RunSettings, name: str) -> bool:
        """Whether the file `name`, whose settings are `found`, belongs to this run.

        Raises:
            UsageError: the file belongs to another run, and `force` is false.
        """
        changed = found.changes(self.settings)
        if changed and not self.force:
            raise UsageError(
                f"{self.path / name}: belongs to a run with other settings: {'; '.join(changed)}; choose another --out, use "
                "that run's recipe and images (only steps, license and the section data of the recipe may change), or "
                "replace the run with --force"
            )
        return not changed

    def own_state(self) -> None:
        """Allows `state.pt` to be replaced even if `train.json` does not list it, because `state.pt` itself names its run.

        Raises:
            DataError: the file has changed since this run wrote it and may be damaged, and `force` is false.
        """
        path, known = self.path / STATE, self._files.get(STATE)
        if known and not self.force and path.is_file():
            with writing(path):
                changed = sha256(path) not in known
            if changed:
                raise DataError(
                    f"{path}: has changed since this run wrote it, and may be damaged; restore it, move it away to start "
                    "again, or give --force to resume from it unchanged"
                )
        self._seen[STATE] = signature(path)

    def refuse_foreign(self, names: Iterable[str]) -> None:
        """Refuses to replace files that this run did not write; with `force`, they count as the run's own from then on.

        Raises:
            OutputError: a file exists that this run did not write, or that has changed since this run wrote it.
        """
        for name in names:
            path = self.path / name
            if not path.is_symlink() and not path.exists():
                continue
            with writing(path):
                found = signature(path)
                if self._seen.get(name) == found:
                    continue
                ours = self._files.get(name, [])
                digest = sha256(path) if path.is_file() else None
                if digest not in ours:
                    if not self.force:
                        what = "has changed since this run wrote it" if ours else "was not written by this run"
                        raise OutputError(
                            f"{path}: {what}; move it away, choose another --out, or replace it with --force"
                        )
                    self._files[name] = [digest] if digest else []
                self._seen[name] = found

    def grids(self) -> list[str]:
        """The names of the grids in the folder."""
        return sorted(path.name for path in self.path.iterdir() if GRID.fullmatch(path.name))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A context with a temporary path, which is renamed to `name` when the block succeeds.

        Raises:
            OutputError: the existing file is not this run's; another process has written to the run; or the folder
                cannot be written.
        """
        with replacing(self.path / name, make_folder=False) as temporary:
            yield temporary
            self._refuse_other_process()
            self.refuse_foreign([name])
            digest = sha256(temporary)
            self._files[name] = [*self._files.get(name, []), digest]
            self._write_record()
        self._files[name] = [digest]
        self._seen[name] = signature(self.path / name)

    def _refuse_other_process(self) -> None:
        """Raises OutputError if the record has changed since this process wrote it: another process may be training here."""
        if self._record_content() != self._written:
            raise OutputError(
                f"{self.path / RECORD}: another process has written to this run in the meantime; run the same command "
                "again to resume from what it wrote"
            )

    def _write_record(self) -> None:
        path = self.path / RECORD
        record = sealed(Record(__version__, self.settings, self._files, ""))
        content = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        with replacing(path, make_folder=False) as temporary:
            temporary.write_bytes(content)
        self._written = content

    def _read_record(self) -> Record | None:
        """The record in the folder; None if there is none, or if `force` allows it to be replaced."""
        self._written = self._record_content()
        if self._written is None:
            return None
        path = self.path / RECORD
        try:
            record = msgspec.json.decode(self._written, type=Record)
            reason = "" if record == sealed(record) else "its checksum is wrong: it is damaged"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = printable(error)
        if not reason:
            return record
        if self.force:
            return None
        raise OutputError(
            f"{path}: not the record of a training run ({reason}); move it away, choose another --out, or replace it with --force"
        )

    def _record_content(self) -> bytes | None:
        """The bytes of `train.json`; None if it is missing, empty if it cannot be a record."""
        path = self.path / RECORD
        if not path.is_symlink() and not path.exists():
            return None
        with writing(path):
            possible = path.is_file() and path.stat().st_size <= LARGEST_RECORD
            return read_plain(path, LARGEST_RECORD) if possible else b""

    def _sweep(self) -> None:
        """Removes half-written temporary files that a killed process left behind."""
        own = output_files(self.settings.recipe.name)
        with writing(self.path):
            names = [file.name for file in self.path.iterdir() if file.name != LOCK]
            if RECORD not in names and not all(map(TEMPORARY.fullmatch, names)):
                return  # The folder may be someone else's, and so may its temporary files.
            for file in list(self.path.iterdir()):
                found = TEMPORARY.fullmatch(file.name)
                if found and (found[1] in own or GRID.fullmatch(found[1])):
                    file.unlink(missing_ok=True)


def output_files(name: str) -> set[str]:
    """The files of a run whose model has this name, besides its grids."""
    return {RECORD, STATE, LOG, *model_files(name)}


def model_files(name: str) -> tuple[str, str]:
    """The names of a model's weights file and card file."""
    return f"{name}.safetensors", f"{name}.yaml"


def signature(path: Path) -> tuple[int, int, int]:
    """Properties of a file that change when it is replaced or written to."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns
