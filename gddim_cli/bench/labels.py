"""What rows of a table are called: sampler and options, and the settings in which rows of one name differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gddim_cli.runs.request import SamplingRequest, sampling_settings
from gddim_cli.samplers.registry import SAMPLERS
from gddim_cli.settings import Setting


def labels(requests: Sequence[SamplingRequest], column: str) -> list[str]:
    """A label for each resolved request, equal for those of one row and for no others.

    Args:
        column: the setting of the table's columns, `nfe` or `lambda`, which is no part of a label.
    """
    keys, known = [row_key(request, column) for request in requests], sampling_settings()
    rows = dict(zip(keys, requests, strict=True))
    named: dict[str, list[bytes]] = {}
    for key, request in rows.items():
        named.setdefault(name(request, list(rows.values()), column), []).append(key)
    found = {}
    for label, kin in named.items():
        settings = {key: row_settings(rows[key], column) for key in kin}
        every = dict.fromkeys(name for row in settings.values() for name in row)
        differ = [name for name in every if len({repr(row.get(name)) for row in settings.values()}) > 1]
        for key, row in settings.items():
            found[key] = ", ".join(
                [label, *filter(None, (said(name, row.get(name), known.get(name)) for name in differ))]
            )
    return [found[key] for key in keys]


def row_settings(request: SamplingRequest, column: str) -> dict[str, Any]:
    """What the cells of one row share: everything but the seed and the column's setting."""
    flat = {**request.flat(), **{f"parameter {key}": value for key, value in (request.parameters or {}).items()}}
    return {key: value for key, value in flat.items() if key not in ("seed", "parameters", column)}


def row_key(request: SamplingRequest, column: str) -> bytes:
    """The same, to compare."""
    return msgspec.json.encode(row_settings(request, column), order="sorted")


def name(request: SamplingRequest, others: Sequence[SamplingRequest], column: str) -> str:
    """The sampler with its options, after the checkpoint and the diffusion where those vary."""
    kin = [other for other in others if other.checkpoint == request.checkpoint]
    places = [request.checkpoint] if len(kin) < len(others) else []
    places += [request.diffusion] if any(other.diffusion != request.diffusion for other in kin) else []
    spec = SAMPLERS.find(request.sampler, "sampler")
    label = spec.label(spec, request.sampler_options, column)
    return f"{' '.join(map(str, places))}: {label}" if places else label


def said(name: str, value: Any, setting: Setting | None) -> str:
    """A setting in words; nothing for one that is not given, or a flag that is as usual."""
    if value is None or (setting and isinstance(value, bool) and value == (setting.default is not False)):
        return ""
    if setting:
        return setting.labelled(value)
    text = name.removeprefix("parameter ").removeprefix("checkpoint_").replace("_sha256", " sha256")
    return f"{text} {value[:12] if isinstance(value, str) else value}"
