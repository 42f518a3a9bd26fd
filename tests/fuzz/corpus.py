"""Good files of every kind that `gddim` reads, made once, from which the boundaries make bad ones."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
import yaml
from fuzz.harness import call
from PIL import Image
from safetensors.torch import save_file
from support import OWN_DIFFUSION, folder_of, pictures

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.models.networks.unet import DenoisingUNet

FORMATS = {
    "edm_small_vp.pkl": ["--card", "edm-baseline-cifar10-vp"],
    "edm_small_ve.pkl": ["--card", "edm-baseline-cifar10-ve"],
    "ncsnpp_small_flax.msgpack": ["--card", "cld-cifar10"],
    "ncsnpp_small_cldsgm.pth": ["--card", "cldsgm-cifar10"],
    "scoresde_small_ve.pth": ["--set", "sde=vesde", "--set", "sigma_max=50", "--set", "sigma_min=0.01"],
    "guided_small_uncond.pt": ["--set", "image_size=16", "--set", "num_heads=1", "--set", "noise_schedule=linear"],
    "improved_small_cosine4000.pt": ["--set", "image_size=16", "--set", "noise_schedule=cosine"],
}
"""Released formats, and the words with which `gddim convert` may read them."""

RECIPE = {
    "name": "squares",
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 0.001,
    "cooldown": 1,
    "seed": 3,
    "flip": True,
    "network": {"channels": [8], "blocks": 1, "embedding": 8, "patch": 2},
    "sigma": {"mean": -0.6, "std": 1.4, "min": 0.002, "max": 100.0},
    "data": {"title": "Squares", "license": "CC0", "source": "This test"},
}
PLAN = """\
checkpoint: small.safetensors
ref: mnist:test
nfe: [3, 4]
seeds: [0]
num: 4
order: 1
metric: fid
rows:
  - {sampler: gddim, order: 0}
  - {sampler: heun, nfe: 5}
  - {sampler: em, lambda: 0.5, diffusion: {name: cld, beta: 4.0}}
"""
DIFFUSION = "name: cld\nparameters:\n  beta_0: 4.0\n  beta_1: 0.0\n  m_inv: 4.0\n"


class Corpus:
    """Good files in one folder.

    Attributes:
        root: the folder; its `home` is the cache that commands had while they made the files.
    """

    def __init__(self, root: Path, golden: Callable[[str], Path]) -> None:
        self.root = root
        (root / "home").mkdir()
        self.checkpoint("tiny", 8)
        self.checkpoint("small", 28)
        self.pictures()
        for storage in ("png", "npz", "tar"):
            self.make(
                "sample",
                "--checkpoint",
                "tiny.safetensors",
                "--nfe",
                2,
                "-n",
                6,
                "--format",
                storage,
                "--out",
                f"run_{storage}",
            )
        (root / "squares.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
        draw = np.random.default_rng(0)
        labels = np.arange(8) % 2
        np.savez(root / "squares.npz", train_images=draw.integers(0, 256, (8, 8, 8), np.uint8), train_labels=labels)
        self.make("train", "squares.yaml", "--data", "squares.npz", "--out", "trained", "--every", 2)
        self.make("fid", "stats", "digits", "stats.npz", "--mode", "lenet")
        self.make("fid", "digits")
        (root / "plan.yaml").write_text(PLAN)
        (root / "diffusion.yaml").write_text(DIFFUSION)
        (root / "own.py").write_text(OWN_DIFFUSION)
        words = (
            "--checkpoint small.safetensors --ref mnist:test --nfe 3,4 -n 4 --sampler gddim --out benched --keep-images"
        )
        self.make("bench", *words.split())
        np.save(root / "noise.npy", draw.standard_normal((2, 2, 1, 8, 8), np.float32))
        self.make(
            "tune", "--checkpoint", "tiny.safetensors", "--nfe", 3, "-n", 2, "--batch-size", 2, "--out", "solver.json"
        )
        for name in FORMATS:
            shutil.copy(golden(name), root / name)
        self.pipeline()

    def make(self, *words: object) -> None:
        """Runs a command that has to succeed."""
        done = call(words, self.root, self.root)
        assert done.status == 0, (words, done)

    def checkpoint(self, name: str, size: int) -> None:
        """A checkpoint of random weights, gray images of this size."""
        network = {
            "image_channels": 1,
            "image_size": size,
            "sigma_data": 0.5,
            "channels": [8],
            "blocks": 1,
            "embedding": 8,
            "patch": 4,
        }
        torch.manual_seed(0)
        built = DenoisingUNet(**network)
        card = Card(
            name, "A test's network", Images(1, size), {"kind": "denoiser", **network}, "denoiser", {"name": "cld"}
        )
        native.write(self.root / f"{name}.safetensors", card, built.state_dict())

    def pictures(self) -> None:
        """Digits in a folder, in archives and in arrays."""
        images = pictures(8, 28, 1)
        folder = folder_of(self.root / "digits", images)
        with (
            zipfile.ZipFile(self.root / "digits.zip", "w") as packed,
            tarfile.open(self.root / "digits.tar", "w") as tar,
        ):
            for file in sorted(folder.iterdir()):
                packed.write(file, file.name)
                tar.add(file, file.name)
        np.savez(self.root / "digits.npz", images=images)
        np.savez_compressed(self.root / "packed.npz", images=images)
        np.save(self.root / "digits.npy", images)
        colour = Image.fromarray(pictures(1, 28, 3)[0])
        for ending in ("png", "jpg", "bmp", "webp", "tif"):
            colour.save(self.root / f"picture.{ending}")

    def pipeline(self) -> None:
        """A folder as diffusers leaves it, whose weights are missing parts: enough for its configuration to be read."""
        folder = self.root / "pipeline"
        for part, config in (
            ("", {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}),
            ("unet", {"_class_name": "UNet2DModel", "sample_size": 16, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
                      "block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
                      "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8}),
            ("scheduler", {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4,
                           "beta_end": 0.02, "prediction_type": "epsilon"}),
        ):  # fmt: skip
            (folder / part).mkdir(exist_ok=True)
            name = {"": "model_index.json", "unet": "config.json", "scheduler": "scheduler_config.json"}[part]
            (folder / part / name).write_bytes(msgspec.json.encode(config))
        save_file({"conv_in.weight": torch.zeros(32, 3, 3, 3)}, folder / "unet" / "diffusion_pytorch_model.safetensors")

    def copy(self, name: str, place: Path) -> Path:
        """A copy of a good file or folder in a case's folder."""
        source, target = self.root / name, place / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        return target


def png(image: np.ndarray) -> bytes:
    """A gray image as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
