"""A training recipe: everything that a training run depends on besides its images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gddim_cli.errors import DataError, UsageError
from gddim_cli.hub.store import bundled_folder
from gddim_cli.runtime.typed_yaml import read_yaml, typed
from gddim_cli.settings import about, brief, declared

RECIPE = ".train.yaml"
"""The suffix of bundled recipes."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
NAME, LONGEST_NAME = r"^[\w-]+\Z", 64
FROM_IMAGES = ("image_channels", "image_size", "sigma_data", "classes")
"""Network arguments that are determined by the training images, so that a recipe must not set them."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The architecture of the denoiser."""

    patch: Annotated[
        int,
        about("Side of the pixel blocks folded into channels at the input and unfolded at the output.", ge=1, le=64),
    ] = 2
    channels: Annotated[
        tuple[Width, ...],
        msgspec.Meta(min_length=1, max_length=10),
        about("Width of each level; every level after the first halves the resolution."),
    ] = (64, 96)
    blocks: Annotated[
        int, about("Residual blocks per level, on the way down and again on the way up.", ge=1, le=64)
    ] = 2
    embedding: Annotated[int, about("Width of the embedding of the noise level.", ge=1, le=4096)] = 128


class NoiseLevels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distribution of noise levels: `ln sigma` is normal, except for a share `even` that is uniform."""

    mean: Annotated[float, about("Mean of ln(sigma).", ge=-20, le=20)] = -0.6
    std: Annotated[float, about("Standard deviation of ln(sigma).", gt=0, le=20)] = 1.4
    even: Annotated[
        float, about("Share of noise levels whose ln(sigma) is drawn uniformly from ln(min) to ln(max).", ge=0, le=1)
    ] = 0.15
    min: Annotated[float, about("Lowest noise level; lower draws are raised to it.", ge=1e-6, le=1e6)] = 0.001
    max: Annotated[float, about("Highest noise level; higher draws are lowered to it.", ge=1e-6, le=1e6)] = 260.0


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Information on the images for the model card."""

    title: Annotated[Text, about("Title of the data set.")] | None = None
    source: Annotated[Text, about("Citation for the images.")] | None = None
    license: Annotated[Text, about("License of the images.")] | None = None
    sha256: (
        Annotated[
            str,
            about(
                "SHA-256 of the images that `data` describes. If the training images have another SHA-256, the model card omits "
                "`data` and `license`.",
                pattern=r"^[0-9a-f]{64}\Z",
            ),
        ]
        | None
    ) = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a training run. Once the run has begun, only `steps`, `data` and `license` may change."""

    name: Annotated[
        str,
        about(
            "Name of the model and of its files: letters, digits, _ and -.",
            pattern=NAME,
            min_length=1,
            max_length=LONGEST_NAME,
        ),
    ]
    steps: Annotated[int, about("Optimizer steps.", ge=1, le=10**9)]
    batch_size: Annotated[int, about("Images per step.", ge=1, le=65_536)] = 64
    learning_rate: Annotated[float, about("Peak learning rate of Adam.", gt=0, le=10)] = 1e-3
    warmup: Annotated[int, about("Steps over which the learning rate rises linearly to its peak.", ge=1, le=10**9)] = (
        500
    )
    decay_from: Annotated[int, about("Step from which the learning rate falls as 1/sqrt(step).", ge=1, le=10**9)] = 5000
    cooldown: Annotated[
        int,
        about(
            "Number of final steps over which the learning rate falls linearly to zero. At most a third of all steps.",
            ge=1,
            le=10**9,
        ),
    ] = 1000
    ema: Annotated[
        float, about("Decay per step of the weights' moving average. The checkpoint holds this average.", ge=0, le=1)
    ] = 0.9995
    seed: Annotated[int, about("Seed of the initial weights and of every batch.", ge=0, le=10**12)] = 0
    flip: Annotated[bool, about("Mirror half of the images left to right, at random.")] = False
    label_dropout: Annotated[
        float,
        about("Share of the images whose class label is hidden (class-conditional training only).", ge=0, le=1),
    ] = 0.1
    network: Network = Network()
    sigma: NoiseLevels = NoiseLevels()
    data: Data = Data()
    license: Annotated[Text, about("License of the weights, for the model card.")] | None = None


def read_recipe(reference: str) -> Recipe:
    """The bundled recipe of that name, or the one in a YAML file.

    Raises:
        UsageError: the name is unknown.
        DataError: the file cannot be read, or is not a recipe.
    """
    path = Path(reference)
    if not path.suffix and not path.is_file():
        path = bundled_folder() / f"{reference}{RECIPE}"
        if not path.is_file() or path.name != f"{reference}{RECIPE}":
            raise UsageError(
                f"there is no recipe '{reference}'; known: {', '.join(recipe_names())}, or the path of a YAML file"
            )
    return as_recipe(read_yaml(path), path)


def with_changes(recipe: Recipe, steps: int | None, name: str | None) -> Recipe:
    """The recipe, with `steps` and `name` replaced by the values of `--steps` and `--name`, if given.

    Raises:
        UsageError: a value outside its range.
    """
    if name is not None and (len(name) > LONGEST_NAME or not re.search(NAME, name)):
        raise UsageError(f"--name: {brief(name)}: expected 1 to {LONGEST_NAME} letters, digits, _ or -")
    checked = recipe.steps if steps is None else declared(Recipe)["steps"].check(steps, "--steps")
    return msgspec.structs.replace(recipe, steps=checked, name=recipe.name if name is None else name)


def recipe_names() -> list[str]:
    """The bundled recipes."""
    return sorted(path.name.removesuffix(RECIPE) for path in bundled_folder().glob(f"*{RECIPE}"))


def as_recipe(raw: Any, source: object) -> Recipe:
    """A recipe from plain dicts and lists; `source` names it in messages.

    Raises:
        DataError: an unknown or missing key, a value of the wrong type or outside its range, contradicting values.
    """
    network = raw.get("network") if isinstance(raw, dict) else None
    for key in FROM_IMAGES:
        if isinstance(network, dict) and key in network:
            raise DataError(f"{source}: network.{key} is determined by the images; leave it out")
    recipe = typed(raw, Recipe, source)
    if recipe.sigma.min >= recipe.sigma.max:
        raise DataError(f"{source}: sigma.min {recipe.sigma.min:g} is not below sigma.max {recipe.sigma.max:g}")
    return recipe
