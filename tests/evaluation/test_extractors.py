"""Every mode against clean-fid's own functions on the same files, with networks of the real interface and random weights.

The published weights are not here: a small TorchScript file with their interface stands in for two modes, pytorch-fid's
whole network with random weights for the third.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from support import folder_of, pictures

from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation.extractors import base, weights
from gddim_cli.evaluation.extractors.lenet import load_lenet
from gddim_cli.evaluation.extractors.registry import load_extractor
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.hub import store

from .test_frechet import cleanfid_distance

CPU = torch.device("cpu")
MODES = ["legacy_tensorflow", "clean", "legacy_pytorch"]


def cleanfid_features(folder: Path, mode: str, inception: Path, weights: Path) -> np.ndarray:
    """By clean-fid's own reader, resizer, network and wrapper, its downloads alone replaced."""
    from cleanfid import features, fid, inception_pytorch

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        wrapper = features.InceptionV3W
        patch.setattr(features, "InceptionV3W", lambda _, download, resize_inside: wrapper(
            str(inception.parent), download=False, resize_inside=resize_inside))  # fmt: skip
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
        model = features.build_feature_extractor(mode, CPU, use_dataparallel=False)
        return fid.get_folder_features(str(folder), model, 0, batch_size=5, device=CPU, mode=mode, verbose=False)


@pytest.mark.parametrize("mode", [*MODES[:2], pytest.param(MODES[2], marks=pytest.mark.slow)])
@pytest.mark.parametrize("channels", [3, 1])
def test_features_and_distance_are_cleanfids(
    mode: str, channels: int, inception: Path, pytorch_inception: Path, tmp_path: Path
) -> None:
    sets = [pictures(7, 32, channels, seed=seed) for seed in (1, 2)]
    extractor = load_extractor(mode, CPU, pytorch_inception if mode == "legacy_pytorch" else inception)
    ours = [extractor(images) for images in sets]
    folders = [folder_of(tmp_path / str(i), images) for i, images in enumerate(sets)]
    theirs = [cleanfid_features(folder, mode, inception, pytorch_inception) for folder in folders]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape == (7, 2048)
        assert np.abs(mine - other).max() <= 1e-4 * np.abs(other).max()
    # Their distance has no exact answer for fewer images than features: of the three that vary most it has.
    chosen = np.argsort(ours[0].var(axis=0))[-3:]
    a, b = (gaussian_of(mine[:, chosen]) for mine in ours)
    theirs_a, theirs_b = (gaussian_of(other[:, chosen]) for other in theirs)
    assert frechet_distance(a, b) == pytest.approx(cleanfid_distance(theirs_a, theirs_b), rel=1e-5)


def test_the_modes_differ(inception: Path) -> None:
    """So that the test above cannot pass by a mode that does nothing."""
    images = pictures(2)
    a, b = (load_extractor(mode, CPU, inception)(images) for mode in MODES[:2])
    assert np.abs(a - b).max() > 1e-2 * np.abs(a).max()


def test_another_network_is_not_called_inception(inception: Path) -> None:
    found = load_extractor("clean", CPU, inception)
    assert find_metric("fid").label(found) == "FD(inception-2015-12-05.pt)"
    assert found.sha256 == hashlib.sha256(inception.read_bytes()).hexdigest()


def test_the_published_weights_are_called_fid_and_verified(
    inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path))
    with pytest.raises(DataError, match="gddim download inception "):
        load_extractor("clean", CPU)
    with pytest.raises(DataError, match="gddim download inception-pytorch "):
        load_extractor("legacy_pytorch", CPU)
    place = tmp_path / "files" / store.file_card_of("inception").source.file
    place.parent.mkdir()
    place.write_bytes(inception.read_bytes())
    with pytest.raises(
        DataError, match=r"differs from f58cb9b6ec323ed6.* on its card; run gddim download inception again"
    ):
        load_extractor("clean", CPU)
    digest = hashlib.sha256(inception.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "pinned", lambda name: digest)
    found = load_extractor("clean", CPU)
    assert (found.name, find_metric("fid").label(found)) == ("inception", "FID")


@pytest.mark.parametrize(
    ("mode", "message"), [("clean", "not a TorchScript Inception"), ("legacy_pytorch", "state dict")]
)
def test_a_file_that_is_no_network_is_refused(mode: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for content in (b"", b"hello", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_extractor(mode, CPU, path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=message):
        load_extractor(mode, CPU, path)
    with pytest.raises(DataError, match=r"--inception: .*nowhere\.pt"):
        load_extractor(mode, CPU, tmp_path / "nowhere.pt")
    with pytest.raises(UsageError, match="did you mean 'clean'"):
        load_extractor("cleen", CPU)


def test_damaged_weights_show_in_the_features(inception: Path, tmp_path: Path) -> None:
    with base.quiet():
        module = torch.jit.load(inception)
        module.layers.first.weight.data[0, 0, 0, 0] = torch.nan
        module.save(str(tmp_path / "nan.pt"))
    with pytest.raises(DataError, match="NaN or infinite; the weights are damaged"):
        load_extractor("clean", CPU, tmp_path / "nan.pt")(pictures(2))


def test_lenet_takes_digits_only() -> None:
    lenet = load_lenet(CPU)
    assert find_metric("fid").label(lenet) == "FD(lenet-mnist)"
    images = pictures(5, 28, 1)
    features = lenet(images)
    assert features.shape == (5, 84)
    np.testing.assert_allclose(lenet(images[3:4])[0], features[3], rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match="32x32 with 3 channels, but the network takes 28x28 with 1"):
        lenet(pictures(1, 32, 3))
