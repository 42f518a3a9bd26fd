"""The checkpoint formats by name, and the function that recognizes the format of a file."""

from __future__ import annotations

from pathlib import Path

from gddim_cli.checkpoints.formats import cldsgm, diffusers, edm, gddim_flax, openai, score_sde, torchcfm
from gddim_cli.checkpoints.formats.base import FormatSpec
from gddim_cli.errors import CheckpointError
from gddim_cli.runtime.registry import Registry

FORMATS = Registry(
    "checkpoint format",
    FormatSpec,
    [gddim_flax.SPEC, cldsgm.SPEC, score_sde.SPEC, edm.SPEC, openai.SPEC, torchcfm.SPEC, diffusers.SPEC],
)


def recognize(path: Path) -> FormatSpec:
    """The format of a file or folder.

    Raises:
        CheckpointError: the file is missing, of no known format, or of several formats.
    """
    try:
        found = [spec for spec in FORMATS.values() if spec.detect(path)] if path.exists() else None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if found is None:
        raise CheckpointError(f"{path}: no such file or folder")
    if not found:
        known = ", ".join(FORMATS)
        raise CheckpointError(f"{path}: not a checkpoint of a known format ({known}); is the file complete?")
    if len(found) > 1:
        names = " and ".join(spec.name for spec in found)
        raise CheckpointError(f"{path}: could be {names}; choose one with --format")
    return found[0]
