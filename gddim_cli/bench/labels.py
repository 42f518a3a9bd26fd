"""What a sampler is called in a table: its name, and the settings in which the table's rows differ.

Rows are told apart by their settings; equal names are lengthened until they are told apart too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

NAMES = {
    "gddim": "gDDIM",
    "em": "Euler-Maruyama",
    "heun": "Heun",
    "rk45": "RK45",
    "sscs": "SSCS",
    "ddim": "DDIM",
    "ancestral": "ancestral",
}
Settings = dict[str, Any]


def labels(settings: Sequence[Settings], axis: str) -> list[str]:
    """A label for each cell's settings, equal for cells of one row and for no others.

    Args:
        axis: what the table's columns are, `NFE` or `lambda`: no part of a label.
    """
    short = _short_labels(settings, axis)
    together: dict[str, dict[bytes, Settings]] = {}
    for one, label in zip(settings, short, strict=True):
        together.setdefault(label, {}).setdefault(row_key(one, axis), one)
    rows = {label: list(kin.values()) for label, kin in together.items()}
    return [_lengthened(label, one, rows[label], axis) for one, label in zip(settings, short, strict=True)]


def row_settings(one: Settings, axis: str) -> Settings:
    """What the cells of one row share: all settings but the seed and the column."""
    return {name: value for name, value in one.items() if name not in ("seed", axis.lower())}


def row_key(one: Settings, axis: str) -> bytes:
    """The same, to compare."""
    return msgspec.json.encode(row_settings(one, axis), order="sorted")


def _lengthened(label: str, one: Settings, kin: Sequence[Settings], axis: str) -> str:
    """A label with all in which rows that have it too differ."""
    differ = [name for name in row_settings(one, axis) if len({repr(other.get(name)) for other in kin}) > 1]
    return ", ".join([label, *(_worded(name, one, kin) for name in differ)])


def _worded(name: str, one: Settings, kin: Sequence[Settings]) -> str:
    """One setting, as a label has it."""
    value = one[name]
    if name == "diffusion":
        return medium(one, kin)
    if isinstance(value, bool):
        return name if value else f"no {name}"
    words = {"checkpoint_sha256": "sha256", "k": "K ="}
    return f"{words.get(name, name)} {brief(value)}"


def brief(value: object) -> str:
    """A value, a sha256 shortened."""
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _short_labels(settings: Sequence[Settings], axis: str) -> list[str]:
    """A label for each cell's settings, of what usually differs."""

    def varies(name: str, among: Sequence[Settings] = settings) -> bool:
        return len({repr(one[name]) for one in among}) > 1

    found = []
    for one in settings:
        kin = [other for other in settings if other["checkpoint"] == one["checkpoint"]]
        place = [one["checkpoint"]] if varies("checkpoint") else []
        place += [medium(one, kin)] if varies("diffusion", kin) else []
        kin = [other for other in kin if other["diffusion"] == one["diffusion"]]
        words = [method(one, axis)]
        turned = [other for other in kin if other["sampler"] in ("gddim", "heun") and not other["lambda"]]
        if one in turned and varies("k", turned):
            words.append(f"K = {one['k']}")
        if varies("denoise", kin) and not one["denoise"]:
            words.append("no denoising step")
        for name, shown in (("grid_power", "grid power"), ("t_end", "t_end"), ("dtype", "")):
            if varies(name, kin):
                words.append(f"{shown} {one[name]}".strip())
        found.append(": ".join([" ".join(place), ", ".join(words)] if place else [", ".join(words)]))
    return found


def method(one: Settings, axis: str) -> str:
    """The sampler with what belongs to its name."""
    name = NAMES.get(one["sampler"]) or str(one["sampler"])
    noise = "" if axis == "lambda" else f" λ = {one['lambda']:g}" if one["lambda"] is not None else ""
    if one["sampler"] == "gddim":
        if one["lambda"] and noise:
            return name + noise
        return f"{name} order {one['order']}" + (" + corrector" if one["corrector"] else "") if axis == "NFE" else name
    if one["sampler"] == "em":
        return name + ("" if one["lambda"] == 1 else noise)
    if one["sampler"] == "ddim" and one["eta"]:
        return f"{name} η = {one['eta']:g}"
    if one["sampler"] == "rk45" and (one["rtol"] or one["atol"]):
        return f"{name} rtol {one['rtol'] or one['atol']:g}, atol {one['atol'] or one['rtol']:g}"
    return name


def medium(one: Settings, kin: Sequence[Settings]) -> str:
    """The diffusion's name, with the parameters in which those of its name differ."""
    own = one["diffusion"]
    same = [other["diffusion"] for other in kin if other["diffusion"]["name"] == own["name"]]
    differ = [name for name in own if len({repr(other.get(name)) for other in same}) > 1]
    values = ", ".join(f"{name} {brief(own[name])}" for name in differ)
    return f"{own['name']} ({values})" if values else str(own["name"])
