"""Networks that turn uint8 images into features: Inception through clean-fid, and LeNet for digits."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.evaluation.protocols import Mode
from gddim_cli.evaluation.resize import bicubic
from gddim_cli.hub.store import bundled_folder, file_card_of, find_file
from gddim_cli.images.quantize import Pixels
from gddim_cli.models.networks.lenet import LeNet
from gddim_cli.models.networks.skip_init import SkipInit
from gddim_cli.runtime.files import replacing, sha256
from gddim_cli.runtime.rounding import rounding

LENET = "lenet-mnist"
FILES = {"legacy_tensorflow": "inception", "clean": "inception", "legacy_pytorch": "inception-pytorch"}
"""The names under which `gddim download` fetches the weights of each mode of FID."""
SIDE = 299
CARD = "gddim_classifier"


@dataclass(frozen=True)
class Extractor:
    """Images to features.

    Attributes:
        name: the network's name: `inception`, `inception-pytorch`, `lenet-mnist`, or the file's name.
        mode: how images are brought to the network's size and range.
        sha256: of the weights.
        dimension: d, the numbers in a feature.
        defines_fid: whether these are the published weights of Inception: only then may a distance be called FID.
        network: images [N, C, H, W] of numbers in [0, 255] on the device to features [N, d].
        channels: of the images that it takes; grey images are repeated to three.
        size: side of the images that it takes; None if it resizes them.
        device: the device that it runs on.
    """

    name: str
    mode: Mode
    sha256: str
    dimension: int
    defines_fid: bool
    network: Callable[[Tensor], Tensor]
    channels: int
    size: int | None
    device: torch.device

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Features, float32 [N, dimension], of uint8 images [N, H, W, C].

        Raises:
            DataError: images that the network does not take, or features that are not finite or of another dimension.
        """
        self.check(*images.shape[1:])
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(self.device)
        with torch.inference_mode(), rounding(tf32=False):
            features = self.network(pixels.expand(-1, self.channels, -1, -1).float()).flatten(1).float().cpu().numpy()
        if features.shape != (len(images), self.dimension):
            raise DataError(
                f"{self.name}: gives features {list(features.shape)} for {len(images)} images; "
                f"[{len(images)}, {self.dimension}] is needed: another network's file"
            )
        if not np.isfinite(features).all():
            raise DataError(f"{self.name}: its features are NaN or infinite; the weights are damaged, fetch them again")
        return features

    def check(self, height: int, width: int, channels: int) -> None:
        """Raises DataError for images that the network does not take."""
        if self.size is not None and (height, width, channels) != (self.size, self.size, self.channels):
            raise DataError(
                f"{self.name}: the images are {width}x{height} with {channels} channel{'s' * (channels != 1)}, it takes "
                f"{self.size}x{self.size} with {self.channels}; --ref cifar10, for example, measures any images with Inception"
            )


def load_extractor(mode: str, device: torch.device, file: Path | None = None) -> Extractor:
    """The Inception network of a mode of clean-fid, or that of `file`, which has the same interface.

    `legacy_tensorflow`: the network resizes (FID as TensorFlow, StyleGAN and EDM measure it). `clean`: Pillow's bicubic
    without quantisation before it. `legacy_pytorch`: bilinear, and pytorch-fid's port of the weights.

    Raises:
        UsageError: an unknown mode.
        DataError: the weights are not on this machine, or are not those of their card, or cannot be read.
    """
    if mode not in FILES:
        raise UsageError(f"--mode: there is no '{mode}'; {nearest(mode, FILES)}")
    path, digest = weights_of(FILES[mode], file)
    build = pytorch_inception if mode == "legacy_pytorch" else torchscript_inception
    network = build(path, mode, device)
    known = pinned(FILES[mode])
    published = file is None or bool(known and digest.startswith(known))
    name = FILES[mode] if file is None or published else file.name
    return Extractor(name, mode, digest, 2048, published, network, 3, None, device)  # type: ignore[arg-type]


