"""`state.pt`: everything that a training run needs to resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from gddim_cli.checkpoints.formats.torch_pickle import unpickle
from gddim_cli.checkpoints.native import all_finite
from gddim_cli.errors import CheckpointError, DataError, NumericsError
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.recipe import Recipe
from gddim_cli.training.trainer import Trainer

LogRow = tuple[int, float, float]
"""Step, mean loss since the previous row, seconds of training so far."""
FREE = ("steps", "data", "license")
"""Fields of a recipe that may change after the run has begun."""


class RunSettings(msgspec.Struct, frozen=True):
    """The settings that identify a training run.

    Attributes:
        recipe: the recipe, whose `steps`, `data` and `license` are not compared.
        images, labels: fingerprints of the images and of the class labels; `labels` is None for unconditional training.
    """

    recipe: Recipe
    images: str
    labels: str | None = None

    def changes(self, other: RunSettings) -> list[str]:
        """The settings in which `other` differs, as `name: this -> other`; for images and class labels, only the name."""
        ours, theirs = flat(msgspec.to_builtins(self.recipe)), flat(msgspec.to_builtins(other.recipe))
        changed = [f"{key}: {ours[key]} -> {theirs[key]}" for key in ours if ours[key] != theirs[key]]
        changed += ["images"] if self.images != other.images else []
        return changed + (["class labels"] if self.labels != other.labels else [])


def settings_of(recipe: Recipe, data: Dataset) -> RunSettings:
    """The settings of a run."""
    return RunSettings(recipe, data.fingerprint(), data.classes.fingerprint() if data.classes else None)


def flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that identify a run, in one flat dict with keys such as `network.blocks`."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, dict) and key not in FREE:
            found |= {f"{key}.{name}": part for name, part in value.items()}
        elif key not in FREE:
            found[key] = value
    return found


class Saved(msgspec.Struct):
    """The content of `state.pt` besides tensors."""

    step: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    recipe: Recipe
    images: str
    log: list[LogRow]
    labels: str | None = None

    @property
    def settings(self) -> RunSettings:
        """The settings of the run that the state belongs to."""
        return RunSettings(self.recipe, self.images, self.labels)


TENSORS = ("network", "average", "optimizer")


def write_state(path: Path, trainer: Trainer, settings: RunSettings, log: list[LogRow]) -> None:
    """Writes the state.

    Raises:
        NumericsError: a weight is not finite; nothing is written then.
        OSError: the file cannot be written.
    """
    for tensor in trainer.network.state_dict().values():
        if not all_finite(tensor):
            raise NumericsError(
                f"the weights are not finite at step {trainer.done}; lower learning_rate in the recipe (it is "
                f"{trainer.recipe.learning_rate:g}) and start again in another folder, or with --force"
            )
    saved = Saved(trainer.done, trainer.seconds, settings.recipe, settings.images, log, settings.labels)
    tensors = {name: getattr(trainer, name).state_dict() for name in TENSORS}
    try:
        with path.open("wb") as file:
            torch.save({**msgspec.to_builtins(saved), **tensors}, file)
    except RuntimeError as error:  # torch raises this while it handles an OSError of the file.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def read_state(path: Path) -> tuple[Saved, dict[str, Any]]:
    """The state in a file: its plain values, and its tensors under the names in `TENSORS`.

    Raises:
        DataError: the file is not a state, or is damaged.
    """
    if not path.is_file():
        raise unusable(path, "not a file")
    try:
        state = unpickle(path)
    except CheckpointError as error:
        raise unusable(path, str(error).removeprefix(f"{path}: ").split("; fetch")[0]) from error
    if not isinstance(state, dict) or not all(isinstance(state.get(name), dict) for name in TENSORS):
        raise unusable(path, "its parts are missing")
    try:
        saved = msgspec.convert({key: value for key, value in state.items() if key not in TENSORS}, Saved)
    except msgspec.ValidationError as error:
        raise unusable(path, str(error)) from error
    return saved, {name: state[name] for name in TENSORS}


def restore(trainer: Trainer, saved: Saved, tensors: dict[str, Any], path: Path) -> None:
    """Loads a state into a trainer.

    Raises:
        DataError: the tensors' names, shapes or types differ from the trainer's.
    """
    try:
        trainer.network.load_state_dict(tensors["network"])
        trainer.average.load_state_dict(tensors["average"])
        check_optimizer(tensors["optimizer"], trainer)
        trainer.optimizer.load_state_dict(copy.deepcopy(tensors["optimizer"]))
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise unusable(path, f"damaged: {error}") from error
    trainer.done, trainer.seconds = saved.step, saved.seconds


def check_optimizer(state: dict[str, Any], trainer: Trainer) -> None:
    """Raises ValueError if Adam's moments do not fit the trainer's weights."""
    parameters = list(trainer.network.parameters())
    moments = state["state"]
    if sorted(moments) != list(range(len(parameters))) and moments:
        raise ValueError(f"moments of {len(moments)} weights, not {len(parameters)}")
    for number, found in moments.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if not isinstance(found[name], Tensor) or found[name].shape != parameters[number].shape:
                raise ValueError(f"moment {name} of weight {number} has another shape")


def unusable(path: Path, reason: str) -> DataError:
    """The error for a file that is not a usable state."""
    text = " ".join(reason.split())[:200]
    return DataError(f"{path}: not a training state of gddim ({text}); move it away, or start again with --force")
