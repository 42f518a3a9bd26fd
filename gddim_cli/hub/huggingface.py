"""Fetches models from the Hugging Face Hub, `hf://org/name[@revision]`, with the package `huggingface_hub`.

Needs the extra `gddim[hub]`. The cache, token and offline mode are those of `huggingface_hub`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from gddim_cli.errors import DownloadError, UsageError
from gddim_cli.runtime.text import printable

SCHEME = "hf://"
REFERENCE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
LARGEST = 20 << 30
"""Maximum size of a model, in bytes."""
MODEL_FILES = (".safetensors", ".pkl", ".pt", ".pth", ".ckpt", ".msgpack")
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
CONFIGURATIONS = ("model_index.json", "config.json", "unet/config.json")
SCHEDULERS = ("scheduler_config.json", "scheduler/scheduler_config.json")


def snapshot(reference: str, say: Callable[[str], object]) -> Path:
    """The folder in huggingface_hub's cache that holds the model's files; missing files are fetched.

    Raises:
        UsageError: the reference is not `hf://org/name[@revision]`.
        DownloadError: huggingface_hub is not installed, or the repository, revision or model does not exist or cannot
            be fetched.
    """
    match = REFERENCE.fullmatch(reference)
    if not match:
        raise UsageError(f"{printable(reference)}: expected hf://org/name or hf://org/name@revision")
    name, revision = match[1], match[2]
    try:
        library: Any = import_module("huggingface_hub")
        constants: Any = import_module("huggingface_hub.constants")
        errors: Any = import_module("huggingface_hub.errors")
    except ImportError as error:
        raise DownloadError(
            f"{reference}: this needs the package huggingface_hub; install it with: pip install 'gddim[hub]'"
        ) from error
    refusals = (errors.HfHubHTTPError, getattr(errors, "HTTPError", OSError), OSError, ValueError)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        if constants.HF_HUB_OFFLINE:
            return Path(library.snapshot_download(name, revision=revision, local_files_only=True))
        found = library.HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True)
        sizes = {entry.rfilename: entry.size or 0 for entry in found.siblings or []}
        chosen = choose(sizes, reference)
        say(f"{reference}: {sum(sizes[file] for file in chosen) / 1e6:.0f} MB")
        folder = library.snapshot_download(name, revision=revision, allow_patterns=chosen, endpoint=endpoint)
    except refusals as error:
        raise DownloadError(f"{reference}: {reason(error)}") from error
    return Path(folder)


def choose(sizes: Mapping[str, int], reference: str) -> list[str]:
    """The files of a repository that make up its model: those of a diffusers folder, or the only model file.

    Args:
        sizes: the size of each file in the repository, in bytes, by name.

    Raises:
        DownloadError: the repository has no model or several, or the model is too large.
    """
    chosen: list[str] = []
    if any(name in sizes for name in CONFIGURATIONS):
        prefix = "unet/" if "unet/config.json" in sizes else ""
        weights = [prefix + name for name in WEIGHTS if prefix + name in sizes][:1]
        extras = [name for name in (*CONFIGURATIONS, *SCHEDULERS) if name in sizes]
        chosen = [*extras, *weights] if weights else []
    if not chosen:
        chosen = [name for name in sizes if name.endswith(MODEL_FILES)]
        if len(chosen) != 1:
            listed = f": {', '.join(map(printable, sorted(chosen)[:5]))}" if chosen else ""
            raise DownloadError(
                f"{reference}: holds {len(chosen)} model files{listed}; download the one to use, and give its path"
            )
    total = sum(sizes[name] for name in chosen)
    if total > LARGEST:
        raise DownloadError(
            f"{reference}: {total / 1e9:.0f} GB, which is above the limit of {LARGEST / 1e9:.0f} GB for a model"
        )
    return chosen


def reason(error: Exception) -> str:
    """An error of huggingface_hub in one line."""
    kind = type(error).__name__
    known = {
        "RepositoryNotFoundError": "no such repository, or it is private; log in with: hf auth login",
        "GatedRepoError": "its owner must grant you access; ask for it on the model's page, then: hf auth login",
        "RevisionNotFoundError": "no such revision",
        "LocalEntryNotFoundError": "not in the cache, and cannot be fetched (offline, or no network)",
        "OfflineModeIsEnabled": "not in the cache, and HF_HUB_OFFLINE forbids fetching it",
    }
    return known.get(kind) or f"cannot be fetched ({kind}: {printable(error, 120)})"
