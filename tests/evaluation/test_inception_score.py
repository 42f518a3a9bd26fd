"""The Inception Score against torchmetrics and torch-fidelity, from the same scores and from the same networks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import folder_of, pictures
from torch import Tensor, nn

from gddim_cli.errors import UsageError
from gddim_cli.evaluation.extractors import inception as inception_extractor
from gddim_cli.evaluation.extractors.inception import load_inception
from gddim_cli.evaluation.factory import EvaluatorFactory
from gddim_cli.evaluation.metrics.inception_score import pair_variance
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.hub import store
from gddim_cli.models.networks.lenet import LeNet

DATA = Path(__file__).parent.parent / "data"
CPU = torch.device("cpu")
SHAPE = (32, 32, 3)


def random_scores(n: int, classes: int = 7, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return 3 * draw.standard_normal((n, classes)) + np.linspace(0, 1, classes)


def score(scores: np.ndarray, splits: int) -> dict[str, float]:
    metric = find_metric(f"is:splits={splits}")
    return dict(metric.spec.compute(scores, None, metric.options, lambda _: None))


def torchmetrics_score(network: nn.Module, images: Tensor) -> float:
    """With one split: torchmetrics shuffles images at random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.inception import InceptionScore

        metric = InceptionScore(feature=network, splits=1).set_dtype(torch.float64)
        for batch in images.split(7):
            metric.update(batch)
        return float(metric.compute()[0])


