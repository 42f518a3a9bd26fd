"""Optimization: exact resuming, learning rate, finite weights, class labels."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from gddim_cli.cli.train import execute
from gddim_cli.errors import CapacityError, DataError, NumericsError, OutputError, UsageError
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.training.dataset import Dataset
from gddim_cli.training.recipe import Network, Recipe, as_recipe
from gddim_cli.training.trainer import Trainer, least_activations, with_classes

CPU = torch.device("cpu")


def same_weights(a: torch.nn.Module | dict, b: torch.nn.Module) -> None:
    """Both have the same weights, bit for bit."""
    found = a if isinstance(a, dict) else a.state_dict()
    for name, tensor in b.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("conditional", [False, True])
def test_an_interrupted_run_makes_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, squares: np.ndarray, training, conditional: bool
) -> None:
    labels = np.arange(32) % 4 if conditional else None
    whole = training(squares, tmp_path / "whole", labels, flip=True)
    losses = [whole.step() for _ in range(20)]
    first = training(squares, tmp_path / "parts", labels, flip=True)
    for _ in range(7):
        first.step()
    first.save()
    second = training(squares, tmp_path / "parts", labels, flip=True, steps=99)
    assert second.done == 7
    assert [second.step() for _ in range(13)] == losses[7:]
    same_weights(second.trainer.average, whole.trainer.average)


def test_it_learns(tmp_path: Path, squares: np.ndarray, training) -> None:
    run = training(squares, tmp_path, learning_rate=5e-3, warmup=10, steps=150)
    losses = [run.step() for _ in range(150)]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:10])


def test_class_labels_are_learned(tmp_path: Path, training) -> None:
    """Black images of class 0, white ones of class 1: in strong noise only the label tells them apart."""
    images = np.zeros((32, 8, 8), np.uint8)
    images[16:] = 255
    labels = np.arange(32) // 16
    run = training(images, tmp_path, labels, learning_rate=1e-2, warmup=1, steps=300, ema=0.9, label_dropout=0.3)
    for _ in range(300):
        run.step()
    y, sigma = 100 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((64,), 100.0)

    def mean(label: int) -> float:
        with torch.no_grad():
            return float(run.trainer.average(y, with_classes(sigma, torch.full((64,), label), 2)).mean())

    assert mean(0) < -0.6
    assert mean(1) > 0.6
    assert abs(mean(-1)) < 0.5  # without a class: the mean of both
    with torch.no_grad():
        unconditional = run.trainer.average(y, sigma)
        torch.testing.assert_close(
            unconditional, run.trainer.average(y, with_classes(sigma, torch.full((64,), -1), 2)), rtol=0, atol=0
        )


def test_a_network_without_classes_is_unchanged_by_their_support() -> None:
    """The same initial weights with and without classes; without a label the same output, bit for bit."""
    arguments = {
        "image_channels": 1,
        "image_size": 8,
        "sigma_data": 0.5,
        "channels": [16],
        "blocks": 1,
        "embedding": 16,
    }
    torch.manual_seed(3)
    plain = DenoisingUNet(**arguments)
    torch.manual_seed(3)
    conditional = DenoisingUNet(**arguments, classes=5)
    assert set(conditional.state_dict()) - set(plain.state_dict()) == {"label.weight"}
    same_weights(conditional, plain)
    y, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 3.0])
    torch.testing.assert_close(conditional(y, sigma), plain(y, sigma), rtol=0, atol=0)


def test_labels_do_not_change_the_other_draws(squares: np.ndarray, training, tmp_path: Path) -> None:
    labels = np.arange(32) % 4
    plain = training(squares, tmp_path / "a").trainer._batch(3)
    given = training(squares, tmp_path / "b", labels, label_dropout=0.5).trainer._batch(3)
    for a, b in zip(plain[:3], given[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert plain[3] is None
    shown = {tuple(image.flatten().tolist()): i for i, image in enumerate(torch.tensor(squares))}
    for image, label in zip(given[0], given[3].tolist(), strict=True):
        pixels = tuple(((image + 1) * 127.5).round().int().flatten().tolist())
        assert label in (-1, labels[shown[pixels]])


def test_label_dropout_hides_its_share(squares: np.ndarray, training, tmp_path: Path) -> None:
    labels = np.arange(32) % 4
    trainer = training(squares, tmp_path, labels, label_dropout=0.25, batch_size=4000).trainer
    hidden = float((trainer._batch(0)[3] == -1).float().mean())
    assert abs(hidden - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_one_hot_columns() -> None:
    found = with_classes(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1, -1, 0]), 2)
    assert found.tolist() == [[2, 0, 1], [3, 0, 0], [4, 1, 0]]


def test_an_interrupt_waits_for_the_end_of_the_step(
    tmp_path: Path, squares: np.ndarray, training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the middle of step 4: the step is finished, and the state is that of an uninterrupted run after 4 steps."""
    stopped, whole = training(squares, tmp_path / "stopped"), training(squares, tmp_path / "whole")
    average = Trainer._average

    def interrupted(self: Trainer, decay: float) -> None:
        if self is stopped.trainer and self.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        average(self, decay)

    monkeypatch.setattr(Trainer, "_average", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, every=100)
    for _ in range(4):
        whole.step()
    saved = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)
    assert saved["step"] == 4
    same_weights(saved["average"], whole.trainer.average)


