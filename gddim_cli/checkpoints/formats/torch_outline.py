"""Recognizes the contents of a `torch.save` file by the structure of its pickle. Reads no tensors and runs no code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gddim_cli.checkpoints.pickle_outline import Call, OutlineError, torch_outline

PREFIX = "module.all_modules."


def outline_of(path: Path) -> Any:
    """What the file's pickle describes (see `torch_outline`); None if `torch.save` did not write the file."""
    try:
        return torch_outline(path) if path.is_file() else None
    except OutlineError:
        return None


def tensor_shapes(state: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that are values of the dictionary `state`, by name."""
    found = {}
    for name, value in state.items() if isinstance(state, dict) else ():
        shape = shape_of(value)
        if isinstance(name, str) and shape is not None:
            found[name] = shape
    return found


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor or parameter in an outline; None for anything else."""
    # A loop and no recursion: a hostile file may nest any number of parameters.
    while isinstance(value, Call) and value.args and value.name.startswith("torch._utils._rebuild_parameter"):
        value = value.args[0]
    if not isinstance(value, Call):
        return None
    if value.name.startswith("torch._utils._rebuild_tensor") and len(value.args) > 2:
        size = value.args[2]
        if isinstance(size, tuple) and all(isinstance(side, int) for side in size):
            return size
    return None


def ncsnpp_channels(path: Path) -> tuple[int, int] | None:
    """The network's input and output channels in a training state of CLD-SGM or Score-SDE; None for any other file."""
    state = outline_of(path)
    if not isinstance(state, dict) or not {"model", "ema"} <= set(state):
        return None
    shapes = tensor_shapes(state["model"])
    plain = [shape for name, shape in shapes.items() if re.fullmatch(rf"{re.escape(PREFIX)}\d+\.weight", name)]
    convolutions = [shape for shape in plain if len(shape) == 4]
    return (convolutions[0][1], convolutions[-1][0]) if convolutions else None
