"""The model card of a trained denoiser."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.recipe import Recipe
from gddim_cli.training.trainer import Trainer

MOST_NAMES = 1000
"""The most class names that a card lists."""


def model_card(trainer: Trainer, data: Dataset, fingerprint: str, machine: str) -> Card:
    """The model card of the current averaged weights.

    The recipe's information on images and licenses is copied only if the recipe describes these images.

    Args:
        fingerprint: the images' fingerprint.
        machine: a description of the machine on which the weights were trained.
    """
    recipe = trainer.recipe
    channels, size, _ = data.image_shape
    known = recipe.data if is_about(recipe, fingerprint) else None
    licences = {"weights": recipe.license, "data": known.license} if known else {}
    return Card(
        name=recipe.name,
        title=f"Isotropic denoiser, {trainer.parameters:,} parameters",
        images=Images(channels, size),
        network={"kind": "denoiser", **trainer.arguments},
        parameterization="denoiser",
        diffusion={"name": "cld"},
        labels=trainer.classes,
        noise_range=(recipe.sigma.min, recipe.sigma.max),
        training={
            "data": (known and known.title) or f"the user's own: {described(data)}",
            "images": trainer.count,
            "images_sha256": fingerprint,
            **class_names(data),
            "steps": trainer.done,
            "batch_size": recipe.batch_size,
            "hours": round(trainer.seconds / 3600, 2),
            "machine": machine,
            "torch": torch.__version__.split("+")[0],
            "recipe": recorded(recipe, conditional=data.classes is not None),
        },
        license={what: text for what, text in licences.items() if text},
        cite=[known.source] if known and known.source else [],
    )


def is_about(recipe: Recipe, fingerprint: str) -> bool:
    """Whether the recipe's `data` section describes the images with this fingerprint."""
    return recipe.data.sha256 in (None, fingerprint)


def described(data: Dataset) -> str:
    """A description of the images: their number, their shape and, with labels, the number of classes."""
    channels, size, _ = data.image_shape
    text = f"{len(data.images)} images of {size}x{size}x{channels}"
    return text + (f" in {data.classes.count} classes" if data.classes else "")


def class_names(data: Dataset) -> dict[str, Any]:
    """The card's entry with the names of the classes; empty if the classes have no names."""
    return {"class_names": list(data.classes.names[:MOST_NAMES])} if data.classes and data.classes.names else {}


def recorded(recipe: Recipe, conditional: bool) -> dict[str, Any]:
    """The fields of a recipe that the card records under `recipe`: those that the card does not record elsewhere."""
    elsewhere = {"data", "license", "network", "name"} | (set() if conditional else {"label_dropout"})
    return {key: value for key, value in msgspec.to_builtins(recipe).items() if key not in elsewhere}
