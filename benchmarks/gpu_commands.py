"""The part of benchmarks/gpu.py that runs gddim's commands, in separate processes, on the bundled model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from gpu_table import distance

import gddim_cli
from gddim_cli.images.quantize import Pixels
from gddim_cli.runs.storage.registry import open_storage

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")


@dataclass(frozen=True)
class Commands:
    """Runs of gddim on a device.

    Attributes:
        device: the value of `--device`.
        folder: the folder for everything that the runs write.
        num: number of images per run.
        nfe: network evaluations per image.
        steps: number of training steps.
    """

    device: str
    folder: Path
    num: int
    nfe: int
    steps: int

    def start(self, *words: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Starts a command with a separate cache, and with the gddim package that this program uses."""
        root = str(Path(gddim_cli.__file__).parent.parent)
        environment = {**os.environ, "GDDIM_HOME": str(self.folder / "home"), "PYTHONPATH": root}
        command = [sys.executable, "-m", *launcher, "gddim_cli", *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *words: object, launcher: tuple[str, ...] = ()) -> float:
        """Runs a command and returns the seconds that it took.

        Raises:
            RuntimeError: the command took more than 240 s, or failed. The message quotes the command's last error line.
        """
        started = time.perf_counter()
        process = self.start(*words, launcher=launcher)
        try:
            _, errors = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"gddim {words[0]} took more than 240 s") from None
        if process.returncode:
            told = [line for line in errors.splitlines() if line.startswith("gddim:")] or errors.splitlines() or ["?"]
            raise RuntimeError(f"gddim {words[0]} ended with status {process.returncode}: {told[-1]}")
        return time.perf_counter() - started

    def sample(self, out: str, device: str, format: str = "npz") -> list[object]:
        """The arguments of `gddim sample` for a run in the folder `out`."""
        words = ["sample", "--nfe", self.nfe, "--num", self.num, "--batch-size", max(1, self.num // 16), "--quiet"]
        return [*words, "--device", device, "--format", format, "--out", self.folder / out]

    def images(self, out: str) -> Pixels:
        """The images of a finished run."""
        return open_storage(self.folder / out, "npz").read(range(self.num))

    def beside(self, out: str) -> str:
        """Compares the images of a run with images made on the CPU."""
        if not (self.folder / "cpu").exists():
            self.run(*self.sample("cpu", "cpu"))
        rms, within = distance(self.images(out), self.images("cpu"))
        return f"RMS {rms:.3f} gray levels from the CPU's images, {100 * within:.2f} % of pixels within one"

    def two_processes(self) -> list[str]:
        """Makes a run with two processes, which share the device."""
        spent = self.run(
            *self.sample("two", f"{self.device}:0" if self.device == "cuda" else self.device), launcher=TORCHRUN
        )
        return [f"- two processes on one device, {self.num} images in {spent:.0f} s: {self.beside('two')}"]

    def killed(self) -> list[str]:
        """Kills a run on the device and completes it on the CPU."""
        out = self.folder / "killed"
        process = self.start(*self.sample("killed", self.device))
        deadline = time.monotonic() + 120
        while len(list(out.glob("images-*.npz"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        parts = list(out.glob("images-*.npz"))
        there = sum(len(np.load(part)["index"]) for part in parts)
        if (out / "manifest.json").exists() or not there:
            raise RuntimeError(f"the run was killed too early or too late, with {there} of {self.num} images")
        self.run(*self.sample("killed", "cpu"))
        return [f"- killed with {there} of {self.num} images, completed on the CPU: {self.beside('killed')}"]

    def train(self) -> list[str]:
        """Trains for a short time, and samples from the trained weights."""
        size, small = (8, {"channels": [16], "blocks": 1, "embedding": 16}) if self.steps < 100 else (28, {})
        draw = np.random.default_rng(0)
        np.savez(self.folder / "data.npz", draw.integers(0, 256, (256, size, size), dtype=np.uint8))
        recipe = {
            "name": "noise",
            "steps": self.steps,
            "batch_size": 8 if small else 128,
            "cooldown": 1,
            "network": small or {"channels": [64, 96]},
            "data": {"title": "Noise", "license": "CC0", "source": "benchmarks/gpu.py"},
        }
        (self.folder / "noise.yaml").write_text(yaml.safe_dump(recipe))
        data = ["--data", self.folder / "data.npz", "--device", self.device]
        spent = self.run("train", self.folder / "noise.yaml", *data, "--quiet", "--out", self.folder / "trained")
        words = ["sample", "--checkpoint", self.folder / "trained" / "noise.safetensors", "--nfe", 5, "--num", 4]
        self.run(*words, "--device", self.device, "--out", self.folder / "noise")
        return [
            f"- `gddim train`, {self.steps} steps: {spent:.0f} s, start and end included; the weights can be sampled"
        ]

    def tune(self) -> list[str]:
        """Fits a solver for a short time."""
        words = ["tune", "--nfe", 3, "--num", 2] if self.steps < 100 else ["tune", "--nfe", 5, "--num", 16]
        spent = self.run(*words, "--device", self.device)
        return [f"- `gddim {' '.join(map(str, words))}`: {spent:.0f} s"]
