"""Every bad input: one line that names it and the way out, the right exit status, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gddim_cli.images.render
from gddim_cli.checkpoints import native


@pytest.fixture
def refused(gddim, tiny: Path, tmp_path: Path):
    """Runs `gddim sample`, expects a refusal, and returns its line."""

    def run(*words: object, status: int = 2, checkpoint: object = tiny) -> str:
        out = tmp_path / "imgs"
        result = gddim("sample", "--checkpoint", checkpoint, "--out", out, "--nfe", 4, "--num", 2, *words)
        assert result.status == status, result.err
        assert result.out == ""
        assert result.err.startswith("gddim: ")
        assert result.err.count("\n") == 1, result.err
        assert not out.exists() or all(file.name == ".lock" for file in out.iterdir())
        return result.err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--nfe", 1],
            "--nfe: 1 is too few: the denoising step takes one, and 0 evaluations are not enough for one step",
        ),
        (["--nfe", 0], "--nfe: 0: expected a whole number from 1 to 100000"),
        (["--nfe", -3], "--nfe: -3: expected a whole number from 1 to 100000"),
        (["--nfe", "many"], "--nfe: 'many': expected a whole number"),
        (["--order", 4], "--order: 4: expected a whole number from 0 to 3"),
        (["--order", -1], "--order: -1: expected a whole number from 0 to 3"),
        (["--num", 0], "--num: 0: expected a whole number from 1 to 10000000"),
        (["--num", -5], "--num: -5: expected a whole number from 1 to 10000000"),
        (["--batch-size", 0], "--batch-size: 0: expected auto or a whole number from 1 to"),
        (["--seed", -1], "--seed: -1: expected a whole number of at least 0 and at most 18446744073709551615"),
        (["--k", "Q"], "--k: 'Q': expected one of R, L"),
        (["--dtype", "float8"], "--dtype: 'float8': expected fp32, fp64, bf16, fp16 or one of float32"),
        (["--device", "tpu"], "--device: 'tpu' is not one of auto, cpu, cuda, mps"),
        (["--format", "jpg"], "--format: there is no storage format 'jpg'; did you mean 'png'?"),
        (["--quantize", "up"], "--quantize: 'up': expected one of floor, round"),
        (
            ["--time-grid", "cubic"],
            "--time-grid: 'cubic': expected linear, quadratic, logsnr, rho, rho:P or a number above 0",
        ),
        (["--time-grid", 0], "--time-grid: 0: expected linear, quadratic, logsnr, rho, rho:P or a number above 0"),
        (["--t-end", 0], "--t-end: 0: expected a number above 0"),
        (["--t-end", 2], "--t-end: 2 is not between 0 and the start, 1"),
        (["--t-end", "nan"], "--t-end: nan: expected a number above 0"),
        (["--diffusion", "clb"], "there is no diffusion 'clb'; did you mean 'cld'?"),
        (["--trajectory", "film.avi"], "--trajectory: film.avi does not end in .gif, .webp, .mp4, .png"),
        (["--save-raw", "states.npz"], "--save-raw: states.npz does not end in .npy"),
        (["--odrer", 2], "No such option: --odrer"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_usage(refused, words, message: str) -> None:
    assert message in refused(*words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_cuda_where_there_is_none(refused) -> None:
    assert "--device cuda: torch finds no CUDA GPU on this machine; use --device cpu" in refused("--device", "cuda")


def test_unknown_checkpoints(refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    assert "there is no checkpoint 'mnits'; did you mean 'mnist'?" in refused(checkpoint="mnits", status=1)
    assert "no/such.safetensors: no such file; named checkpoints: " in refused(
        checkpoint="no/such.safetensors", status=1
    )
    assert "cld-cifar10 has not been downloaded; get it with: gddim download cld-cifar10" in refused(
        checkpoint="cld-cifar10", status=1
    )


def test_damaged_and_foreign_weights(refused, tiny: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    for size in (0, 5, 100, tiny.stat().st_size - 1):
        cut.write_bytes(tiny.read_bytes()[:size])
        assert "cut.safetensors: not a complete safetensors file" in refused(checkpoint=cut, status=1)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    assert "without gddim's card" in refused(checkpoint=foreign, status=1)
    pickled = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(3)}, pickled)
    assert "model.pt: not a checkpoint of a known format" in refused(checkpoint=pickled, status=1)
    torch.manual_seed(0)
    nan = load_file(tiny)
    nan["stem.weight"][0, 0, 0, 0] = float("nan")
    native.write(tmp_path / "nan.safetensors", native.read(tiny)[0], nan)
    assert "tensor stem.weight holds NaN or infinity" in refused(checkpoint=tmp_path / "nan.safetensors", status=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"channels": [32]}}, "tensor"),
        ({"network": {"blocks": 2}}, "is missing; the network of the card needs it"),
        ({"network": {"kind": "denoisr"}}, "an unknown network 'denoisr'; did you mean 'denoiser'?"),
        ({"network": {"depth": 3}}, "unknown field `depth`"),
        ({"network": {"patch": 3}}, "is not a multiple of patch"),
        ({"images": {"channels": 3, "size": 8}}, "its network has 1 input and 1 output channels of 8x8 pixels"),
        ({"diffusion": {"name": "cld", "beta": 4.0}}, "no parameter 'beta'"),
        ({"diffusion": {}}, "there is no diffusion ''"),
        ({"parameterization": "noise"}, "its card combines the network 'denoiser' with the parameterization 'noise'"),
        ({"titel": "x"}, "unknown field `titel`"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_card_that_contradicts_its_weights(refused, tiny: Path, tmp_path: Path, change, message: str) -> None:
    card, tensors = native.read(tiny)
    raw = msgspec.to_builtins(card)
    for key, value in change.items():
        raw[key] = {**raw[key], **value} if key == "network" else value
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path, metadata={native.CARD: json.dumps(raw)})
    error = refused(checkpoint=path, status=1)
    assert "wrong.safetensors" in error or "card of tiny" in error
    assert message in error


def test_noise_files(refused, tmp_path: Path) -> None:
    path = tmp_path / "noise.npy"

    def refuse(array: np.ndarray) -> str:
        np.save(path, array)
        return refused("--init-noise", path, status=1)

    assert "holds [2, 1, 8, 8]; [N, 2, 1, 8, 8] is needed" in refuse(np.zeros((2, 1, 8, 8), np.float32))
    assert "holds [0, 2, 1, 8, 8]" in refuse(np.zeros((0, 2, 1, 8, 8), np.float32))
    assert "holds NaN or infinity" in refuse(np.full((2, 2, 1, 8, 8), np.nan, np.float32))
    too_large = refuse(np.full((2, 2, 1, 8, 8), -1e300))
    assert "holds numbers as large as 1e+300, which float32 cannot hold" in too_large
    assert too_large.count("\n") <= 1
    assert "holds int64; float32 or float64 is needed" in refuse(np.zeros((2, 2, 1, 8, 8), np.int64))
    like_the_prior = np.ones((1, 2, 1, 8, 8), np.float32) * np.float32([1, 0.5]).reshape(2, 1, 1, 1)
    assert "holds 1 states, fewer than --num 2" in refuse(like_the_prior)
    path.write_bytes(b"not an array")
    assert "cannot be read as an .npy" in refused("--init-noise", path, status=1)
    assert "cannot be read as an .npy" in refused("--init-noise", tmp_path / "none.npy", status=1)


def test_a_folder_that_cannot_be_written(gddim, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = gddim("sample", "--checkpoint", tiny, "--nfe", 4, "--num", 2, "--out", tmp_path / "file" / "imgs")
    assert result.status == 1
    assert "file/imgs: cannot be written: a part of the path is a file" in result.err
    result = gddim("sample", "--checkpoint", tiny, "--nfe", 4, "--num", 2, "--out", tmp_path / "file")
    assert result.status == 1
    assert "there is a file where a folder is needed" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(refused, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "permission denied; choose another path" in refused(status=1)


def test_a_disk_that_fills(gddim, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """The third image does not fit: two stay whole, nothing half-written, and the run goes on when there is room."""
    real, written = gddim_cli.images.render.as_picture, []

    class Full:
        def save(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def as_picture(pixels: np.ndarray):
        written.append(1)
        return Full() if len(written) > 2 else real(pixels)

    words = ("sample", "--checkpoint", tiny, "--nfe", 4, "--num", 4, "--out", tmp_path / "imgs")
    monkeypatch.setattr(gddim_cli.images.render, "as_picture", as_picture)
    result = gddim(*words)
    assert result.status == 1
    assert "000002.png: cannot be written: the disk is full; free some space and rerun the same command" in result.err
    names = sorted(path.name for path in (tmp_path / "imgs").iterdir())
    assert names == [".lock", "000000.png", "000001.png", "run.json"]
    assert json.loads((tmp_path / "imgs" / "run.json").read_text())["complete"] is False
    monkeypatch.setattr(gddim_cli.images.render, "as_picture", real)
    assert gddim(*words).status == 0


def test_a_run_record_that_is_damaged(gddim, tiny: Path, tmp_path: Path) -> None:
    words = ("sample", "--checkpoint", tiny, "--nfe", 4, "--num", 2, "--out", tmp_path / "imgs")
    gddim(*words)
    (tmp_path / "imgs" / "run.json").write_text('{"gddim": ')
    result = gddim(*words)
    assert result.status == 1
    assert "run.json: cannot be read" in result.err
    assert "choose another folder, or remove this one" in result.err
    assert gddim(*words, "--overwrite").status == 1
