"""`gddim train` on a few 8x8 pictures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gddim_cli.checkpoints import native
from gddim_cli.cli.train import run as run_training
from gddim_cli.errors import DataError, OutputError, UsageError
from gddim_cli.hub.load import load
from gddim_cli.runtime.typed_yaml import read_yaml, typed
from gddim_cli.training.recipe import Recipe
from gddim_cli.training.trainer import Trainer

CPU = torch.device("cpu")
RECIPE = {
    "name": "squares",
    "steps": 30,
    "batch_size": 8,
    "cooldown": 1,
    "network": {"channels": [16], "blocks": 1, "embedding": 16},
    "data": {"title": "Squares", "license": "CC0", "source": "This test"},
}


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    """White squares on black, 8x8."""
    x = np.zeros((32, 8, 8), np.uint8)
    for i in range(32):
        x[i, i % 4 : i % 4 + 4, i // 8 : i // 8 + 4] = 255
    return x


@pytest.fixture
def config(tmp_path: Path, squares: np.ndarray) -> Path:
    np.savez(tmp_path / "squares.npz", squares)
    (tmp_path / "squares.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path / "squares.yaml"


def trainer(images: np.ndarray, out: Path, **changes: object) -> Trainer:
    recipe = msgspec.convert({**RECIPE, **changes}, Recipe)
    return Trainer(recipe, torch.from_numpy(images)[:, None], out, CPU)


def test_a_cut_run_makes_the_weights_of_an_uncut_one(tmp_path: Path, squares: np.ndarray) -> None:
    whole = trainer(squares, tmp_path / "whole", flip=True)
    losses = [whole.step() for _ in range(20)]
    cut = trainer(squares, tmp_path / "cut", flip=True)
    for _ in range(7):
        cut.step()
    cut.save()
    again = trainer(squares, tmp_path / "cut", flip=True, steps=99)
    assert again.done == 7
    assert [again.step() for _ in range(13)] == losses[7:]
    for name, tensor in whole.average.state_dict().items():
        torch.testing.assert_close(again.average.state_dict()[name], tensor, rtol=0, atol=0)


def test_it_learns(tmp_path: Path, squares: np.ndarray) -> None:
    run = trainer(squares, tmp_path, learning_rate=5e-3, warmup=10, steps=150)
    losses = [run.step() for _ in range(150)]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:10])


def test_the_command_writes_a_checkpoint_that_samples(gddim, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", config, "--data", tmp_path / "squares.npz", "--out", out, "--every", 10, "--device", "cpu")
    result = gddim(*words, "--steps", 20)
    assert result.status == 0, result.err
    assert "32 images 8x8x1" in result.err
    assert "step 10: mean loss" in result.err
    assert {path.name for path in out.iterdir()} == {
        "state.pt", "log.csv", "grid-000010.png", "grid-000020.png", "squares.safetensors", "squares.yaml",
    }  # fmt: skip
    with Image.open(out / "grid-000010.png") as picture:
        assert picture.size == (8 * 10 + 2, 8 * 10 + 2)
    assert len((out / "log.csv").read_text().splitlines()) == 3

    assert "going on from step 20" in gddim(*words).err
    card, _ = native.read(out / "squares.safetensors")
    assert (card.training["steps"], card.training["data"], card.license["data"]) == (30, "Squares", "CC0")
    written = read_yaml(out / "squares.yaml")
    assert written["sha256"] == load(str(out / "squares.safetensors"), CPU).sha256
    sampled = gddim(
        "sample", "--checkpoint", out / "squares.safetensors", "--nfe", 5, "--num", 2, "--out", tmp_path / "i", "--json"
    )
    assert json.loads(sampled.out)["settings"]["checkpoint"] == "squares"


def test_a_folder_of_colour_images(gddim, config: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 255)).save(photos / f"{i}.png")
    assert gddim("train", config, "--data", photos, "--out", tmp_path / "run", "--steps", 2).status == 0
    assert native.read(tmp_path / "run" / "squares.safetensors")[0].images.channels == 3


def test_refusals(gddim, config: Path, tmp_path: Path, squares: np.ndarray) -> None:
    def refuse(
        message: str, status: int, *words: object, recipe: object = config, data: object = tmp_path / "squares.npz"
    ) -> None:
        result = gddim("train", recipe, "--data", data, "--out", tmp_path / "run", *words)
        assert result.status == status, result.err
        assert message in result.err
        assert "Traceback" not in result.err

    refuse("there is no recipe 'mnits'", 2, recipe="mnits")
    refuse("none.yaml: cannot be read", 1, recipe=tmp_path / "none.yaml")
    refuse("--steps: 0 is not a positive count", 2, "--steps", 0)
    refuse("none.npz: no such file", 1, data=tmp_path / "none.npz")
    wrong = tmp_path / "wrong.yaml"
    for change, message in [
        ({"learning_rat": 1e-3}, "unknown field `learning_rat`; did you mean 'learning_rate'?"),
        ({"steps": "many"}, "Expected `int`, got `str` - at `$.steps`"),
        ({"network": {"depth": 3}}, "the network cannot be built"),
        ({"network": {"patch": 3}}, "image_size 8 is not a multiple of patch"),
        ({"batch_size": 0}, "batch_size"),
    ]:
        wrong.write_text(yaml.safe_dump({**RECIPE, **change}))
        refuse(message, 1, recipe=wrong)
    wrong.write_text("name: [")
    refuse("not valid YAML", 1, recipe=wrong)
    np.savez(tmp_path / "wide.npz", np.zeros((2, 8, 12), np.uint8))
    refuse("12x8", 1, data=tmp_path / "wide.npz")
    assert (
        gddim("train", config, "--data", tmp_path / "squares.npz", "--out", tmp_path / "run", "--steps", 1).status == 0
    )
    wrong.write_text(yaml.safe_dump({**RECIPE, "seed": 4}))
    refuse("that run had other settings: seed", 2, recipe=wrong)
    (tmp_path / "run" / "state.pt").write_bytes(b"nonsense")
    refuse("state.pt: not a training state of gddim", 1)


def test_the_recipe_of_the_bundled_checkpoint_is_one(monkeypatch) -> None:
    from gddim_cli.hub.store import bundled_folder, card_of

    recipe = typed(read_yaml(bundled_folder() / "mnist.train.yaml"), Recipe, "mnist.train.yaml")
    made = card_of("mnist")
    wanted = {k: v for k, v in msgspec.to_builtins(recipe).items() if k not in ("data", "network", "name")}
    assert made.training["recipe"] == wanted
    assert made.training["steps"] == recipe.steps
    assert {k: made.network[k] for k in recipe.network} == recipe.network


def test_other_images_or_a_foreign_state_do_not_go_on(tmp_path: Path, squares: np.ndarray) -> None:
    run = trainer(squares, tmp_path)
    run.step()
    run.save()
    with pytest.raises(UsageError, match="other settings: images"):
        trainer(255 - squares, tmp_path)
    for foreign in ({"step": 1}, torch.zeros(3)):
        torch.save(foreign, tmp_path / "state.pt")
        with pytest.raises(DataError, match="not a training state of gddim"):
            trainer(squares, tmp_path)


def test_an_interrupt_waits_for_the_steps_end(tmp_path: Path, squares: np.ndarray, monkeypatch) -> None:
    """SIGTERM in the middle of step 4: the step is whole, and the state is that of an uncut run after 4 steps."""
    cut, whole = trainer(squares, tmp_path / "cut"), trainer(squares, tmp_path / "whole")
    average = Trainer._average

    def interrupted(self: Trainer, decay: float) -> None:
        if self is cut and self.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        average(self, decay)

    monkeypatch.setattr(Trainer, "_average", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(cut, every=100)
    for _ in range(4):
        whole.step()
    saved = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
    assert saved["step"] == 4
    for name, tensor in whole.average.state_dict().items():
        torch.testing.assert_close(saved["average"][name], tensor, rtol=0, atol=0)


def test_the_learning_rate_warms_up_and_cools_down(tmp_path: Path, squares: np.ndarray) -> None:
    run = trainer(squares, tmp_path, steps=90, warmup=10, decay_from=40, cooldown=1000, learning_rate=1.0)
    rates = [run.learning_rate(step) for step in range(90)]
    assert rates[4] == pytest.approx(0.5)
    assert rates[20] == 1.0
    assert rates[54] == pytest.approx((40 / 55) ** 0.5)
    assert rates[75] == pytest.approx(0.5 * (40 / 76) ** 0.5)  # half-way through the last third
    assert rates[89] < 0.03


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, squares: np.ndarray) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/state.pt: cannot be written"):
        trainer(squares, tmp_path / "file")