def test_the_learning_rate_warms_up_and_cools_down(squares: np.ndarray, small: dict) -> None:
    recipe = {**small, "steps": 90, "warmup": 10, "decay_from": 40, "cooldown": 1000, "learning_rate": 1.0}
    trainer = Trainer(msgspec.convert(recipe, Recipe), Dataset(squares[:, None]), CPU)
    rates = [trainer.learning_rate(step) for step in range(90)]
    assert rates[4] == pytest.approx(0.5)
    assert rates[20] == 1.0
    assert rates[54] == pytest.approx((40 / 55) ** 0.5)
    assert rates[75] == pytest.approx(0.5 * (40 / 76) ** 0.5)  # half-way through the last third
    assert rates[89] < 0.03


def test_a_loss_that_is_not_finite_ends_the_run_and_spoils_nothing(
    tmp_path: Path, squares: np.ndarray, training, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(squares, tmp_path)
    run.step()
    before = {name: tensor.clone() for name, tensor in run.trainer.network.state_dict().items()}
    monkeypatch.setattr(
        run.trainer, "_loss", lambda *_: sum(p.sum() for p in run.trainer.network.parameters()) * float("nan")
    )
    with pytest.raises(
        NumericsError, match=r"the loss is nan at step 2; lower learning_rate in the recipe \(it is 0.001\)"
    ):
        run.step()
    same_weights(before, run.trainer.network)
    assert run.done == 1


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, squares: np.ndarray, training) -> None:
    run = training(squares, tmp_path)
    run.step()
    run.save()
    before = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        next(run.trainer.network.parameters())[0] = float("inf")
    with pytest.raises(NumericsError, match="the weights are not finite at step 1; lower learning_rate"):
        run.save()
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_batch_that_does_not_fit_says_which_to_try(
    tmp_path: Path, squares: np.ndarray, training, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(squares, tmp_path)

    def too_large(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 133 GB")

    monkeypatch.setattr(run.trainer, "_loss", too_large)
    with pytest.raises(
        CapacityError, match=r"8 images at once do not fit in the memory of cpu; lower batch_size .*\(to 4\)"
    ):
        run.step()


def test_a_preview_is_drawn_in_smaller_batches_where_memory_runs_out(
    tmp_path: Path, squares: np.ndarray, training, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(squares, tmp_path, batch_size=30)
    _, expected = run.preview()
    forward, sizes = DenoisingUNet.forward, []

    def limited(self: DenoisingUNet, y: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        sizes.append(len(y))
        if len(y) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 133 GB")
        return forward(self, y, condition)

    monkeypatch.setattr(DenoisingUNet, "forward", limited)
    _, found = run.preview()
    assert max(sizes) == 30  # never more than a batch of training
    assert np.abs(found.astype(int) - expected).max() <= 1  # rounding depends on the batch size


def test_networks_that_do_not_fit(squares: np.ndarray, small: dict) -> None:
    def refuse(message: str, **network: object) -> None:
        recipe = as_recipe({**small, "network": network}, "r.yaml")
        with pytest.raises(DataError, match=message):
            Trainer(recipe, Dataset(squares[:, None]), CPU)

    refuse("image_size 8 is not a multiple of patch", patch=3)
    refuse("image_size 8 is not a multiple of patch", channels=[8] * 5)
    refuse(r"training this network takes at least \d.*GB, more than .* memory; lower", channels=[4096] * 10, blocks=64)


def test_a_place_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, squares: np.ndarray, gddim, config: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = gddim("train", config, "--data", tmp_path / "squares.npz", "--out", tmp_path / "file")
    assert result.status == OutputError.exit_code
    assert "file: cannot be written: there is a file where a folder is needed" in result.err
    (tmp_path / "run" / "state.pt").mkdir(parents=True)
    result = gddim("train", config, "--data", tmp_path / "squares.npz", "--out", tmp_path / "run")
    assert "state.pt: cannot be written: this is a folder, but a file is needed" in result.err


def test_other_images_labels_or_a_foreign_state_are_not_resumed(tmp_path: Path, squares: np.ndarray, training) -> None:
    run = training(squares, tmp_path)
    run.step()
    run.save()
    with pytest.raises(UsageError, match="other settings: images"):
        training(255 - squares, tmp_path)
    with pytest.raises(UsageError, match="other settings: class labels"):
        training(squares, tmp_path, np.arange(32) % 4)
    (tmp_path / "train.json").unlink()
    with pytest.raises(UsageError, match=r"state.pt: belongs to a run with other settings: network.blocks: 1 -> 2"):
        training(squares, tmp_path, network={"channels": [16], "blocks": 2, "embedding": 16})
    for foreign in ({"step": 1}, torch.zeros(3)):
        torch.save(foreign, tmp_path / "state.pt")
        with pytest.raises(DataError, match="not a training state of gddim"):
            training(squares, tmp_path)


def test_a_step_is_computed_without_tf32(tmp_path: Path, squares: np.ndarray, training, products) -> None:
    assert np.isfinite(training(squares, tmp_path / "run").step())
    assert products.on == 0
    assert products.off > 10


@pytest.mark.parametrize(
    ("side", "changes", "way"),
    [
        (302, {"batch_size": 64, "network": {"channels": [64], "blocks": 1, "embedding": 16}}, "lower batch_size to"),
        (8, {"batch_size": 65_536, "network": {"channels": [4096] * 3, "blocks": 1, "embedding": 16}}, "lower"),
        (
            1024,
            {"batch_size": 1, "network": {"channels": [8], "patch": 1}},
            "give smaller images, or raise network.patch",
        ),
    ],
)
def test_a_step_that_cannot_fit_is_refused_before_it_is_begun(
    training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, changes: dict, way: str
) -> None:
    monkeypatch.setattr("gddim_cli.training.trainer.physical_memory", lambda: 64 << 30)
    with pytest.raises(DataError, match=rf"takes at least .* GB, more than the 68.7 GB of memory; {way}"):
        training(np.zeros((2, side, side), np.uint8), tmp_path / "run", **changes)


@pytest.mark.parametrize("size", [8, 16])
def test_the_bound_on_what_a_step_keeps_is_a_lower_one(size: int) -> None:
    """Against what autograd keeps."""
    network = Network(channels=(16, 32), blocks=2, embedding=16)
    built = DenoisingUNet(1, size, 0.5, channels=[16, 32], blocks=2, embedding=16)
    own, kept = {p.untyped_storage().data_ptr() for p in built.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        built(torch.randn(4, 1, size, size), torch.ones(4))
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert found / 4 < 4 * 4 * least_activations(network, size) < 1.1 * found
