"""Chooses the checkpoint if the user names none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from gddim_cli.hub import store
from gddim_cli.runs.folder import RunFolder
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.record import RUN
from gddim_cli.runs.request import SamplingRequest, differences
from gddim_cli.runtime.files import writing


def choose_default(
    request: SamplingRequest, folder: RunFolder, num: int, device: torch.device, on_wait: Callable[[], object]
) -> tuple[str, str]:
    """The default checkpoint, and why it is chosen.

    The default is the released model if it has been downloaded, else the bundled checkpoint. If a command is rerun
    after the download, its folder may therefore hold a run with the bundled checkpoint. If this run lacks images, it is
    continued with the bundled checkpoint. If it is complete, its folder is renamed, and a new run begins.

    Args:
        on_wait: as in `RunFolder.locked`.

    Raises:
        DataError: the folder's run.json is damaged.
        OutputError: another run is using the folder, or the folder cannot be renamed.
    """
    name, reason = store.default_name()
    path = folder.path.resolve()
    if name == store.BUNDLED or not (path / RUN).exists() or Path.cwd().is_relative_to(path):
        return name, reason
    with folder.locked(on_wait):
        before = folder.record()
        if before is None or before.settings.checkpoint != store.BUNDLED or before.format != folder.format:
            return name, reason
        earlier = msgspec.structs.replace(request, checkpoint=store.BUNDLED)
        if differences(before.settings, prepare(earlier, device).request):
            return name, reason
        if not before.complete or num > before.num:
            return store.BUNDLED, f"the run in {folder.path} began with it and lacks images"
        aside = free_name(path.with_name(f"{path.name}-{store.BUNDLED}"))
        with writing(path):
            path.rename(aside)
            path.mkdir()
    return name, f"{reason}; the images of {store.BUNDLED} that were in {folder.path} are now in {aside}"


def free_name(path: Path) -> Path:
    """The path itself if nothing exists there, else the path with the first free number, from 2, appended."""
    candidates = [path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000))]
    return next((candidate for candidate in candidates if not candidate.exists()), path)
