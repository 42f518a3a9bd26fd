"""From the README's first command to FID: a release is downloaded, becomes the default, and is measured.

Real here: the commands, an empty home, HTTP, the formats of all files, the size of the statistics, clean-fid's code. Stand-ins:
the released network is a small one of the same layout, Inception has random weights, and the statistics are those of noise.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import threading
import warnings

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gddim_cli.hub import store

FIRST = ("sample", "--nfe", 50, "--out", "imgs/")


class Layers(nn.Module):
    """Images [B, 3, 299, 299] in [-1, 1] to 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 13, stride=13)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(torch.relu(self.first(x)), 8).flatten(1)


class Inception(nn.Module):
    """The interface of inception-2015-12-05.pt with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        features = self.layers((nn.functional.interpolate(x, size=[299, 299]) - 128) / 128)
        return features if return_features else features[:, :1008]


def inception_file() -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Inception().eval()), buffer)
    return buffer.getvalue()


def statistics_file() -> bytes:
    """mu [2048] and sigma [2048, 2048], float64, as clean-fid publishes them: 34 MB."""
    buffer = io.BytesIO()
    np.savez(buffer, mu=np.full(2048, 0.4), sigma=np.eye(2048) * 0.01)
    return buffer.getvalue()


@pytest.fixture
def published(golden_file, tmp_path, monkeypatch):
    """The three files on a local server, and the catalogue with its addresses; an empty home and an empty folder to work in."""
    files = {
        "cld-cifar10.yaml": golden_file("ncsnpp_small_flax.msgpack").read_bytes(),
        "inception.file.yaml": inception_file(),
        "stats-cifar10-legacy-tensorflow.file.yaml": statistics_file(),
    }
    served, cards, work = (tmp_path / name for name in ("served", "cards", "work"))
    for folder in (served, cards, work):
        folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    bundled = store.bundled_folder()
    for path in bundled.iterdir():
        if path.name not in files:
            (cards / path.name).symlink_to(path)
    for name, content in files.items():
        card = yaml.safe_load((bundled / name).read_text())
        file = card["source"]["file"]
        (served / file).write_bytes(content)
        card["source"] = {"file": file, "format": card["source"]["format"], "size": len(content)}
        card["source"]["url"] = f"http://127.0.0.1:{server.server_port}/{file}"
        if card.get("kind") == "inception":
            card["source"]["sha256"] = hashlib.sha256(content).hexdigest()
        if name == "cld-cifar10.yaml":
            card["parameters"] = None
            card["network"] |= {"nf": 16, "num_res_blocks": 1}
        (cards / name).write_text(yaml.safe_dump(card))
    monkeypatch.setattr(store, "bundled_folder", lambda: cards)
    monkeypatch.setattr("gddim_cli.evaluation.extractors.lenet.bundled_folder", lambda: cards)
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GDDIM_MIRROR", raising=False)
    monkeypatch.chdir(work)
    yield work
    server.shutdown()
    server.server_close()


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_the_three_commands(gddim, published):
    first = gddim(*FIRST)
    assert first.status == 0, first.err
    digits = (published / "imgs" / "000042.png").read_bytes()

    download = gddim("download", "cld-cifar10")
    assert download.status == 0, download.err
    sample = gddim(*FIRST)
    assert sample.status == 0, sample.err
    assert "checkpoint: cld-cifar10 (the released CLD model" in sample.err
    assert "the images of mnist that were in imgs are now in" in sample.err
    run = run_of(published / "imgs")
    assert (run["settings"]["checkpoint"], run["num"], run["nfe"], run["complete"]) == ("cld-cifar10", 100, 50, True)
    assert (published / "imgs-mnist" / "000042.png").read_bytes() == digits
    assert run_of(published / "imgs-mnist")["settings"]["checkpoint"] == "mnist"

    fid = gddim("fid", "--ref", "cifar10")
    assert fid.status == 0, fid.err
    assert fid.out.startswith("FID@100 = ")
    assert "100 images show that everything works, not how good cld-cifar10 is" in fid.err
    assert (
        "2.2565, was measured on 50000 images; to measure it: gddim download cld-cifar10 --protocol gddim-paper && gddim sample"
        in fid.err
    )
    assert "strongly biased upwards" in fid.err

    again = gddim(*FIRST)
    assert "all 100 images are already in imgs" in again.err
    assert sorted(path.name for path in published.iterdir()) == ["imgs", "imgs-mnist"]


def test_a_new_default_and_the_runs_of_the_earlier_one(gddim, published):
    """A complete run makes room, once for each; one that lacks images, or is to have more, is continued; others are refused."""
    words = ("sample", "--nfe", 3, "--num", 2)
    for folder in ("same", "more", "other", "overwritten"):
        assert gddim(*words, "--out", folder).status == 0
    assert gddim("download", "cld-cifar10", "--without-fid").status == 0
    (published / "same-mnist").mkdir()
    same = gddim(*words, "--out", "same")
    assert same.status == 0, same.err
    assert run_of(published / "same")["settings"]["checkpoint"] == "cld-cifar10"
    assert run_of(published / "same-mnist-2")["settings"]["checkpoint"] == "mnist"
    more = gddim("sample", "--nfe", 3, "--num", 4, "--out", "more")
    assert more.status == 0, more.err
    assert "checkpoint: mnist (the run in more began with it and lacks images)" in more.err
    assert (run_of(published / "more")["settings"]["checkpoint"], run_of(published / "more")["num"]) == ("mnist", 4)
    other = gddim("sample", "--nfe", 4, "--num", 2, "--out", "other")
    assert other.status == 2
    assert "holds a run with other settings" in other.err
    assert gddim(*words, "--out", "overwritten", "--overwrite").status == 0
    assert run_of(published / "overwritten")["settings"]["checkpoint"] == "cld-cifar10"
    assert not (published / "overwritten-mnist").exists()
    named = gddim(*words, "--checkpoint", "mnist", "--out", "same-mnist-2")
    assert "all 2 images are already in" in named.err


def test_what_comes_with_the_default_model(gddim, published):
    def listed(*words):
        return [line.split("\t")[0] for line in gddim("download", *words, "--list").out.splitlines()]

    assert listed("cld-cifar10") == ["cld-cifar10", "stats-cifar10-legacy-tensorflow", "inception"]
    assert listed("cld-cifar10", "--without-fid") == ["cld-cifar10"]
    assert listed("cld-cifar10", "--with-fid") == ["cld-cifar10", "stats-cifar10-tf", "inception"]
    assert listed("cld-cifar10", "vp-cifar10") == ["cld-cifar10", "vp-cifar10"]
    assert listed("vp-cifar10") == ["vp-cifar10"]