@pytest.mark.parametrize("splits", [1, 4, 10])
def test_the_score_is_torch_fidelitys(splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    scores = random_scores(400)
    found = score(scores, splits)
    order = np.random.default_rng(0).permutation(400)  # the random parts
    theirs = isc_features_to_metric(torch.from_numpy(scores[order]), splits=splits, shuffle=False)
    assert found["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert found["split_deviation"] == pytest.approx(theirs["inception_score_std"], abs=1e-9)


def test_from_images_it_is_torchmetrics_of_the_networks_own_probabilities(inception: Path) -> None:
    """The published interface gives probabilities with `no_output_bias`; their logarithms are class scores."""
    images = pictures(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = torch.jit.load(inception)

    class Probabilities(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return base(x, no_output_bias=True).double().log()

    evaluator = EvaluatorFactory(CPU, SHAPE, inception=inception).open("is:splits=1")
    found = evaluator.evaluate(evaluator.extractor(images))
    theirs = torchmetrics_score(Probabilities(), torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float())
    assert found["value"] == pytest.approx(theirs, rel=1e-6)
    assert evaluator.label(40) == "IS(inception-2015-12-05.pt) (splits 1)@40"
    assert found["value"] > 1.5  # the bias would change it
    with_bias = torchmetrics_score(WithBias(base), torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float())
    assert abs(with_bias - theirs) > 1e-5


class WithBias(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.bases = [base]  # no submodule, which torchmetrics would bring to float64

    def forward(self, x: Tensor) -> Tensor:
        return self.bases[0](x).double().log()


@pytest.mark.slow
def test_pytorch_fids_weights_give_torch_fidelitys_score(pytorch_inception: Path) -> None:
    """From the features that its whole network, with random weights, gives together with the scores."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(pytorch_inception))
    images = pictures(4, 299)
    ours = load_inception("legacy_pytorch", CPU, pytorch_inception)
    with torch.inference_mode():
        features, scores = (x.numpy() for x in theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())))
    np.testing.assert_allclose(ours.class_scores(features), scores, atol=1e-5 * np.abs(scores).max())
    # It takes images in [0, 255] to (x - 128) / 128, pytorch-fid to x / 127.5 - 1.
    np.testing.assert_allclose(ours(images), features, atol=0.02 * np.abs(features).max())


def test_the_score_of_extreme_sets_is_known() -> None:
    """One class: 1. Each image surely of one of c classes, evenly: c."""
    assert score(np.tile([50.0, 0, 0], (100, 1)), 1)["value"] == pytest.approx(1, abs=1e-12)
    even = np.eye(5)[np.arange(500) % 5] * 1000
    found = score(even, 1)
    assert found["value"] == pytest.approx(5, rel=1e-12)
    assert found["low"] <= 5 <= found["high"]


def test_the_second_order_is_the_mean_over_pairs() -> None:
    scores = random_scores(30, 5)
    p = np.exp(scores - np.log(np.exp(scores).sum(1, keepdims=True)))
    q = p.mean(axis=0)
    h = -((p - q) / q) @ (p - q).T
    pairs = (h**2)[~np.eye(30, dtype=bool)].mean()
    assert pair_variance(p, q) == pytest.approx(pairs, rel=1e-12)
    assert pair_variance(p[:4], p[:4].mean(0)) > 0  # fewer images than classes


@pytest.mark.parametrize("splits", [1, 5])
def test_the_standard_error_is_that_of_repeated_draws(splits: int) -> None:
    found = [score(random_scores(400, seed=seed), splits) for seed in range(300)]
    values = np.array([one["value"] for one in found])
    errors = np.array([one["standard_error"] for one in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.15)
    held = np.mean([one["low"] <= values.mean() <= one["high"] for one in found])
    assert 0.91 <= held <= 0.985


def test_it_needs_no_reference_and_comes_from_the_same_features(
    gddim: Callable, inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    colour = folder_of(tmp_path / "colour", pictures(30))
    alone = gddim("fid", colour, "--metrics", "is:splits=2", "--inception", inception, "--json")
    assert alone.status == 0, alone.err
    said = json.loads(alone.out)
    assert (said["metric"], said["reference"], said["n"]) == ("IS(inception-2015-12-05.pt) (splits 2)", None, 30)
    assert said["low"] <= said["value"] <= said["high"]
    monkeypatch.setattr(inception_extractor, "bicubic", None)  # the features are there
    both = gddim("fid", colour, "--metrics", "fid,is:splits=2", "--ref", colour, "--inception", inception)
    assert both.status == 0, both.err
    lines = both.out.splitlines()
    assert lines[0].startswith("FD(inception-2015-12-05.pt)@30 = ")
    assert lines[1].startswith(f"IS(inception-2015-12-05.pt) (splits 2)@30 = {said['value']:.6g} (95 % interval ")
    assert "split deviation" in lines[1]


def test_digits_are_scored_by_the_bundled_classifier(
    gddim: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    sheet = np.asarray(Image.open(DATA / "mnist_test_200.png")).reshape(10, 28, 20, 28).swapaxes(1, 2)
    digits = sheet.reshape(200, 28, 28, 1)
    network = LeNet()
    network.load_state_dict(load_file(store.bundled_folder() / "lenet-mnist.safetensors"))

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return networks[0](x / 127.5 - 1).double()

    networks = [network.eval().requires_grad_(False)]  # no submodule, which torchmetrics would bring to float64
    theirs = torchmetrics_score(Scaled(), torch.from_numpy(digits.transpose(0, 3, 1, 2).copy()).float())
    np.save(tmp_path / "digits.npy", digits)
    found = gddim("fid", tmp_path / "digits.npy", "--metrics", "is:splits=1,fid", "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    assert said["value"] == pytest.approx(theirs, rel=1e-6)
    assert 6 < said["low"] < said["value"] < said["high"]
    assert [result["mode"] for result in said["results"]] == ["lenet-classes", "lenet"]
    assert [result["reference"] for result in said["results"]] == [None, "mnist"]


def test_a_network_without_class_scores_is_refused(inception: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = torch.jit.load(inception)

        class Bare(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = whole.layers

            def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
                return self.layers(x)

        torch.jit.script(Bare()).save(str(tmp_path / "bare.pt"))
    with pytest.raises(UsageError, match=r"--metrics is: needs class scores, which bare\.pt does not give"):
        EvaluatorFactory(CPU, SHAPE, inception=tmp_path / "bare.pt").open("is")
