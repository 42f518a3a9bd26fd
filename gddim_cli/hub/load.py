"""Loads a checkpoint by name or path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card
from gddim_cli.checkpoints.convert import check_identity, convert_file
from gddim_cli.checkpoints.formats.base import build_options, given_values, parse_settings
from gddim_cli.checkpoints.formats.registry import FORMATS, recognize
from gddim_cli.checkpoints.load import Checkpoint, build
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.hub import huggingface, store
from gddim_cli.hub.user_model import load_user_model
from gddim_cli.models.acceleration import Accelerated, Speed
from gddim_cli.models.network import Counted
from gddim_cli.models.wrapped import Denoiser
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.user_file import is_function

VERSION = 1
"""The version of the conversion; files converted by another version are converted again."""


def load(
    reference: str,
    device: torch.device,
    speed: Speed | None = None,
    *,
    say: Callable[[str], object] = lambda _: None,
    **settings: Any,
) -> Checkpoint | Denoiser:
    """Loads the checkpoint that `--checkpoint reference` names.

    Args:
        reference: a name in the catalogue; the path of a native file; the path of another program's file or folder; the
            path of a folder that holds one of these; `hf://org/name[@revision]`; or `FILE.py:FUNCTION`. A file of
            another program is converted once, into the cache. The function returns a `gddim.Denoiser`,
            or a module and a dict of the Denoiser's other arguments.
        speed: precision, layout and compilation of the network. Default: uncompiled, in float32.
        say: called with notes: what a conversion assumes, or that a CUDA graph does not fit in memory.
        settings: for another program's file, the options of its format; for `FILE.py:FUNCTION`, the arguments of the
            function.

    Raises:
        UsageError: the device does not support `speed`; or a setting is unknown, contradicts the file, or is required
            but missing.
        CheckpointError: the checkpoint is unknown, not on this machine, or damaged, or its card contradicts its weights.
    """
    if is_function(reference):
        return load_user_model(reference, device, settings, speed or Speed())
    if reference.endswith(".py"):
        raise UsageError(f"{reference}: name the function that returns the model: {reference}:FUNCTION")
    path, pinned = locate(reference, say)
    if pinned is None and not native.is_native(path):
        path = convert_into_cache(path, settings, say)
    elif settings:
        raise UsageError(f"{', '.join(settings)}: {reference} is described by its own card and takes no settings")
    card, tensors = native.read(path)
    digest = sha256(path)
    if pinned is not None:
        check_pinned(pinned, card, digest, path)
        card = msgspec.structs.replace(pinned, network=card.network)
    module = build(card, tensors, path)
    run = Accelerated(module, device, speed or Speed(), store.cache_folder() / "compiled", say)
    return Checkpoint(card, Counted(run), path, digest)


def convert_into_cache(path: Path, settings: Mapping[str, Any], say: Callable[[str], object]) -> Path:
    """Converts another program's checkpoint to a native file in the cache, once, and returns the path of that file.

    The name of the native file is a hash of the checkpoint's content, the settings and the format.

    Raises:
        CheckpointError: the file has no known format, is damaged, or does not hold a model of its format.
        UsageError: a setting is unknown, contradicts the file, or is required but missing.
        OutputError: the cache cannot be written.
    """
    spec = recognize(path)
    texts = [f"{name}={value}" for name, value in settings.items() if isinstance(value, str)]
    settings = {**settings, **parse_settings(spec, texts)}
    given = given_values(build_options(spec, settings, "{}"))
    identity = [spec.name, store.content_digest(path), VERSION, given]
    key = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()
    native_path = store.cache_folder() / "converted" / f"{key}{store.WEIGHTS}"
    with store.locked(f"converted-{key[:16]}", say):
        if not native_path.is_file():
            say(f"{path}: {spec.title}; converting into the cache")
            convert_file(path, native_path, spec, settings, store.card_of, say, name=path.stem)
    return native_path


def locate(reference: str, say: Callable[[str], object] = lambda _: None) -> tuple[Path, Card | None]:
    """The file or folder that `reference` names, and its card if `reference` is a name in the catalogue.

    Args:
        say: called with the size of a download before it starts.

    Raises:
        CheckpointError: the reference is neither a file nor a known name, or its weights are not on this machine.
        DownloadError: an `hf://` reference cannot be fetched.
    """
    if not reference:
        raise CheckpointError("the checkpoint's name is empty")
    if reference.startswith(huggingface.SCHEME):
        return model_in(huggingface.snapshot(reference, say), reference), None
    path, known = Path(reference), reference in store.names()  # A name takes precedence; ./NAME means the file.
    try:
        is_file, is_folder, exists = path.is_file(), path.is_dir(), path.exists()
    except (OSError, ValueError):  # no file can have this name
        is_file = is_folder = exists = False
    if path.suffix in (".yaml", ".yml") and path.with_suffix(store.WEIGHTS).is_file():
        raise CheckpointError(f"{reference} is a card; give the weights, {path.with_suffix(store.WEIGHTS)}")
    if not known and (is_file or is_folder):
        return (path if is_file else model_in(path, reference)), None
    if not known and (path.suffix or len(path.parts) > 1):
        problem = "not a plain file" if exists else "no such file"
        raise CheckpointError(f"{printable(reference)}: {problem}; named checkpoints: {', '.join(store.names())}")
    card = store.card_of(reference)
    weights = store.find_weights(reference)
    if weights is None:
        raise CheckpointError(f"{reference} has not been downloaded; get it with: gddim download {reference}")
    if card.sha256 is None and (seen := store.read_record(reference)):
        card = msgspec.structs.replace(card, sha256=seen.native_sha256)
    return weights, card


def model_in(folder: Path, reference: str) -> Path:
    """The model in a folder: the folder itself if a format recognizes it, otherwise the only model file inside.

    If there are native files, other files are ignored, because a training run's folder also holds the training state.

    Raises:
        CheckpointError: the folder holds no model, or several.
    """
    if any(spec.detect(folder) for spec in FORMATS.values()):
        return folder
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if path.suffix == store.WEIGHTS]
    found = found or [path for path in files if any(spec.detect(path) for spec in FORMATS.values())]
    if not found:
        raise CheckpointError(f"{printable(reference)}: a folder without a checkpoint of a known format")
    if len(found) > 1:
        listed = ", ".join(printable(path.name) for path in found[:5])
        raise CheckpointError(
            f"{printable(reference)}: holds {len(found)} checkpoints ({listed}); give the path of one"
        )
    return found[0]


def check_pinned(pinned: Card, inside: Card, digest: str, path: Path) -> None:
    """Refuses weights that do not belong to their card.

    Raises:
        CheckpointError: the sha256 is not the card's, or the card inside the file describes another model.
    """
    if pinned.sha256 and pinned.sha256 != digest:
        raise CheckpointError(
            f"{path}: sha256 {digest[:16]}... is not the {pinned.sha256[:16]}... of its card; install or fetch it again"
        )
    check_identity(inside, pinned, path)
