"""`gddim sample` with `--batch-size auto`, `--compile` and their like: the images are those of the plain command."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gddim_cli.cli.progress import Progress
from gddim_cli.runs import generate
from gddim_cli.runs.batch_size import BatchSizeProbe
from gddim_cli.runs.prepared_run import PreparedRun
from gddim_cli.runs.storage.registry import open_storage
from gddim_cli.runtime.distributed import World


@pytest.fixture
def sample(gddim, tiny: Path, tmp_path: Path):
    def run(*words: object, num: int = 40, out: str = "imgs"):
        return gddim("sample", "--checkpoint", tiny, "--nfe", 4, "--num", num, "--out", tmp_path / out, *words)

    return run


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that measures 16 images at once as its best, and at the third step finds room for 3; the sizes tried."""
    monkeypatch.setattr(BatchSizeProbe, "seconds", lambda self, size: 1.0 if size <= 16 else float(size))
    real, tried = PreparedRun.run, []

    def run(self: PreparedRun, indices, on_step):
        tried.append(len(indices))

        def step(number: int, u: torch.Tensor) -> None:
            on_step(number, u)
            if number == 3 and len(indices) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

        return real(self, indices, step)

    monkeypatch.setattr(PreparedRun, "run", run)
    return tried


def sessions(folder: Path) -> list[dict]:
    return json.loads((folder / "run.json").read_text())["sessions"]


def pictures(folder: Path, num: int = 40) -> np.ndarray:
    return open_storage(folder, "png").read(range(num))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    difference = np.abs(a.astype(int) - b)
    return difference.max() <= 1 and (difference > 0).mean() <= 1e-3


def test_the_measured_size_makes_the_same_images_and_is_kept(sample, tmp_path: Path) -> None:
    sample(out="given")
    first = sample("--batch-size", "auto", num=20)
    assert first.status == 0, first.err
    (session,) = sessions(tmp_path / "imgs")
    assert session["batch_size"] in (1, 2, 4, 8, 16)
    assert f"batch size: {session['batch_size']}\n" in first.err
    assert sample("--batch-size", "auto").status == 0
    assert [one["batch_size"] for one in sessions(tmp_path / "imgs")] == [session["batch_size"]] * 2
    assert close(pictures(tmp_path / "imgs"), pictures(tmp_path / "given"))


def test_memory_that_ends_in_a_batch_costs_that_batch_and_no_image(
    sample, small_memory, tmp_path: Path, monkeypatch
) -> None:
    ends: list[float] = []
    monkeypatch.setattr(Progress, "__exit__", lambda self, *_: ends.append(self.done))
    words = ("--predict", "eps")  # the network is random, and x0 amplifies its rounding
    result = sample(
        *words, "--batch-size", "auto", "--save-raw", tmp_path / "raw.npy", "--trajectory", tmp_path / "film.gif"
    )
    assert result.status == 0, result.err
    assert small_memory == [16, 8, 4, *[2] * 20]
    assert ends == [pytest.approx(40)]
    monkeypatch.undo()
    sample(*words, "--save-raw", tmp_path / "given.npy", "--trajectory", tmp_path / "given.gif", out="given")
    assert close(pictures(tmp_path / "imgs"), pictures(tmp_path / "given"))
    np.testing.assert_allclose(np.load(tmp_path / "raw.npy"), np.load(tmp_path / "given.npy"), atol=2e-3)
    assert (sessions(tmp_path / "imgs")[0]["images"], sessions(tmp_path / "imgs")[0]["nfe"]) == (40, 4)


def test_a_given_size_that_does_not_fit_is_named_with_the_way_out(sample, small_memory, tmp_path: Path) -> None:
    result = sample("--batch-size", 10)
    assert result.status == 1
    assert "--batch-size: 10 images at once do not fit in the memory of cpu" in result.err
    assert "rerun the same command with a smaller --batch-size (5, or auto)" in result.err
    assert small_memory == [10]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "auto", "--sampler", "rk45"], "--batch-size auto: the images of rk45 depend on their batch"),
        (["--batch-size", "half"], "--batch-size: 'half': expected auto or a whole number"),
        (["--batch-size", "2.5"], "--batch-size: 2.5: expected auto or a whole number"),
        (["--tf32", "--device", "cpu"], "--tf32: supported in float32 on NVIDIA GPUs only"),
        (["--cuda-graph", "--device", "cpu"], "--cuda-graph: unsupported by --device cpu"),
    ],
)
def test_what_cannot_be_is_refused(sample, tmp_path: Path, words: list, message: str) -> None:
    result = sample(*words)
    assert (result.status, message in result.err) == (2, True), result.err
    assert not (tmp_path / "imgs").exists()


