"""`gddim train` on a few 8x8 pictures: files, model card, refusals."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import folder_of

from gddim_cli.checkpoints import native
from gddim_cli.hub.load import load
from gddim_cli.hub.store import card_of
from gddim_cli.runtime.typed_yaml import read_yaml
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.model_card import recorded
from gddim_cli.training.preview import columns_for
from gddim_cli.training.recipe import read_recipe

CPU = torch.device("cpu")


def test_the_command_writes_a_checkpoint_that_samples(gddim, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", config, "--data", tmp_path / "squares.npz", "--out", out, "--every", 10, "--device", "cpu")
    result = gddim(*words, "--steps", 20)
    assert result.status == 0, result.err
    assert "32 images of 8x8x1" in result.err
    assert "step 10: mean loss" in result.err
    assert {path.name for path in out.iterdir()} == {
        ".lock", "state.pt", "log.csv", "train.json", "grid-000010.png", "grid-000020.png", "squares.safetensors", "squares.yaml",
    }  # fmt: skip
    with Image.open(out / "grid-000010.png") as picture:
        assert picture.size == (8 * 10 + 2, 8 * 10 + 2)
    assert len((out / "log.csv").read_text().splitlines()) == 3

    assert "resuming at step 20" in gddim(*words).err
    assert f"{out}: all 30 steps are done; raise --steps to train further" in gddim(*words).err
    card, _ = native.read(out / "squares.safetensors")
    assert (card.training["steps"], card.training["data"], card.license["data"]) == (30, "Squares", "CC0")
    written = read_yaml(out / "squares.yaml")
    assert written["sha256"] == load(str(out / "squares.safetensors"), CPU).sha256
    sampled = gddim(
        "sample", "--checkpoint", out / "squares.safetensors", "--nfe", 5, "--num", 2, "--out", tmp_path / "i", "--json"
    )
    assert json.loads(sampled.out)["settings"]["checkpoint"] == "squares"


def test_a_folder_of_colour_images(train, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 255)).save(photos / f"{i}.png")
    assert train(data=photos).status == 0
    assert native.read(tmp_path / "run" / "squares.safetensors")[0].images.channels == 3


def test_quiet_prints_nothing(train) -> None:
    result = train("--quiet")
    assert (result.status, result.out, result.err) == (0, "", "")


def test_a_conditional_model(gddim, train, tmp_path: Path, squares: np.ndarray) -> None:
    for name, images in (("left", squares[:16]), ("right", squares[16:])):
        (tmp_path / "photos").mkdir(exist_ok=True)
        folder_of(tmp_path / "photos" / name, images[..., None])
    result = train("--conditional", data=tmp_path / "photos")
    assert result.status == 0, result.err
    assert "32 images of 8x8x1 in 2 classes" in result.err
    weights = tmp_path / "run" / "squares.safetensors"
    card, _ = native.read(weights)
    assert card.network["classes"] == 2
    assert card.labels == 2
    assert card.training["class_names"] == ["left", "right"]
    assert card.training["recipe"]["label_dropout"] == 0.1
    with Image.open(tmp_path / "run" / "grid-000002.png") as picture:  # a row a class
        assert picture.size == (8 * 10 + 2, 2 * 10 + 2)
    for classes in ("uniform", "1"):
        words_of_class = ("--nfe", 5, "--num", 2, "--class", classes, "--out", tmp_path / classes)
        assert gddim("sample", "--checkpoint", weights, *words_of_class).status == 0
    model = load(str(weights), CPU)
    assert model.classes == 2
    y, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 3.0])
    assert not torch.equal(model(y, sigma, torch.tensor([0, 0])), model(y, sigma, torch.tensor([1, 1])))
    assert torch.isfinite(model(y, sigma)).all()  # without a class
    assert "class labels" in train(data=tmp_path / "photos").err  # the same folder without labels is another run


def test_what_a_recipe_says_of_its_data_holds_for_those_alone(
    train, config: Path, tmp_path: Path, squares: np.ndarray
) -> None:
    fingerprint = Dataset(squares[:, None]).fingerprint()
    recipe = {**yaml.safe_load(config.read_text()), "license": "MIT"}
    recipe["data"]["sha256"] = fingerprint
    config.write_text(yaml.safe_dump(recipe))
    np.savez(tmp_path / "other.npz", 255 - squares[:20])

    def card(data: str, out: str) -> tuple[native.Card, str]:
        result = train(data=tmp_path / data, out=tmp_path / out, steps=1)
        assert result.status == 0, result.err
        return native.read(tmp_path / out / "squares.safetensors")[0], result.err

    own, said = card("squares.npz", "a")
    assert own.license == {"weights": "MIT", "data": "CC0"}
    assert (own.training["data"], own.cite) == ("Squares", ["This test"])
    assert own.training["images_sha256"] == fingerprint
    assert "note:" not in said
    other, said = card("other.npz", "b")
    assert (other.license, other.cite) == ({}, [])
    assert other.training["data"] == "the user's own: 20 images of 8x8x1"
    assert "recipe squares describes other images than these; the model card says that the images are your own" in said


def test_no_licence_is_claimed_that_the_recipe_does_not_state(train, config: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load(config.read_text())
    del recipe["data"]
    config.write_text(yaml.safe_dump(recipe))
    assert train(steps=1).status == 0
    card, _ = native.read(tmp_path / "run" / "squares.safetensors")
    assert (card.license, card.cite, card.training["data"]) == ({}, [], "the user's own: 32 images of 8x8x1")
    assert not yaml.safe_load((tmp_path / "run" / "squares.yaml").read_text()).get("license")
    # The licence is only what the card says: it may be added later.
    config.write_text(yaml.safe_dump({**recipe, "license": "CC BY 4.0", "data": {"title": "Squares"}}))
    assert train(steps=1).status == 0
    card, _ = native.read(tmp_path / "run" / "squares.safetensors")
    assert (card.license, card.training["data"]) == ({"weights": "CC BY 4.0"}, "Squares")


def test_the_bundled_recipe_knows_its_images() -> None:
    """Claims of title, licence and source are tied to MNIST's training images."""
    recipe = read_recipe("mnist")
    assert recipe.data.sha256 == "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"
    assert recipe.license == card_of("mnist").license["weights"]
    assert recipe.data.license == card_of("mnist").license["data"]
    assert recipe.data.title == card_of("mnist").training["data"]
    assert [recipe.data.source] == card_of("mnist").cite