def weights_of(name: str, file: Path | None) -> tuple[Path, str]:
    """The path and sha256 of the weights: `file`, or those that `gddim download` fetched, verified.

    Raises:
        DataError: missing, or changed since.
    """
    path = weights_path(name, file)
    try:
        digest = sha256(path)
    except OSError as error:
        raise DataError(f"--inception: {path}: cannot be read: {error.strerror}") from error
    expected = pinned(name)
    if file is None and not digest.startswith(expected):
        raise DataError(
            f"{path}: sha256 {digest[:16]}... is not its card's {expected[:16]}...; gddim download {name} again"
        )
    return path, digest


def weights_path(name: str, file: Path | None) -> Path:
    """The path of the weights: `file`, or in the cache.

    Raises:
        DataError: missing, or not a plain file.
    """
    path = file or find_file(name)
    if file and not file.is_file():
        raise DataError(f"--inception: {file}: {'not a plain file' if file.exists() else 'no such file'}")
    if path is None:
        raise DataError(
            f"the weights of {name} are not on this machine; get them with: gddim download {name} (without internet, on another "
            "machine), or measure digits offline with --ref mnist"
        )
    return path


def pinned(name: str) -> str:
    """The sha256 that the card of a published file states, or its beginning."""
    return file_card_of(name).source.sha256 or ""


def torchscript_inception(path: Path, mode: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The Inception of a TorchScript file through clean-fid's `InceptionV3W`, from any path and never downloaded.

    Raises:
        DataError: not TorchScript, or not Inception's interface.
    """
    from cleanfid.inception_torchscript import InceptionV3W

    inside = mode == "legacy_tensorflow"
    try:
        # InceptionV3W takes the folder and expects the name.
        with quiet(), tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "inception-2015-12-05.pt").symlink_to(path.absolute())
            network = InceptionV3W(folder, download=False, resize_inside=inside)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not a TorchScript Inception (inception-2015-12-05.pt, or a file with its interface): {first_line(error)}"
        ) from error
    network = network.to(device).eval()

    def run(x: Tensor) -> Tensor:
        try:
            return network(x if inside else bicubic(x, SIDE))
        except torch.jit.Error as error:
            raise DataError(f"{path}: the network fails on images: {str(error).strip().splitlines()[-1]}") from error

    return run


def pytorch_inception(path: Path, _mode: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """pytorch-fid's Inception, with weights from a state dict.

    Raises:
        DataError: not its state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = pytorch_architecture()
        network.load_state_dict(state)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise DataError(f"{path}: not pytorch-fid's Inception (a state dict): {first_line(error)}") from error
    network.fc = nn.Identity()
    network = network.to(device).eval()

    def run(x: Tensor) -> Tensor:
        large = fn.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False).clamp_(0, 255)
        return network(2 * (large / 255) - 1)

    return run


def pytorch_architecture() -> Any:
    """torchvision's Inception v3 with clean-fid's blocks where pytorch-fid's differs, without weights."""
    with quiet(), SkipInit():
        from cleanfid import inception_pytorch as blocks
        from torchvision.models import inception_v3

        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        for name, width, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(network, f"Mixed_{name}", blocks.FIDInceptionA(width, pool_features=pool))
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{name}", blocks.FIDInceptionC(768, channels_7x7=inner))
        network.Mixed_7b, network.Mixed_7c = blocks.FIDInceptionE_1(1280), blocks.FIDInceptionE_2(2048)
    return network


def first_line(error: Exception) -> str:
    """The first line of a library's message, or the error's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings of libraries about each other, which a user cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scaled(images: Pixels) -> Tensor:
    """uint8 [N, H, W, C] as [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def load_lenet(device: torch.device, path: Path | None = None) -> Extractor:
    """The bundled classifier of digits.

    Raises:
        DataError: its file is damaged.
    """
    path = path or bundled_folder() / f"{LENET}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        network = LeNet()
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: not the classifier that ships with gddim ({error}); install it again") from error
    network = network.to(device).eval().requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        return network.features(x / 127.5 - 1)

    return Extractor(LENET, "lenet", sha256(path), LeNet.dimension, False, run, 1, 28, device)


def write_classifier(path: Path, card: dict[str, Any], network: LeNet) -> None:
    """Writes a classifier with its card in the metadata, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary:
        save_file(network.state_dict(), temporary, metadata={CARD: msgspec.json.encode(card).decode()})
