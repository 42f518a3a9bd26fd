"""The labels of a table's rows: the sampler with its options, and any other settings in which the rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gddim_cli.runs.request import SamplingRequest, sampling_settings
from gddim_cli.samplers.registry import SAMPLERS
from gddim_cli.settings import Setting


def row_settings(request: SamplingRequest, column: str) -> dict[str, Any]:
    """The settings that all cells of a row share. A `solver` is left out, because each NFE has another solver."""
    flat = {**request.flat(), **{f"parameter {key}": value for key, value in (request.parameters or {}).items()}}
    return {key: value for key, value in flat.items() if key not in ("seed", "parameters", "solver", column)}


def labels(requests: Sequence[SamplingRequest], column: str) -> list[str]:
    """A label for each resolved request, equal only for requests of the same row.

    Args:
        column: the setting that varies between the table's columns, `nfe` or `lambda`. Labels leave it out.
    """
    settings, known = [row_settings(request, column) for request in requests], sampling_settings()
    rows = {repr(own): (request, own) for request, own in zip(requests, settings, strict=True)}
    named: dict[str, dict[str, dict[str, Any]]] = {}
    for key, (request, own) in rows.items():
        name = short_label(request, [other for other, _ in rows.values()], column)
        named.setdefault(name, {})[key] = own
    found = {}
    for name, kin in named.items():
        every = dict.fromkeys(setting for own in kin.values() for setting in own)
        differ = [setting for setting in every if len({repr(own.get(setting)) for own in kin.values()}) > 1]
        for key, own in kin.items():
            found[key] = ", ".join(filter(None, [name, *(said(one, own.get(one), known.get(one)) for one in differ)]))
    return [found[repr(own)] for own in settings]


def short_label(request: SamplingRequest, others: Sequence[SamplingRequest], column: str) -> str:
    """The sampler with its options, preceded by the checkpoint and the diffusion if those vary."""
    kin = [other for other in others if other.checkpoint == request.checkpoint]
    places = [request.checkpoint] if len(kin) < len(others) else []
    places += [request.diffusion] if any(other.diffusion != request.diffusion for other in kin) else []
    spec = SAMPLERS.get(request.sampler)  # None if the plugin that defines the sampler is not installed.
    label = spec.label(spec, request.sampler_options, column) if spec else request.sampler
    return f"{' '.join(map(str, places))}: {label}" if places else label


def said(name: str, value: Any, setting: Setting | None) -> str:
    """The text of a setting in a label. It is empty if the setting is not given, or is a boolean with its usual value.

    The usual value is off if the default is off, and on otherwise.
    """
    if value is None or (setting and isinstance(value, bool) and value == (setting.default is not False)):
        return ""
    text = name.removeprefix("parameter ").removeprefix("checkpoint_").replace("_sha256", " sha256")
    return setting.labelled(value) if setting else f"{text} {str(value)[:12]}"