def test_the_recipe_of_the_bundled_checkpoint_is_one() -> None:
    recipe, made = read_recipe("mnist"), card_of("mnist")
    assert made.training["recipe"] == recorded(recipe, conditional=False)
    assert made.training["steps"] == recipe.steps
    network = msgspec.to_builtins(recipe.network)
    assert {k: made.network[k] for k in network} == {**network, "channels": list(network["channels"])}


def test_refusals(gddim, config: Path, tmp_path: Path) -> None:
    def refuse(
        message: str, status: int, *words: object, recipe: object = config, data: object = tmp_path / "squares.npz"
    ) -> None:
        result = gddim("train", recipe, "--data", data, "--out", tmp_path / "run", *words)
        assert result.status == status, result.err
        assert message in result.err
        assert result.err.count("\n") == 1, result.err

    refuse("there is no recipe 'mnits'; known: mnist, or the path of a YAML file", 2, recipe="mnits")
    refuse("none.yaml: cannot be read", 1, recipe=tmp_path / "none.yaml")
    refuse("--steps: 0: expected a whole number from 1 to", 2, "--steps", 0)
    refuse("--steps: 10000000000: expected a whole number from 1 to", 2, "--steps", 10**10)
    refuse("--every", 2, "--every", 0)
    refuse("--name: 'a/b': expected 1 to 64 letters, digits, _ or -", 2, "--name", "a/b")
    refuse("--name: '': expected 1 to 64", 2, "--name", "")
    refuse("--data: is empty", 2, data="")
    refuse("--num 33:", 1, "--num", 33)
    refuse("none.npz: no such file", 1, data=tmp_path / "none.npz")
    wrong = tmp_path / "wrong.yaml"
    small = yaml.safe_load(config.read_text())
    for change, message in [
        ({"learning_rat": 1e-3}, "unknown field `learning_rat`; did you mean 'learning_rate'?"),
        ({"steps": "many"}, "Expected `int`, got `str` - at `$.steps`"),
        ({"network": {"depth": 3}}, "unknown field `depth` - at `$.network`; did you mean 'patch'?"),
        ({"network": {"image_size": 5}}, "network.image_size is determined by the images; leave it out"),
        ({"network": {"patch": 3}}, "image_size 8 is not a multiple of patch"),
        ({"network": {"channels": [10**9]}}, "Expected `int` <= 4096 - at `$.network.channels[0]`"),
        ({"sigma": {"men": 0}}, "unknown field `men` - at `$.sigma`; did you mean 'mean'?"),
        ({"sigma": {"max": 1e-3}}, "sigma.min 0.001 is not below sigma.max 0.001"),
        ({"sigma": {"max": 1.1e-3}}, "noise levels from sigma.min 0.001 to sigma.max 0.0011 cannot be sampled"),
        ({"data": {"titel": "x"}}, "unknown field `titel` - at `$.data`; did you mean 'title'?"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 10**11}, "Expected `int` <= 65536 - at `$.batch_size`"),
        ({"name": "../../x"}, "$.name"),
    ]:
        wrong.write_text(yaml.safe_dump({**small, **change}))
        refuse(message, 1, recipe=wrong)
    wrong.write_text("name: [")
    refuse("not valid YAML", 1, recipe=wrong)
    np.savez(tmp_path / "wide.npz", np.zeros((2, 8, 12), np.uint8))
    refuse("12x8", 1, data=tmp_path / "wide.npz")


def test_large_images_are_previewed_by_fewer() -> None:
    counts = [columns_for(size) ** 2 for size in (8, 32, 64, 128, 256, 302, 512, 1024)]
    assert counts == [64, 64, 64, 64, 16, 9, 4, 4]


@pytest.mark.slow
def test_a_terminal_shows_progress_and_samples(config: Path, tmp_path: Path) -> None:
    """A bar with loss, rate and time left, and the first images of each grid."""
    master, slave = pty.openpty()
    data, out = tmp_path / "squares.npz", tmp_path / "run"
    words = ["train", config, "--data", data, "--out", out, "--every", 10, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-m", "gddim_cli", *map(str, words)], stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"\d+/30 steps, [\d.]+ steps/s, [\d.]+ s left, loss \d\.\d{4}", text), text
    assert "▀" in text
