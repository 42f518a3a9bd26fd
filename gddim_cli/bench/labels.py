"""What a sampler is called in a table: its name, and the settings in which the table's rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """A label for each cell's settings, equal for cells of one row.

    Args:
        axis: what the table's columns are, `NFE` or `lambda`: no part of a label.
    """

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
    name = NAMES[one["sampler"]]
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
    values = ", ".join(f"{name} {own[name]}" for name in differ)
    return f"{own['name']} ({values})" if values else str(own["name"])
