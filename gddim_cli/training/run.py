"""A training run in a folder: trained step by step, saved at any time, resumed after interruptions."""

from __future__ import annotations

import csv
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card
from gddim_cli.diffusions.cld import CLD
from gddim_cli.errors import DataError
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import as_picture, grid
from gddim_cli.runs.noise_range import sigma_eff
from gddim_cli.runtime.files import probe, sha256
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.folder import LOG, STATE, TrainingFolder, model_files
from gddim_cli.training.model_card import model_card
from gddim_cli.training.preview import preview
from gddim_cli.training.recipe import Recipe
from gddim_cli.training.state import LogRow, Saved, read_state, restore, settings_of, write_state
from gddim_cli.training.trainer import Trainer


@dataclass
class TrainingRun:
    """A training run and its folder, which the caller must have locked.

    Attributes:
        force: replace files that this run did not write.
        log: the rows of `log.csv`.
    """

    recipe: Recipe
    data: Dataset
    out: Path
    device: torch.device
    force: bool = False
    log: list[LogRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Resumes from `state.pt` if there is one.

        Raises:
            DataError: the network does not fit the images, or `state.pt` cannot be read.
            UsageError: the folder holds a run of other settings.
            OutputError: the folder cannot be written, or holds files that this run did not write but would replace.
        """
        refuse_unusable_levels(self.recipe)
        probe(self.out / STATE)
        self.settings = settings_of(self.recipe, self.data)
        self.folder = TrainingFolder(self.out, self.settings, self.force)
        state = self._read_state()
        self.folder.refuse_foreign([LOG, *model_files(self.recipe.name), *self.folder.grids()])
        self.trainer = Trainer(self.recipe, self.data, self.device)
        if state:
            self._restore(*state)
        self._losses: list[float] = []
        self._latest: deque[float] = deque(maxlen=100)

    @property
    def done(self) -> int:
        """Number of steps so far."""
        return self.trainer.done

    @property
    def mean_loss(self) -> float:
        """The mean loss of the last hundred steps."""
        return sum(self._latest) / len(self._latest)

    def step(self) -> float:
        """One optimizer step; returns the loss. Raises as `Trainer.step`."""
        loss = self.trainer.step()
        self._losses.append(loss)
        self._latest.append(loss)
        return loss

    def save(self) -> None:
        """Writes `state.pt` and `log.csv` (step, mean loss since the previous row, seconds), each atomically.

        Raises:
            NumericsError: a weight is not finite.
            OutputError: the folder cannot be written, or another process has written to it.
        """
        log = list(self.log)
        if self._losses:
            log.append((self.done, sum(self._losses) / len(self._losses), self.trainer.seconds))
        with self.folder.replacing(STATE) as temporary:
            write_state(temporary, self.trainer, self.settings, log)
        self.log = log
        self._losses.clear()
        with self.folder.replacing(LOG) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "loss", "seconds"])
            writer.writerows(self.log)

    def preview(self) -> tuple[Path, Pixels]:
        """Writes `grid-STEP.png`, samples of the averaged weights; returns its path and its pixels [H, W, C].

        Raises:
            OutputError: as `save`.
            CapacityError: not even one image fits in memory.
        """
        name = f"grid-{self.done:06d}.png"
        picture = grid(*preview(self.trainer, self.card()))
        with self.folder.replacing(name) as temporary:
            as_picture(picture).save(temporary, format="PNG")
        return self.out / name, picture

    def export(self, machine: str) -> Path:
        """Writes the averaged weights with their model card as `NAME.safetensors`, and the card again as `NAME.yaml`.

        Args:
            machine: a description of the machine on which the weights were trained, for the card.

        Raises:
            OutputError: as `save`.
        """
        weights, text = model_files(self.recipe.name)
        card = self.card(machine)
        with self.folder.replacing(weights) as temporary:
            native.save(temporary, card, self.trainer.average.state_dict())
        card = msgspec.structs.replace(card, sha256=sha256(self.out / weights))
        with self.folder.replacing(text) as temporary:
            temporary.write_text(yaml.safe_dump(msgspec.to_builtins(card), sort_keys=False), encoding="utf-8")
        return self.out / weights

    def card(self, machine: str = "") -> Card:
        """The model card of the current averaged weights."""
        return model_card(self.trainer, self.data, self.settings.images, machine)

    def _read_state(self) -> tuple[Saved, dict[str, Any]] | None:
        """This run's state; None if there is none, or if `force` allows the existing one to be replaced."""
        path = self.out / STATE
        if not path.is_symlink() and not path.exists():
            return None
        self.folder.own_state()
        try:
            saved, tensors = read_state(path)
        except DataError:
            if self.force:
                return None
            raise
        return (saved, tensors) if self.folder.is_this_run(saved.settings, STATE) else None

    def _restore(self, saved: Saved, tensors: dict[str, Any]) -> None:
        try:
            restore(self.trainer, saved, tensors, self.out / STATE)
            self.log = saved.log
        except DataError:
            if not self.force:
                raise
            self.trainer = Trainer(self.recipe, self.data, self.device)  # Discards what was restored.


def refuse_unusable_levels(recipe: Recipe) -> None:
    """Raises DataError if the recipe's noise levels do not overlap those of CLD, the default diffusion for sampling."""
    diffusion, levels = CLD(), recipe.sigma
    highest, lowest = (sigma_eff(diffusion, t) for t in (diffusion.sampling.t_start, diffusion.sampling.t_end))
    if levels.max <= lowest or levels.min >= highest:
        raise DataError(
            f"recipe {recipe.name}: noise levels from sigma.min {levels.min:g} to sigma.max {levels.max:g} cannot be sampled: "
            f"{diffusion.name} uses noise levels from {lowest:.3g} to {highest:.3g}; the defaults, 0.001 and 260, "
            "cover these"
        )