def test_short_names_of_dtypes_are_the_same_run(sample, tmp_path: Path) -> None:
    assert sample("--dtype", "bf16", num=4).status == 0
    assert json.loads((tmp_path / "imgs" / "run.json").read_text())["settings"]["dtype"] == "bfloat16"
    assert sample("--dtype", "bfloat16", num=5).status == 0
    refused = sample("--dtype", "fp16", num=5)
    assert "dtype: bfloat16 -> float16" in refused.err


def test_a_compiled_network_continues_a_plain_run_and_is_told_of(sample, tmp_path: Path, monkeypatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    sample(out="given")
    assert sample(num=20).status == 0
    result = sample("--compile", "--batch-size", 8)
    assert result.status == 0, result.err
    assert [session["speed"] for session in sessions(tmp_path / "imgs")] == [[], ["compile"]]
    assert close(pictures(tmp_path / "imgs"), pictures(tmp_path / "given"))
    torch._dynamo.reset()


def test_trials_are_not_counted_as_evaluations(sample, tmp_path: Path, monkeypatch) -> None:
    tried: list[int] = []
    real = generate.best_size

    def best_size(seconds, most: int) -> int:
        tried.append(most)
        return real(seconds, most)

    monkeypatch.setattr(generate, "best_size", best_size)
    assert sample("--batch-size", "auto", num=10).status == 0
    assert tried == [10]
    assert json.loads((tmp_path / "imgs" / "run.json").read_text())["nfe"] == 4


def test_memory_that_ends_while_a_batch_is_written_halves_no_other(sample, small_memory, monkeypatch) -> None:
    monkeypatch.setattr(BatchSizeProbe, "seconds", lambda self, size: 1.0 if size <= 2 else float(size))

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(generate, "quantize", short)
    result = sample("--batch-size", "auto", num=200)
    assert result.status == 1
    assert "--batch-size: 2 images at once do not fit" in result.err
    assert set(small_memory) == {2}


def test_processes_on_one_device_share_its_memory(sample, monkeypatch) -> None:
    monkeypatch.setattr(BatchSizeProbe, "max_batch_size", lambda self: 11)
    monkeypatch.setattr(World, "sharing", lambda self, device: 3)
    tried: list[int] = []
    monkeypatch.setattr(generate, "best_size", lambda seconds, most: tried.append(most) or most)
    assert sample("--batch-size", "auto").status == 0
    assert tried == [3]


@pytest.mark.parametrize(
    ("places", "expected"), [(["a 0", "a 1"], 1), (["a 0", "a 0", "a 1"], 2), (["a 0", "b 0"], 1), ([], 1)]
)
def test_how_many_share_a_device(monkeypatch, places: list[str], expected: int) -> None:
    monkeypatch.setattr(World, "gather", lambda self, place: places)
    assert World(0, 3).sharing("cuda:0") == expected


def test_a_whole_batch_goes_to_the_files_as_it_is(sample, monkeypatch) -> None:
    """Picking rows by a list would wait for a GPU, and copy what is there."""
    final, sent = [], []
    run, to_host = PreparedRun.run, generate.to_host

    def running(self: PreparedRun, *arguments) -> torch.Tensor:
        final.append(run(self, *arguments))
        return final[-1]

    monkeypatch.setattr(PreparedRun, "run", running)
    monkeypatch.setattr(generate, "to_host", lambda x: (sent.append(x), to_host(x))[1])
    assert sample("--batch-size", 8).status == 0
    assert [x.data_ptr() for x in sent] == [u.data_ptr() for u in final]
