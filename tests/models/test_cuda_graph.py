"""The capture of a CUDA graph, with stand-ins for torch's CUDA: what it does when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from gddim_cli.models import acceleration, cuda_graph
from gddim_cli.models.acceleration import Accelerated, Speed

CPU = torch.device("cpu")
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


class Stream:
    """A stream by name, with what torch's streams can do."""

    device_index = 0

    def __init__(self, name: str = "aside") -> None:
        self.name = name

    def wait_stream(self, other: Stream) -> None: ...


class FakeCuda:
    """One GPU without memory for captures: the current stream, and whose memory the allocator serves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.recording = Stream("default"), False
        self.in_capture: Callable[[], None] = lambda: None
        self.at_end: Callable[[], None] = lambda: None
        for name, stand_in in {
            "device": lambda _: nullcontext(),
            "current_stream": lambda: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
            "Stream": Stream,
            "stream": self.on,
            "CUDAGraph": lambda: SimpleNamespace(pool=lambda: (0, 1), replay=lambda: None),
            "graph": self.graph,
            "empty_cache": self.empty_cache,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocate, raising=False)

    @contextmanager
    def on(self, stream: Stream):
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @contextmanager
    def graph(self, _: object, capture_error_mode: str):
        """As torch's: a capture that cannot be ended leaves its stream, and the allocator, as they are."""
        assert capture_error_mode == "thread_local"
        before, self.stream, self.recording = self.stream, Stream("capture"), True
        try:
            self.in_capture()
            yield
        finally:
            self.at_end()
            self.stream, self.recording = before, False

    def end_allocate(self, device: int, pool: tuple[int, int]) -> None:
        assert (device, pool) == (0, (0, 1))
        if not self.recording:
            raise RuntimeError("not currently recording")
        self.recording = False

    def empty_cache(self) -> None:
        assert not self.recording, "torch refuses to free memory while it records a graph"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def double(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    return 2 * x + level[:, None]


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


X, LEVEL = torch.ones(3, 2), torch.zeros(3)


def test_a_captured_evaluation_has_the_results_of_the_network(cuda: FakeCuda) -> None:
    graph = cuda_graph.capture(double, X, LEVEL)
    assert graph is not None
    assert torch.equal(graph(X, LEVEL), 2 * X)
    assert cuda.stream.name == "default"


@pytest.mark.parametrize("ends", [True, False])
def test_a_capture_without_memory_leaves_its_stream_and_the_allocator(cuda: FakeCuda, ends: bool) -> None:
    cuda.in_capture = raising(OUT_OF_MEMORY)
    if not ends:
        cuda.at_end = raising(RuntimeError("CUDA error: operation failed due to a previous error during capture"))
    assert cuda_graph.capture(double, X, LEVEL) is None
    assert (cuda.stream.name, cuda.recording) == ("default", False)
    cuda.empty_cache()


def test_other_errors_of_a_capture_are_raised_on_the_callers_stream(cuda: FakeCuda) -> None:
    cuda.in_capture = raising(RuntimeError("operation not permitted when stream is capturing"))
    cuda.at_end = raising(RuntimeError("cannot be ended"))
    with pytest.raises(RuntimeError, match="cannot be ended"):
        cuda_graph.capture(double, X, LEVEL)
    assert (cuda.stream.name, cuda.recording) == ("default", False)


def test_memory_that_ends_before_the_capture_is_torchs_own_error(cuda: FakeCuda) -> None:
    def short(*_: torch.Tensor) -> torch.Tensor:
        raise OUT_OF_MEMORY

    with pytest.raises(torch.OutOfMemoryError):
        cuda_graph.capture(short, X, LEVEL)


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return 2 * x * level[:, None, None, None]


def test_a_network_whose_capture_has_no_memory_goes_on_without_graphs_and_says_so(cuda: FakeCuda, monkeypatch) -> None:
    monkeypatch.setattr(Speed, "on", lambda self, _: self)
    tried: list[int] = []

    def capture(forward, x, level):
        tried.append(len(x))
        if len(tried) > 1:
            cuda.in_capture = raising(OUT_OF_MEMORY)
            cuda.at_end = raising(RuntimeError("cannot be ended"))
        return cuda_graph.capture(forward, x, level)

    monkeypatch.setattr(acceleration, "capture", capture)
    notes: list[str] = []
    network = Accelerated(Doubler(), CPU, Speed(cuda_graph=True), say=notes.append)
    for count in (2, 2, 4, 4, 2, 8):
        assert torch.equal(network(torch.ones(count, 1, 2, 2), torch.ones(count)), torch.full((count, 1, 2, 2), 2.0))
    assert tried == [2, 4]
    assert notes == ["--cuda-graph: not enough memory to capture 4 images; continuing without a CUDA graph"]
