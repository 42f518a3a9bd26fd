"""`--features`: a network of one's own, from a Python file or as TorchScript, and what is wrong with one, in one line."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import folder_of, pictures
from torch import Tensor, nn

from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.runtime.user_file import LOADED

DOCS = Path(__file__).parent.parent.parent / "docs" / "fid.md"

MINE = """
import torch

class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor({scale}))
        self.dropout = torch.nn.Dropout()

    def forward(self, images):
        parts = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return self.dropout(parts * self.scale / 255)

def build(device):
    return Means()

def function(device):
    return lambda images: images.mean(dim=(2, 3))

def halves(device):
    return lambda images: images[..., :16].mean(dim=(2, 3))

def small_batches(device):
    def run(images):
        if len(images) > 8:
            raise ValueError("too many")
        return images.mean(dim=(2, 3))
    return run

def number(device):
    return 3

def failing(device):
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    return folder_of(tmp_path / "images", pictures(40)), folder_of(tmp_path / "train", pictures(50, seed=1))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE.format(scale=1.0))
    return path


def scripted(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def means(images: np.ndarray) -> np.ndarray:
    return (
        images.reshape(len(images), 2, 16, 2, 16, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(len(images), -1) / 255
    )


def test_a_distance_is_named_after_the_file(
    gddim: Callable, sets: tuple[Path, Path], mine: Path, tmp_path: Path
) -> None:
    words = ("fid", sets[0], "--ref", sets[1], "--features", f"{mine}:build")
    found = gddim(*words, "--metrics", "fid,kid,prdc", "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    exact = frechet_distance(gaussian_of(means(pictures(40))), gaussian_of(means(pictures(50, seed=1))))
    assert said["value"] == pytest.approx(exact, rel=1e-5)
    assert (said["metric"], said["mode"], said["network"]) == ("FD(mine.py:build)", "own", "mine.py:build")
    assert said["metrics"]["kid"]["metric"] == "KID(mine.py:build)"
    assert gddim(*words).out.startswith("FD(mine.py:build)@40 = ")
    function = gddim(*words[:-1], f"{mine}:function", "--json")
    assert json.loads(function.out)["metric"] == "FD(mine.py:function)"
    stats = tmp_path / "own.npz"
    assert gddim("fid", "stats", sets[1], stats, "--features", f"{mine}:build").status == 0
    again = gddim("fid", sets[0], "--ref", stats, "--features", f"{mine}:build", "--json")
    assert json.loads(again.out)["value"] == pytest.approx(said["value"], rel=1e-9)
    other = gddim("fid", sets[0], "--ref", stats, "--features", f"{mine}:function")
    assert "features of different networks are not comparable" in other.err + other.out or other.status == 1


def test_other_weights_are_another_network(gddim: Callable, sets: tuple[Path, Path], mine: Path) -> None:
    words = ("fid", sets[0], "--ref", sets[1], "--features", f"{mine}:build", "--json")
    first = json.loads(gddim(*words).out)
    assert json.loads(gddim(*words).out)["weights_sha256"] == first["weights_sha256"]
    mine.write_text(MINE.format(scale=2.0))
    second = json.loads(gddim(*words).out)
    assert second["weights_sha256"] != first["weights_sha256"]
    assert second["value"] == pytest.approx(4 * first["value"], rel=1e-5)


def test_functions_of_one_file_are_two_networks(gddim: Callable, sets: tuple[Path, Path], mine: Path) -> None:
    """Features of both have three numbers: what the first left in the cache must not serve the second."""
    found = [
        json.loads(gddim("fid", sets[0], "--ref", sets[1], "--features", f"{mine}:{name}", "--json").out)
        for name in ("function", "halves")
    ]
    assert found[0]["weights_sha256"] != found[1]["weights_sha256"]
    means = [pictures(40).mean((1, 2)), pictures(50, seed=1).mean((1, 2))]
    assert found[0]["value"] == pytest.approx(frechet_distance(*map(gaussian_of, means)), rel=1e-4)
    assert found[1]["value"] != pytest.approx(found[0]["value"], rel=1e-3)


def test_a_failure_after_the_trial_is_one_line_too(gddim: Callable, sets: tuple[Path, Path], mine: Path) -> None:
    found = gddim("fid", sets[0], "--ref", sets[1], "--features", f"{mine}:small_batches")
    assert found.status == 1
    assert (
        "mine.py:small_batches: fails on float32 images [50, 3, 32, 32] in [0, 255]: ValueError: too many" in found.err
    )


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("batch", ["trial", "later"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("None", "returned NoneType for float32 images"),
        ("iter(())", "returned tuple_iterator for"),
        ("good.numpy()", "returned ndarray for"),
        ("good.to('meta')", "returned a tensor without data (device meta) for"),
        ("good.to_sparse()", "returned a tensor of layout sparse_coo for"),
        ("torch.nested.nested_tensor([*good])", "returned a nested tensor for"),
        ("good.as_subclass(type('Own', (torch.Tensor,), {}))", "returned Own for"),
        ("good + 0j", "its features are not all finite real numbers (dtype torch.complex64)"),
        ("good.to(torch.float8_e5m2)", "its features are not all finite real numbers (dtype torch.float8_e5m2)"),
        ("images.mean()", "returned a tensor [] for"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("silent()", "Silent: Silent"),
        ("odd()", "raised Odd"),
    ],
)
def test_what_is_no_feature_is_refused_in_every_batch(
    gddim: Callable, sets: tuple[Path, Path], tmp_path: Path, code: str, message: str, batch: str
) -> None:
    (tmp_path / "bad.py").write_text(
        "import torch\n\nclass Odd(BaseException): pass\nclass Silent(Exception):\n    def __str__(self): return 5\n"
        "def odd(): raise Odd\ndef silent(): raise Silent\n\ndef build(device):\n    def run(images):\n"
        f"        good = images.mean(dim=(2, 3))\n        return good if len(images) < {40 * (batch == 'later')} else {code}\n"
        "    return run\n"
    )
    found = gddim("fid", sets[0], "--ref", sets[1], "--features", f"{tmp_path / 'bad.py'}:build")
    assert (found.status, message in found.last, "Traceback" in found.err) == (1, True, False), found.err


def test_a_network_without_weights_is_refused(gddim: Callable, sets: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "import torch\n\ndef build(device):\n    return torch.nn.Linear(3, 4, device='meta')\n"
    )
    found = gddim("fid", sets[0], "--ref", sets[1], "--features", f"{tmp_path / 'bad.py'}:build")
    assert (found.status, "bad.py: reading the network's weights raised" in found.last) == (1, True), found.err


def test_prints_defaults_and_gradients_of_a_network_do_no_harm(
    gddim: Callable, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "loud.py").write_text(
        "import torch\n\ntorch.set_default_dtype(torch.float64)\n\ndef build(device):\n    def run(images):\n"
        "        print('network')\n        return torch.nn.Parameter(images.double().mean(dim=(2, 3)))\n    return run\n"
    )
    words = ("fid", sets[0], "--ref", sets[1], "--features", f"{tmp_path / 'loud.py'}:build", "--json")
    found = gddim(*words)
    assert found.status == 0, found.err
    assert json.loads(found.out)["value"] > 0
    assert torch.get_default_dtype() == torch.float32


def test_a_torchscript_file_is_a_network(gddim: Callable, sets: tuple[Path, Path], tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) / 255

    path = scripted(tmp_path / "flat.pt", Flat())
    found = gddim("fid", sets[0], "--ref", sets[1], "--features", path, "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    exact = frechet_distance(gaussian_of(means(pictures(40))), gaussian_of(means(pictures(50, seed=1))))
    assert (said["metric"], said["value"]) == ("FD(flat.pt)", pytest.approx(exact, rel=1e-5))
    as_inception = gddim("fid", sets[0], "--ref", sets[1], "--inception", path)
    assert as_inception.status == 1
    assert "TorchScript without the submodule 'layers'" in as_inception.err
    assert "give any other network as --features" in as_inception.err


class Bad(nn.Module):
    """What `forward` may do wrong."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == 0:
            return x
        if self.kind == 1:
            return x.mean(dim=(2, 3)).mean(dim=0, keepdim=True)
        if self.kind == 2:
            return x.mean(dim=(2, 3)) * float("nan")
        if self.kind == 3:
            return x.mean(dim=(2, 3)).long()
        if self.kind == 4:
            return x.mean(dim=(2, 3)) - x.mean()
        if self.kind == 5:
            return torch.rand(len(x), 4)
        return x @ torch.ones(7, 7)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            0,
            r"returned a tensor \[3, 3, 32, 32\] for float32 images \[3, 3, 32, 32\] in \[0, 255\]; features \[3, d\] are",
        ),
        (1, r"returned a tensor \[1, 3\]"),
        (2, r"its features are not all finite real numbers"),
        (3, r"its features are not all finite real numbers \(dtype torch.int64\)"),
        (4, r"an image has different features alone and in a batch"),
        (
            5,
            r"an image has different features alone and in a batch; they must not depend on other images or on chance",
        ),
        (6, r"fails on float32 images \[3, 3, 32, 32\] in \[0, 255\]: .*mat1 and mat2"),
    ],
)
def test_a_wrong_network_is_told_in_one_line_before_any_work(
    gddim: Callable, sets: tuple[Path, Path], tmp_path: Path, kind: int, message: str
) -> None:
    path = scripted(tmp_path / "bad.pt", Bad(kind))
    found = gddim("fid", sets[0], "--ref", sets[1], "--features", path)
    assert (found.status, len(found.err.splitlines())) == (1, 1), found.err
    assert re.search(f"--features {re.escape(str(path))}: {message}", found.err), found.err
    assert not (tmp_path / "home" / "features").exists() or not list((tmp_path / "home" / "features").glob("*.npy"))


def test_wrong_files_and_options_are_named(
    gddim: Callable, sets: tuple[Path, Path], mine: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "broken.py").write_text("import nowhere")
    cases: list[tuple[tuple, int, str]] = [
        ((f"{mine}:nothing",), 1, "mine.py: defines no function 'nothing'"),
        ((f"{mine}:number",), 1, "mine.py:number: returned int; a network or a function is needed"),
        ((f"{mine}:failing",), 1, "mine.py: failing() raised RuntimeError: no weights here"),
        ((f"{tmp_path / 'broken.py'}:build",), 1, "broken.py: running it raised ModuleNotFoundError"),
        ((tmp_path / "nowhere.pt",), 1, "nowhere.pt: no such file; give a function in a Python file, mine.py:build"),
        ((tmp_path / "text.pt",), 1, "text.pt: not a TorchScript file"),
        ((mine,), 1, "mine.py: names no function in the file; give it as"),
        ((f"{mine}:build", "--mode", "clean"), 2, "--features: --mode chooses another network"),
        ((f"{mine}:build", "--protocol", "edm"), 2, "--features: --protocol chooses another network"),
        ((f"{mine}:build", "--inception", "x.pt"), 2, "--features: --inception chooses another network"),
        (
            (f"{mine}:build", "--metrics", "is"),
            2,
            "--metrics is: needs class scores, which mine.py:build does not give",
        ),
    ]
    for words, status, message in cases:
        found = gddim("fid", sets[0], "--ref", sets[1], "--features", *words)
        assert (found.status, message in found.err) == (status, True), (words, found.err)
        assert len(found.err.splitlines()) == 1
    bare = gddim("fid", sets[0], "--features", f"{mine}:build")
    assert (bare.status, "--ref: needed with --features" in bare.err) == (2, True), bare.err
    named = gddim("fid", sets[0], "--features", f"{mine}:build", "--ref", "cifar10")
    assert (named.status, "not with --features; features of" in named.err) == (2, True), named.err


def blocks_of_docs() -> dict[str, str]:
    """The Python files that docs/fid.md shows, by the name in their first line."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def test_the_metric_and_the_network_of_the_docs_run_as_they_are_shown(
    gddim: Callable, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    blocks = blocks_of_docs()
    assert set(blocks) == {"mean_shift.py", "colours.py"}
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
    assert len(blocks["mean_shift.py"].strip().splitlines()) <= 10
    try:
        found = gddim(
            "fid", sets[0], "--ref", sets[1], "--metrics", f"{tmp_path / 'mean_shift.py'},fid", "--features",
            f"{tmp_path / 'colours.py'}:build", "--json",
        )  # fmt: skip
        assert found.status == 0, found.err
        said = json.loads(found.out)
        assert said["metric_name"] in METRICS
        assert len(said["metric_sha256"]) == 64
        assert said["value"] > 0
        two = (tmp_path / "two.py").write_text(blocks["mean_shift.py"] + "\nOTHER = gddim.MetricSpec(name='o', title='o', "
                                               "lower_is_better=True, compute=compute)\n")  # fmt: skip
        assert two
        refused = gddim("fid", sets[0], "--ref", sets[1], "--metrics", tmp_path / "two.py")
        assert (refused.status, "defines 2 metrics; exactly one MetricSpec is needed" in refused.err) == (1, True)
    finally:
        METRICS.remove(said["metric_name"])
        LOADED.clear()
