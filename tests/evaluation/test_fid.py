"""`gddim fid` as a person uses it: numbers, provenance, warnings, the cache, bad input, protocols."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import folder_of, pictures

from gddim_cli.errors import DataError
from gddim_cli.evaluation import features, references
from gddim_cli.evaluation import statistics as statistics_files
from gddim_cli.evaluation.extractors import weights
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.extractors.lenet import load_lenet
from gddim_cli.evaluation.extractors.registry import load_extractor
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.evaluation.protocols import PROTOCOLS
from gddim_cli.runs.images import open_images
from gddim_cli.runtime.distributed import World
from gddim_cli.runtime.row_file import RowFile

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "digits", pictures(60, 28, 1))


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "colour", pictures(12))


def run_json(folder: Path, quantize: str) -> Path:
    """What `gddim sample` leaves beside its images, as far as it is read here."""
    for i, file in enumerate(sorted(folder.glob("*.png"))):
        file.rename(folder / f"{i:06d}.png")
    n = len(list(folder.glob("*.png")))
    run = {"format": "png", "settings": {"quantize": quantize}, "num": n, "complete": True}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_the_number_is_the_distance_of_the_features(gddim: Callable, digits: Path) -> None:
    found = gddim("fid", digits, "--ref", "mnist", "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    lenet = load_lenet(torch.device("cpu"))
    reference = references.read_named("mnist", lenet)
    exact = frechet_distance(gaussian_of(lenet(pictures(60, 28, 1))), reference.gaussian)
    assert said["value"] == pytest.approx(exact, rel=1e-5)
    assert (said["metric"], said["n"], said["reference"], said["mode"]) == ("FD(lenet-mnist)", 60, "mnist", "lenet")
    assert (said["reference_n"], said["weights_sha256"]) == (60_000, lenet.sha256)
    assert set(said["versions"]) >= {"gddim", "torch", "numpy", "clean-fid"}
    assert "strongly biased" in found.err
    assert "is not FID and cannot be compared with published FID values" in found.err


def test_for_people_it_says_what_the_number_is(gddim: Callable, digits: Path) -> None:
    found = gddim("fid", digits)
    assert found.out.startswith("FD(lenet-mnist)@60 = ")
    assert "quantization unknown" in found.out
    assert "MNIST train" in found.out
    assert gddim("fid", run_json(digits, "floor"), "--num", 50).out.startswith("FD(lenet-mnist)@50 = ")
    assert "quantized by floor" in gddim("fid", digits).out


def test_num_of_sorted_images_is_a_fair_sample(gddim: Callable, tmp_path: Path) -> None:
    """Files are often sorted by class. The choice is said, in the text, in JSON and in a file of statistics."""
    dark, bright = pictures(200, 28, 1) // 3, pictures(200, 28, 1, seed=1) // 2 + 128
    images = folder_of(tmp_path / "sorted", np.concatenate([dark, bright]))
    whole = json.loads(gddim("fid", images, "--ref", images, "--json").out)
    few = json.loads(gddim("fid", images, "--ref", images, "--num", 150, "--json").out)
    folder_of(tmp_path / "dark", dark[:150])
    first = json.loads(gddim("fid", tmp_path / "dark", "--ref", images, "--json").out)
    assert whole["value"] < 1e-6
    assert few["value"] < 0.1 * first["value"]
    assert (few["n"], few["chosen_from"], "chosen_from" in whole) == (150, 400, False)
    shown = gddim("fid", images, "--ref", images, "--num", 150).out
    assert f"{images}, a fixed random subset of 150 of 400, " in shown
    assert gddim("fid", "stats", images, tmp_path / "stats.npz", "--num", 150).status == 0
    found = json.loads(gddim("fid", tmp_path / "dark", "--ref", tmp_path / "stats.npz", "--json").out)
    assert found["reference_title"] == f"a fixed random subset of 150 of 400 images of {images}"
    assert (found["reference_n"], found["metric"]) == (150, "FD(lenet-mnist)")
    run = gddim("fid", run_json(images, "floor"), "--num", 150, "--json")
    assert "chosen_from" not in json.loads(run.out)


def test_images_against_themselves_are_at_zero(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    found = json.loads(gddim("fid", digits, "--ref", digits, "--metrics", "fid,prdc", "--json").out)
    assert found["value"] == pytest.approx(0, abs=1e-8)
    perfect = {"precision": 1, "recall": 1, "density": pytest.approx(1, abs=0.3), "coverage": 1}
    expected = perfect | {"k": 5, "n": 60, "reference_n": 60, "value": 1, "metric": "precision(lenet-mnist)"}
    assert found["metrics"]["prdc"] == expected | {"label": "precision(lenet-mnist)@60"}
    for words in (
        ("stats", digits, tmp_path / "a.npz"),
        (digits, "--ref", "mnist", "--save-stats", tmp_path / "b.npz"),
    ):
        assert gddim("fid", *words).status == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = json.loads(gddim("fid", digits, "--ref", tmp_path / "a.npz", "--metrics", "fid,kid", "--json").out)
    assert found["value"] == pytest.approx(0, abs=1e-8)
    assert found["metrics"]["kid"]["value"] < 1e-3


def test_every_metric_of_the_list_is_there(gddim: Callable, tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", pictures(430, 28, 1))
    words = ("fid", tmp_path / "digits.npy", "--metrics", "kid,fid,fid-infinity,prdc:value=recall:k=3")
    found = gddim(*words)
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    labels = ["KID(lenet-mnist)", "FD(lenet-mnist)@430", "FD-infinity(lenet-mnist)", "recall(lenet-mnist) (k 3)@430"]
    assert [line.partition(" = ")[0] for line in lines[:4]] == labels
    assert all("95 % interval" in line for line in lines[:3])
    assert re.search(r"precision .*, recall .*, density .*, coverage .*, k 3, n 430, reference n 5000", lines[3])
    said = json.loads(gddim(*words, "--json").out)
    assert list(said["metrics"]) == ["kid", "fid", "fid-infinity", "prdc:value=recall:k=3"]
    assert (said["metric"], said["metric_name"]) == ("KID(lenet-mnist)", "kid")
    for name in ("value", "standard_error", "low", "high"):
        assert said[name] == said["metrics"]["kid"][name]
    assert said["metrics"]["prdc:value=recall:k=3"]["value"] == said["metrics"]["prdc:value=recall:k=3"]["recall"]
    assert said["metrics"]["fid"]["low"] < said["metrics"]["fid"]["value"] < said["metrics"]["fid"]["high"]


def test_a_second_call_is_instant_and_a_changed_folder_is_noticed(
    gddim: Callable, digits: Path, home: Path, calls: list[int]
) -> None:
    first = json.loads(gddim("fid", digits, "--json").out)["value"]
    calls.clear()
    assert json.loads(gddim("fid", digits, "--json").out)["value"] == first
    assert not calls
    shutil.copy(digits / "00000.png", digits / "00001.png")
    second = json.loads(gddim("fid", digits, "--json").out)["value"]
    assert calls == [60]
    assert second != first
    (damaged,) = [f for f in (home / "features").glob("*.npy") if f.stat().st_mtime == max(
        g.stat().st_mtime for g in (home / "features").glob("*.npy"))]  # fmt: skip
    damaged.write_bytes(damaged.read_bytes()[:500])
    assert json.loads(gddim("fid", digits, "--json").out)["value"] == second
    assert calls == [60, 60]
    assert gddim("fid", digits, "--no-cache").status == 0
    assert calls == [60, 60, 60]
    (partial,) = [damaged.with_name(f"{damaged.name}.features.partial")]
    damaged.unlink()
    partial.write_bytes(b"half of a header")
    assert json.loads(gddim("fid", digits, "--json").out)["value"] == second


@pytest.mark.parametrize("partial", [False, True])
def test_altered_features_are_noticed_and_measured_again(
    gddim: Callable, digits: Path, home: Path, calls: list[int], partial: bool
) -> None:
    """Of a finished file, and of one whose call was interrupted: only the rows that changed."""
    first = json.loads(gddim("fid", digits, "--json").out)["value"]
    (kept,) = (home / "features").glob("*.npy")
    features = np.load(kept, mmap_mode="r+")
    features[[3, 40, 59], [0, 83, 5]] = [1e6, np.nan, -1]
    features.flush()
    if partial:
        kept.rename(kept.with_name(f"{kept.name}.features.partial"))
    calls.clear()
    found = gddim("fid", digits, "--batch-size", 10, "--json")
    assert json.loads(found.out)["value"] == pytest.approx(first, rel=1e-6)
    assert calls == [10, 10, 10]
    assert not list((home / "features").glob("*.partial"))
    assert json.loads(gddim("fid", digits, "--json").out)["value"] == json.loads(found.out)["value"]
    assert calls == [10, 10, 10]


def test_a_foreign_picture_in_a_finished_run_is_noticed(gddim: Callable, tmp_path: Path) -> None:
    for kind in ("png", "npz", "tar"):
        run = tmp_path / kind
        words = ("sample", "--checkpoint", "mnist", "--nfe", 2, "--num", 6, "--format", kind, "--out", run)
        assert gddim(*words).status == 0
        whole = json.loads(gddim("fid", run, "--json").out)["value"]
        if kind == "png":
            Image.fromarray(pictures(1, 28, 1)[0, ..., 0]).save(run / "000004.png")
        else:
            (shard,) = run.glob(f"images-*.{kind}")
            shard.write_bytes(shard.read_bytes().replace(b"images.npy", b"images.npz", 1) + b"\0")
        found = gddim("fid", run)
        assert found.status == 1
        name = "000004.png" if kind == "png" else shard.name
        assert f"{run}: {name}: damaged, or not written by this run; rerun the same gddim sample command" in found.err
        if kind == "png":
            assert gddim("fid", run, "--num", 4).status == 0
            assert "000004.png: not written by this run" in gddim(*words).err
        assert gddim(*words, *(["--force"] if kind != "npz" else [])).status == 0
        assert json.loads(gddim("fid", run, "--json").out)["value"] == whole


def test_features_go_on_where_they_were_cut(
    gddim: Callable, digits: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = Extractor.__call__

    def cut(self: Extractor, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(Extractor, "__call__", cut)
    assert gddim("fid", digits, "--batch-size", 16).status == 130
    assert not list((home / "features").glob("*.npy"))
    whole = json.loads(gddim("fid", digits, "--batch-size", 20, "--json").out)["value"]
    assert calls == [16, 16, 16, 20, 20]
    assert json.loads(gddim("fid", digits, "--no-cache", "--json").out)["value"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, home: Path) -> None:
    """In the middle of the real program's work, twice; then it goes on to the end."""
    np.save(tmp_path / "digits.npy", np.tile(pictures(50, 28, 1), (100, 1, 1, 1)))
    out = tmp_path / "s.npz"
    words = [sys.executable, "-m", "gddim_cli", "fid", "stats", str(tmp_path / "digits.npy"), str(out)]

    def written() -> list[int]:
        return [file.stat().st_mtime_ns for file in (home / "features").glob("*.partial")]

    for _ in range(2):
        before = written()
        process = subprocess.Popen([*words, "--batch-size", "1"], stderr=subprocess.PIPE, text=True)
        while process.poll() is None and written() == before:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 130, error
        assert error.splitlines()[-1] == "gddim: interrupted; finished work is kept; rerun the same command to resume"
        assert not out.exists()
    assert not [file for file in (*tmp_path.iterdir(), *(home / "features").iterdir()) if file.suffix == ".tmp"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert statistics_files.is_statistics(out)


def test_without_weights_it_says_which_command_would_help(gddim: Callable, colour: Path, digits: Path) -> None:
    cases = {
        ("--ref", "cifar10"): "gddim download stats-cifar10-legacy-tensorflow",
        ("--ref", "cifar10:test", "--mode", "clean"): "gddim download stats-cifar10-clean-test",
        ("--protocol", "gddim-paper"): "gddim download stats-cifar10-tf",
        ("--protocol", "edm"): "gddim download stats-cifar10-edm",
        ("--ref", str(colour)): "gddim download inception ",
        ("--ref", str(colour), "--mode", "legacy_pytorch"): "gddim download inception-pytorch ",
        (): "gddim download stats-cifar10-legacy-tensorflow",
    }
    for words, command in cases.items():
        found = gddim("fid", colour, *words)
        assert found.status == 1
        assert command in found.err + " ", words
    found = gddim("fid", colour, "--ref", "mnist")
    assert "32x32 with 3 channels, but the network takes 28x28 with 1" in found.err


def fetched(home: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    """As if `gddim download name` had brought these arrays."""
    from gddim_cli.hub import store

    place = home / "files" / store.file_card_of(name).source.file
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(place, **arrays)


@pytest.mark.slow
def test_protocols_fix_reference_mode_quantisation_and_count(
    gddim: Callable, colour: Path, home: Path, inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = home / "files" / "inception-2015-12-05.pt"
    published.parent.mkdir(parents=True)
    shutil.copy(inception, published)
    digest = load_extractor("clean", torch.device("cpu"), inception).sha256
    monkeypatch.setattr(weights, "pinned", lambda name: digest)
    draw = np.random.default_rng(0).random((2100, 2048)).astype(np.float32)
    moments = {"mu": draw.mean(0), "sigma": np.cov(draw, rowvar=False)}
    fetched(home, "stats-cifar10-tf", {"pool_3": draw})
    fetched(home, "stats-cifar10-edm", moments)
    fetched(home, "stats-cifar10-clean", moments)
    values = {}
    for name, protocol in PROTOCOLS.items():
        found = json.loads((done := gddim("fid", colour, "--protocol", name, "--json")).out)
        assert (found["metric"], found["protocol"], found["mode"]) == ("FID", name, protocol.mode)
        assert found["reference"] == protocol.ref
        assert f"protocol {name} requires 50000 images; there are 12" in done.err
        assert f"is unknown (no run.json); protocol {name} requires {protocol.quantize}" in done.err
        values[name] = found["value"]
    assert values["gddim-paper"] == pytest.approx(values["edm"], rel=1e-6)
    assert values["clean"] != pytest.approx(values["edm"], rel=1e-3)
    found = gddim("fid", run_json(colour, "floor"), "--protocol", "edm")
    assert (found.status, "--quantize round" in found.err) == (2, True)
    assert "unknown" not in gddim("fid", colour, "--protocol", "gddim-paper").err
    found = gddim("fid", colour, "--ref", "cifar10-edm", "--metrics", "fid,kid")
    message = "--metrics kid: needs the reference's features, and cifar10-edm has only their mean and covariance"
    assert (found.status, message in found.err) == (2, True)
    assert json.loads(gddim("fid", colour, "--ref", "cifar10-tf", "--metrics", "kid", "--json").out)["value"] != 0
    for words in (("--ref", "cifar10"), ("--mode", "clean")):
        found = gddim("fid", colour, "--protocol", "gddim-paper", *words)
        assert (found.status, "fixes it to" in found.err) == (2, True)
    gray = folder_of(colour.parent / "gray", pictures(4, 28, 1))
    assert "the images are 28x28 gray, but those of the reference cifar10-edm are 32x32 RGB" in gddim(
        "fid", gray, "--ref", "cifar10-edm").err  # fmt: skip


@pytest.mark.slow
def test_another_network_is_never_called_fid(gddim: Callable, colour: Path, inception: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.npz"
    assert gddim("fid", "stats", colour, out, "--inception", inception, "--mode", "clean").status == 0
    found = gddim("fid", colour, "--ref", out, "--inception", inception)
    assert found.out.startswith("FD(inception-2015-12-05.pt)@12 = ")
    assert "mode clean" in found.out
    assert "is not FID" in found.err
    other = gddim("fid", colour, "--ref", out, "--inception", inception, "--mode", "legacy_tensorflow")
    assert (other.status, "features of different networks are not comparable" in other.err) == (1, True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(84), "sigma": np.eye(85)}, "sigma is [85, 85], but lenet-mnist gives features of 84 numbers"),
        ({"mu": np.zeros(2048), "sigma": np.eye(2048)}, "gives features of 84 numbers: these are another network's"),
        ({"pool_3": np.full((90, 84), np.nan)}, "features of 90 of 90 images are not finite"),
        ({"mu": np.full(84, np.nan), "sigma": np.eye(84)}, "mu or sigma holds NaN"),
        ({"mu": np.zeros(84), "sigma": np.triu(np.ones((84, 84)))}, "sigma is not symmetric"),
        ({"mu": np.zeros(84), "sigma": -np.eye(84)}, "has the negative eigenvalue -1"),
        ({"sigma": np.eye(84)}, "mu and sigma, or pool_3, are needed"),
        ({"mu": np.zeros(84), "sigma": np.full((84, 84), 1e308)}, "a covariance has infinite, NaN or impossibly large"),
        ({"pool_3": np.zeros(84)}, "pool_3 is float64[84]; real numbers with 2 axes are needed"),
        ({"pool_3": np.zeros((5, 1, 84))}, "pool_3 is float64[5, 1, 84]"),
        ({"pool_3": np.full((9, 84), "a")}, "pool_3 is <U1[9, 84]; real numbers"),
        ({"mu": np.zeros(84) * 1j, "sigma": np.eye(84)}, "mu is complex128[84]; real numbers"),
        ({"pool_3": np.zeros((1, 84))}, "ref.npz: 1 image: a covariance needs at least two"),
        ({"mu": np.zeros(84)}, "mu and sigma, or pool_3, are needed"),
        ({"mu": np.zeros(84), "sigma": np.zeros((84, 84))}, "all numbers are zero; the file is damaged"),
        ({"pool_3": np.zeros((90, 84))}, "all numbers are zero; the file is damaged"),
        ({"pool_3": np.array([None] * 84)}, "not a readable .npz: it holds Python objects"),
    ],
)
def test_a_bad_reference_is_named(gddim: Callable, digits: Path, tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "ref.npz", **arrays)
    found = gddim("fid", digits, "--ref", tmp_path / "ref.npz", "--mode", "lenet")
    assert found.status == 1
    assert message in found.err


def test_bad_calls_are_refused(
    gddim: Callable, digits: Path, colour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # without imgs/, which the README's first command makes
    one = folder_of(tmp_path / "one", pictures(1, 28, 1))
    odd = folder_of(tmp_path / "odd", pictures(3, 40, 3))
    cases: list[tuple[tuple, int, str]] = [
        ((one,), 1, "one: holds 1 image; a covariance needs at least two"),
        ((digits, "--ref", one), 1, "one: holds 1 image; a covariance needs at least two"),
        ((digits, "--num", 61), 1, "holds 60 images; lower --num"),
        ((digits, "--num", 1), 2, "--num: 1 is too few"),
        ((odd,), 2, "--ref: needed for images of 40x40 RGB"),
        ((digits, "--ref", "cifar"), 1, "did you mean 'cifar10'"),
        ((digits, "--protocol", "edn"), 2, "did you mean 'edm'"),
        (
            (digits, "--metrics", "fid,fid-infinity"),
            2,
            "--metrics fid-infinity: needs at least 420 images; there are 60",
        ),
        ((digits, "--metrics", "fidd"), 2, "--metrics: there is no metric 'fidd'; did you mean 'fid'"),
        ((digits, "--mode", "cleen"), 2, "--mode: there is no 'cleen'; did you mean 'clean'"),
        ((digits, "--ref", odd), 1, f"--ref {odd}: lenet-mnist: the images are 40x40 with 3 channels"),
        ((digits, "--mode", "clean"), 2, "--ref mnist: was made with lenet, not with --mode clean"),
        ((digits, "--inception", "x.pt"), 2, "is measured with lenet-mnist, not with Inception"),
        ((digits, colour), 2, "expected one set of images, not 2"),
        (("stats", digits), 2, "gddim fid stats IMAGES OUT.npz"),
        (("stats", digits, "out.txt"), 2, "out.txt does not end in .npz"),
        (("stats", digits, tmp_path / "o.npz", "--ref", "mnist"), 2, "takes no reference"),
        ((tmp_path / "nowhere",), 1, "nowhere"),
        ((digits, "--ref", ""), 2, "--ref: is empty; known: mnist"),
        ((digits, "--inception", "/dev/zero", "--mode", "clean", "--ref", digits), 1, "/dev/zero: not a plain file"),
        ((digits, "--batch-size", 10**20), 2, "--batch-size"),
        ((), 1, "imgs: no such folder; make images with gddim sample"),
    ]
    for words, status, message in cases:
        found = gddim("fid", *words)
        assert message in found.err, (words, found.err)
        assert found.status == status, words


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    from gddim_cli.evaluation.features import prune

    files = [tmp_path / f"{i}.npy" for i in range(4)]
    for age, file in enumerate(files):
        file.write_bytes(bytes(100))
        os.utime(file, (1000 + age, 1000 + age))
    prune(tmp_path, keep=files[0], limit=250)
    assert [file.exists() for file in files] == [True, False, False, True]


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    gddim: Callable, digits: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("a file where the folder should be")
    found = gddim("fid", digits)
    assert found.status == 0
    assert "features are not cached" in found.err


def test_a_process_that_is_ahead_takes_no_batch_from_another(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 of 2 begins when rank 0 has measured its share already, and measures its own share all the same."""
    source, extractor = open_images(digits), load_lenet(torch.device("cpu"))
    rows = RowFile(tmp_path / "two.npy", 60, (extractor.dimension,), "features", None, overwrite=False)
    rows.store(range(32), np.zeros((32, extractor.dimension)))

    class SecondOfTwo(World):
        def broadcast(self, _: object) -> tuple[RowFile, set[int]]:
            return rows, set()  # as rank 0 found it before it began

        def barrier(self, on_wait: object = None) -> None: ...

        def count(self, images: int = 0, at_once: bool = False) -> int:
            return images

    monkeypatch.setattr(features, "world", lambda: SecondOfTwo(1, 2))
    with pytest.raises(DataError, match="No such file"):  # rank 0 would have given it its name
        features.features_of(source, extractor, tmp_path, 4, lambda _: None)
    assert rows.done(60) == set(range(60))


@pytest.mark.slow
def test_processes_find_what_one_does_also_after_a_kill(
    gddim: Callable, tmp_path: Path, home: Path, ranks_of: Callable
) -> None:
    """Two begin, one of them is killed, three go on: the number of one."""
    np.save(tmp_path / "digits.npy", pictures(3000, 28, 1))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = ["-m", "--", "gddim_cli", "fid", str(tmp_path / "digits.npy"), "--batch-size", "2", "--json"]
    process = subprocess.Popen([*torchrun, "2", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((home / "features").glob("*.partial")):
        time.sleep(0.01)
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not list((home / "features").glob("*.npy"))
    done = subprocess.run([*torchrun, "3", *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    one = json.loads(gddim("fid", tmp_path / "digits.npy", "--batch-size", 2, "--no-cache", "--json").out)["value"]
    assert json.loads(done.stdout)["value"] == pytest.approx(one, rel=1e-9)


@pytest.mark.slow
def test_digits_then_samples_then_noise(gddim: Callable, tmp_path: Path) -> None:
    """The order in which any distance must put 200 digits of MNIST's test set, 200 samples, and noise."""
    sheet = np.asarray(Image.open(DATA / "mnist_test_200.png"))
    digits = sheet.reshape(10, 28, 20, 28).swapaxes(1, 2).reshape(200, 28, 28)
    np.save(tmp_path / "digits.npy", digits)
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, digits.shape, dtype=np.uint8))
    assert (
        gddim("sample", "--checkpoint", "mnist", "--nfe", 10, "--num", 200, "--out", tmp_path / "samples").status == 0
    )
    values = []
    for name in ("digits.npy", "samples", "noise.npy"):
        found = gddim("fid", tmp_path / name, "--ref", "mnist", "--json")
        assert found.status == 0, found.err
        values.append(json.loads(found.out)["value"])
    assert values[0] < 0.8 * values[1]
    assert values[1] < 0.2 * values[2]


def test_images_that_change_while_they_are_measured_are_not_kept(
    gddim: Callable, digits: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Extractor.__call__

    def changing(self: Extractor, images: np.ndarray) -> np.ndarray:
        shutil.copy(digits / "00000.png", digits / "00001.png")
        return original(self, images)

    monkeypatch.setattr(Extractor, "__call__", changing)
    found = gddim("fid", digits)
    assert (found.status, "has changed while it was measured" in found.err) == (1, True)
    assert not [file for file in (home / "features").iterdir() if file.suffix != ".lock"]
    assert gddim("fid", digits).status == 0


def test_statistics_are_written_over_no_input(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    data, stats = tmp_path / "data.npz", tmp_path / "stats.npz"
    np.savez(data, x=pictures(30, 28, 1))
    (tmp_path / "same.npz").hardlink_to(data)
    assert gddim("fid", "stats", digits, stats).status == 0
    assert gddim("fid", "stats", digits, stats).status == 0
    assert gddim("fid", "stats", data, stats, "--force").status == 0
    (tmp_path / "link.npz").hardlink_to(stats)
    cases = [
        ("stats", data, data),
        ("stats", data, data, "--force"),
        ("stats", data, tmp_path / "same.npz", "--force"),
        ("stats", digits, data),
        ("stats", digits, stats),
        (digits, "--ref", stats, "--save-stats", stats, "--force"),
        (digits, "--ref", stats, "--save-stats", tmp_path / "link.npz", "--force"),
    ]
    before = data.read_bytes(), stats.read_bytes()
    for words in cases:
        found = gddim("fid", *words)
        assert (found.status, "choose another name" in found.err) == (2, True), words
    assert before == (data.read_bytes(), stats.read_bytes())


def test_sorted_images_make_the_same_kernel_distance(
    gddim: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statistics file keeps a random choice of features: the first ones may all be of one class."""
    monkeypatch.setattr("gddim_cli.cli.fid_statistics.KEPT", 400)
    dark, bright = pictures(450, 28, 1) // 3, pictures(450, 28, 1, seed=1) // 2 + 128
    np.save(tmp_path / "sorted.npy", np.concatenate([dark, bright]))
    np.save(tmp_path / "mixed.npy", np.random.default_rng(0).permutation(np.concatenate([dark, bright])))
    assert gddim("fid", "stats", tmp_path / "sorted.npy", tmp_path / "stats.npz").status == 0
    found = json.loads(
        gddim("fid", tmp_path / "mixed.npy", "--ref", tmp_path / "stats.npz", "--metrics", "kid", "--json").out
    )
    np.save(tmp_path / "dark.npy", dark)
    apart = json.loads(
        gddim("fid", tmp_path / "mixed.npy", "--ref", tmp_path / "dark.npy", "--metrics", "kid", "--json").out
    )
    assert abs(found["value"]) < 0.05 * apart["value"]
    assert found["metrics"]["kid"]["size"] == 400


def test_images_all_alike_have_a_distance(gddim: Callable, tmp_path: Path) -> None:
    """A generator that has collapsed: rank 0, no traceback; with more images than features too."""
    for n in (50, 100):
        np.save(tmp_path / f"{n}.npy", np.repeat(pictures(1, 28, 1), n, axis=0))
        found = gddim("fid", tmp_path / f"{n}.npy", "--json")
        assert found.status == 0, found.err
        assert json.loads(found.out)["value"] > 10
    assert json.loads(gddim("fid", tmp_path / "50.npy", "--ref", tmp_path / "100.npy", "--json").out)["value"] < 1e-9


def test_a_file_that_does_not_say_its_mode_is_told_of(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    lenet = load_lenet(torch.device("cpu"))
    own = references.read_named("mnist", lenet)
    np.savez(tmp_path / "bare.npz", mu=own.gaussian.mean, sigma=own.gaussian.covariance.astype(np.float32))
    found = gddim("fid", digits, "--ref", tmp_path / "bare.npz", "--mode", "lenet", "--json")
    assert "bare.npz does not state which network and mode made it; lenet-mnist, mode lenet, is assumed" in found.err
    exact = json.loads(gddim("fid", digits, "--json").out)["value"]
    assert json.loads(found.out)["value"] == pytest.approx(exact, rel=1e-4)
    few = gddim("fid", digits, "--ref", digits)
    assert "the reference has only 60 images" in few.err
