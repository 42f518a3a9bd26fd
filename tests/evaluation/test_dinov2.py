"""FD-DINOv2: the resize against Pillow and torchvision, the network against its equations, the distance against torchmetrics.

The published weights are not here: files of their layout with random weights stand in, a small one and one of the real size.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import folder_of, pictures
from torch import Tensor, nn

from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation.extractors import weights
from gddim_cli.evaluation.extractors.dinov2 import MEAN, STD, load_dinov2, positions, resized
from gddim_cli.evaluation.factory import EvaluatorFactory
from gddim_cli.hub import store

CPU = torch.device("cpu")


def published_layout(width: int, depth: int, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the names and with the shapes of dinov2_vitl14_pretrain.pth (there: 1024 wide, 24 blocks)."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + 37 * 37, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        shapes |= {f"blocks.{i}.{name}.{kind}": (width,) for name in ("norm1", "norm2") for kind in ("weight", "bias")}
        shapes |= {f"blocks.{i}.{name}.gamma": (width,) for name in ("ls1", "ls2")}
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    generator = torch.Generator().manual_seed(seed)
    scales = {
        name: (shape[-1] if len(shape) == 2 else 588 if len(shape) == 4 else 1) ** -0.5
        for name, shape in shapes.items()
    }
    return {name: torch.randn(shape, generator=generator) * scales[name] for name, shape in shapes.items()}


class Equations(nn.Module):
    """Features of uint8 images by torchvision's transforms and the equations of a vision transformer, float64."""

    num_features = 64

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.depth = len([name for name in state if name.endswith("ls1.gamma")])

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def forward(self, images: Tensor) -> Tensor:
        from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

        transform = Compose([Resize((224, 224), InterpolationMode.BICUBIC), ToTensor(), Normalize(MEAN, STD)])
        x = torch.stack([transform(Image.fromarray(image.numpy())) for image in images.permute(0, 2, 3, 1)]).double()
        kernel = self.state["patch_embed.proj.weight"]
        patches = x.unfold(2, 14, 14).unfold(3, 14, 14)  # [N, 3, 16, 16, 14, 14]
        tokens = torch.einsum("nchwij,dcij->nhwd", patches, kernel).flatten(1, 2) + self.state["patch_embed.proj.bias"]
        token = self.state["cls_token"].expand(len(x), -1, -1)
        y = torch.cat([token, tokens], 1) + torch.from_numpy(bicubic_positions(self.state["pos_embed"].numpy()))
        for i in range(self.depth):
            block = f"blocks.{i}"
            q, k, v = (
                self.linear(self.norm(y, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(2, (3, -1, 64)).unbind(2)
            )
            weights = torch.einsum("nahd,nbhd->nhab", q, k).div(8).softmax(-1)
            heads = torch.einsum("nhab,nbhd->nahd", weights, v).flatten(2)
            y = y + self.linear(heads, f"{block}.attn.proj") * self.state[f"{block}.ls1.gamma"]
            hidden = self.linear(self.norm(y, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            y = y + self.linear(hidden, f"{block}.mlp.fc2") * self.state[f"{block}.ls2.gamma"]
        return self.norm(y[:, 0], "norm")


def bicubic_positions(embedding: np.ndarray) -> np.ndarray:
    """The position embedding for 16x16 patches: Keys' cubic (a = -3/4) at `(i + 1/2) 37 / 16.1 - 1/2`, without antialiasing."""
    a, side = -0.75, 37

    def cubic(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    at = (np.arange(16) + 0.5) * side / 16.1 - 0.5
    matrix = np.zeros((16, side))
    for i, centre in enumerate(at):
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(j, 0), side - 1)] += cubic(np.array(centre - j))
    square = embedding[0, 1:].reshape(side, side, -1)
    small = np.einsum("ir,jc,rcd->ijd", matrix, matrix, square).reshape(1, 256, -1)
    return np.concatenate([embedding[:, :1], small], 1)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if `gddim download dinov2` had brought a small file of the published layout, under its pinned sha256."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "files" / store.file_card_of("dinov2").source.file
    place.parent.mkdir(parents=True)
    torch.save(published_layout(64, 2), place)
    digest = weights.sha256(place)
    monkeypatch.setattr(weights, "pinned", lambda _: digest)
    return place


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (64, 3), (224, 3), (300, 3)])
def test_images_are_resized_as_pillow_and_torchvision_do_pixel_by_pixel(size: int, channels: int) -> None:
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

    images = np.concatenate([pictures(3, size, channels), np.random.default_rng(0).integers(
        0, 256, (2, size, size, channels), np.uint8)])  # fmt: skip
    large = resized(images)
    assert (large.dtype, large.shape) == (torch.uint8, (5, channels, 224, 224))
    ours = (large.expand(-1, 3, -1, -1).float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    transform = Compose([Resize((224, 224), InterpolationMode.BICUBIC), ToTensor(), Normalize(MEAN, STD)])
    for image, mine, normal in zip(images, large, ours, strict=True):
        picture = Image.fromarray(image if channels == 3 else image[..., 0]).convert("RGB")
        exact = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(mine.expand(3, -1, -1).permute(1, 2, 0), exact)
        np.testing.assert_allclose(normal, transform(picture), atol=1e-6)


def test_positions_are_resized_as_the_authors_do() -> None:
    embedding = published_layout(64, 1)["pos_embed"].double()
    np.testing.assert_allclose(positions(embedding), bicubic_positions(embedding.numpy()), atol=1e-9)
    small = torch.randn(1, 257, 8)
    assert positions(small) is small


def test_features_are_the_normalised_class_token(fetched: Path) -> None:
    extractor = load_dinov2(CPU)
    assert (extractor.name, extractor.mode, extractor.dimension) == ("dinov2-vitl14", "dinov2", 64)
    equations = Equations(torch.load(fetched))
    for images in (pictures(3), pictures(2, 28, 1)):
        theirs = equations(torch.from_numpy(np.repeat(images, 3 // images.shape[3], 3).transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(extractor(images), theirs, atol=2e-5)


def test_the_distance_is_torchmetrics_of_the_same_network(fetched: Path, tmp_path: Path) -> None:
    """torchmetrics reads images by torchvision and runs the equations; only the distance of the command is compared.

    Plain images are far from the others, so that the network's rounding in float32 is small beside the distance.
    """
    plain = np.random.default_rng(2).integers(0, 256, (160, 1, 1, 3), np.uint8)
    sets = [pictures(150, 8, seed=1), plain.repeat(8, axis=1).repeat(8, axis=2)]
    equations = Equations(torch.load(fetched))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import FrechetInceptionDistance

        theirs = FrechetInceptionDistance(feature=equations, normalize=False).set_dtype(torch.float64)
        for images, real in zip(sets, (False, True), strict=True):
            for batch in torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).split(50):
                theirs.update(batch, real=real)
        exact = float(theirs.compute())
    reference = folder_of(tmp_path / "reference", sets[1])
    evaluator = EvaluatorFactory(CPU, (8, 8, 3), features_of=lambda source, network: network(source.read_all())).open(
        "dino", str(reference)
    )
    found = evaluator.evaluate(evaluator.extractor(sets[0]))
    assert found["value"] == pytest.approx(exact, rel=1e-6)
    assert found["low"] < found["value"] < found["high"]
    assert evaluator.label(150) == "FD-DINOv2@150"
    assert not [
        note for note in evaluator.notes(evaluator.extractor(sets[0]), (8, 8, 3)) if "cannot be compared" in note
    ]


def test_the_command_measures_it_beside_others_and_writes_references(
    gddim: Callable, fetched: Path, tmp_path: Path
) -> None:
    digits = folder_of(tmp_path / "digits", pictures(20, 28, 1))
    train = folder_of(tmp_path / "train", pictures(20, 28, 1, seed=1))
    assert gddim("fid", "stats", train, tmp_path / "dino.npz", "--mode", "dinov2").status == 0
    found = gddim("fid", digits, "--metrics", "fid,dino,kid", "--ref", train, "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    assert [result["metric"] for result in said["results"]] == ["FD(lenet-mnist)", "FD-DINOv2", "KID(lenet-mnist)"]
    assert [result["mode"] for result in said["results"]] == ["lenet", "dinov2", "lenet"]
    assert said["results"][1]["weights_sha256"] == weights.sha256(fetched)
    own = gddim("fid", digits, "--metrics", "dino", "--ref", tmp_path / "dino.npz", "--json")
    assert json.loads(own.out)["value"] == pytest.approx(said["metrics"]["dino"]["value"], rel=1e-9)
    other = gddim("fid", digits, "--mode", "dinov2", "--ref", train)
    assert other.out.startswith("FD(dinov2-vitl14)@20 = ")
    assert "is not FID" in other.err
    cases = [
        (("--metrics", "dino"), 2, "--ref: needed with --mode dinov2, for which there is no built-in reference"),
        (("--metrics", "dino", "--ref", "mnist"), 2, "--ref mnist: was made with lenet, not with --mode dinov2"),
        (
            ("--mode", "dinov2", "--inception", "x.pt", "--ref", train),
            2,
            "mode dinov2 uses another network than Inception",
        ),
        (("--metrics", "fid,dino", "--protocol", "edm"), 2, "--metrics dino: is measured in mode dinov2"),
        (("--metrics", "fid,dino", "--ref", train, "--save-stats", tmp_path / "o.npz"), 2, "features of one network"),
    ]
    for words, status, message in cases:
        refused = gddim("fid", digits, *words)
        assert (refused.status, message in refused.err) == (status, True), refused.err


def test_files_of_another_layout_are_refused(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = published_layout(64, 2)
    wrong: list[object] = [
        {},
        "hello",
        {"cls_token": torch.zeros(3)},
        {name: tensor for name, tensor in state.items() if name != "norm.bias"},
        {**state, "register_tokens": torch.zeros(1, 4, 64)},
        {**state, "pos_embed": torch.zeros(1, 7, 64)},
    ]
    for content in wrong:
        torch.save(content, fetched)
        digest = weights.sha256(fetched)
        monkeypatch.setattr(weights, "pinned", lambda _, digest=digest: digest)
        with pytest.raises(DataError, match="not the state dict of DINOv2") as refused:
            load_dinov2(CPU)
        assert len(str(refused.value).splitlines()) == 1


def test_missing_weights_and_a_missing_timm_are_named(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models.vision_transformer", None)
    with pytest.raises(UsageError, match=r"needs the package timm; install it with: pip install 'gddim\[dino\]'"):
        load_dinov2(CPU)
    shutil.copy(fetched, fetched.with_suffix(".other"))
    fetched.write_bytes(fetched.read_bytes() + b"\0")
    with pytest.raises(DataError, match="gddim download dinov2 again"):
        load_dinov2(CPU)
    fetched.unlink()
    with pytest.raises(DataError, match="gddim download dinov2 "):
        load_dinov2(CPU)


@pytest.mark.slow
def test_a_file_of_the_real_size_is_the_real_layout_and_runs(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published file has 1 217 586 395 bytes: 304 368 640 numbers, and about 340 bytes for each tensor."""
    state = published_layout(1024, 24)
    numbers = sum(tensor.numel() for tensor in state.values())
    assert numbers == 304_368_640
    assert 0 < store.file_card_of("dinov2").source.size - 4 * numbers < 400 * len(state)
    torch.save(state, fetched)
    digest = weights.sha256(fetched)
    monkeypatch.setattr(weights, "pinned", lambda _: digest)
    features = load_dinov2(CPU)(pictures(2))
    assert features.shape == (2, 1024)
    theirs = Equations(state)(torch.from_numpy(pictures(2).transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(features, theirs, atol=2e-3 * np.abs(theirs).max())
