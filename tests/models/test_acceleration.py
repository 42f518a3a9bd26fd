"""The network at speed gives the plain network's numbers: to the bit where nothing is rounded anew, else to rounding."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from gddim_cli.errors import GddimError, UsageError
from gddim_cli.models.acceleration import Accelerated, Speed, padded
from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.runtime.memory import is_out_of_memory

CPU = torch.device("cpu")


def ncsnpp() -> torch.nn.Module:
    torch.manual_seed(0)
    module = NCSNpp(6, 6, 8, nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,))
    return module.eval().requires_grad_(False)


def denoiser() -> torch.nn.Module:
    torch.manual_seed(0)
    module = DenoisingUNet(6, 8, 0.5, patch=1, channels=[16], blocks=1, embedding=16)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module.eval().requires_grad_(False)


def states(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 6, 8, 8, generator=torch.Generator().manual_seed(1))


def times(t: float, count: int = 3) -> torch.Tensor:
    return torch.full((count,), t)


@pytest.fixture
def compiler(monkeypatch):
    """`torch.compile` without its code generator, counting what it compiles: seconds in place of minutes."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize("make", [ncsnpp, denoiser])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_rounded_once_are_autocast_to_the_bit(make, dtype) -> None:
    module = make()
    network = Accelerated(copy.deepcopy(module), CPU, Speed(dtype))
    with torch.inference_mode():
        with torch.autocast("cpu", dtype):
            expected = module(states(), times(0.5)).float()
        assert torch.equal(network(states(), times(0.5)), expected)
    # And it is a rounding: not float32 under another name, nor far from it.
    exact = module(states(), times(0.5))
    assert 0 < (expected - exact).norm() < 0.1 * exact.norm()
    assert {p.dtype for p in network.module.parameters()} == {dtype, torch.float32}


@pytest.mark.parametrize("make", [ncsnpp, denoiser])
def test_channels_last_changes_rounding_only_and_gives_back_plain_layout(make) -> None:
    module = make()
    network = Accelerated(copy.deepcopy(module), CPU, Speed(channels_last=True))
    made = network(states(), times(0.5))
    assert made.is_contiguous()
    torch.testing.assert_close(made, module(states(), times(0.5)), rtol=1e-5, atol=1e-5)


def test_float64_is_float64_throughout() -> None:
    made = Accelerated(ncsnpp(), CPU, Speed(torch.float64))(states().double(), times(0.5).double())
    torch.testing.assert_close(made, ncsnpp().double()(states().double(), times(0.5).double()), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("make", [ncsnpp, denoiser])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_to_one_graph_for_all_times_and_smaller_batches(make, dtype, compiler) -> None:
    plain = Accelerated(make(), CPU, Speed(dtype))
    network = Accelerated(make(), CPU, Speed(dtype, compile=True))
    with torch.inference_mode():
        for t in (1.0, 0.5, 1e-3):
            torch.testing.assert_close(network(states(), times(t)), plain(states(), times(t)), rtol=1e-4, atol=1e-4)
        last = network(states()[:2], times(0.5, 2))
    torch.testing.assert_close(last, plain(states(), times(0.5))[:2], rtol=1e-4, atol=1e-4)
    assert compiler() == 1


def test_released_sizes_are_compiled_anew_and_tries_are_not_compiled(compiler) -> None:
    network = Accelerated(denoiser(), CPU, Speed(compile=True))
    with torch.inference_mode():
        network(states(4), times(0.5, 4))
        with network.plainly():
            network(states(8), times(0.5, 8))
        assert compiler() == 1
        network.release()
        assert len(network(states(2), times(0.5, 2))) == 2
    assert compiler() == 2


class Layer(torch.nn.Module):
    """As little as there is to compile: the compiler takes seconds for each kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(self.conv(x)) * level[:, None, None, None].log()


@pytest.mark.slow
def test_compiled_code_is_kept_for_the_next_process(tmp_path: Path, monkeypatch) -> None:
    """The real compiler, twice: the second time it reads what the first has written."""
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")  # and put back afterwards what Accelerated sets
    layer = Layer().requires_grad_(False)
    hits = []
    for _ in range(2):
        counters.clear()
        with torch.inference_mode():
            made = Accelerated(copy.deepcopy(layer), CPU, Speed(compile=True), tmp_path)(states(), times(0.5))
        torch.testing.assert_close(made, layer(states(), times(0.5)), rtol=1e-5, atol=1e-5)
        hits.append(counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"])
        torch._dynamo.reset()
    assert hits[0] == 0
    assert hits[1] >= 1
    assert any(tmp_path.rglob("*.so"))


def test_a_compiler_that_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch) -> None:
    import torch._inductor.config

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    network = Accelerated(denoiser(), CPU, Speed(compile=True))
    with torch.inference_mode(), pytest.raises(GddimError, match=r"--compile: torch cannot .*leave --compile out") as e:
        network(states(5), times(0.5, 5))
    assert "\n" not in str(e.value)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("speed", "named"),
    [
        (Speed(tf32=True), "--tf32"),
        (Speed(cuda_graph=True), "--cuda-graph: unsupported by --device cpu"),
    ],
)
def test_what_the_device_has_not_is_refused(speed, named) -> None:
    with pytest.raises(UsageError, match=named):
        Accelerated(denoiser(), CPU, speed)


def test_what_is_on_by_itself() -> None:
    cuda = torch.device("cuda")
    assert Speed(torch.bfloat16).on(cuda).enabled() == ["channels_last"]
    assert Speed(torch.bfloat16, channels_last=False).on(cuda).enabled() == []
    assert Speed().on(cuda).enabled() == []
    assert Speed(torch.bfloat16).on(CPU).enabled() == []
    with pytest.raises(UsageError, match="--tf32"):
        Speed(torch.bfloat16, tf32=True).on(cuda)


def test_filling_repeats_the_last_row() -> None:
    assert padded(torch.tensor([[1], [2]]), 4).tolist() == [[1], [2], [2], [2]]


def test_lack_of_memory_is_told_from_other_errors() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as refused:  # 2^60 numbers: what the CPU's allocator says itself
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    wrapped = RuntimeError("capture failed")
    wrapped.__context__ = torch.OutOfMemoryError("x")
    assert is_out_of_memory(wrapped)
    assert is_out_of_memory(RuntimeError("FIND was unable to find an engine to execute this computation"))  # cuDNN
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_captured_evaluation_is_the_eager_one_and_its_results_stay(compiled) -> None:
    cuda = torch.device("cuda")
    plain = Accelerated(ncsnpp(), cuda, Speed())
    network = Accelerated(ncsnpp(), cuda, Speed(compile=compiled, cuda_graph=True))
    x = states().to(cuda)
    with torch.inference_mode():
        first = network(x, times(0.5).to(cuda))
        second = network(x[:2], times(0.1, 2).to(cuda))  # padded up, the same graph
        torch.testing.assert_close(first, plain(x, times(0.5).to(cuda)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(second, plain(x, times(0.1).to(cuda))[:2], rtol=1e-4, atol=1e-4)


def test_a_network_that_would_be_compiled_too_often_is_said_in_one_line(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached with fullgraph=True\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    network = Accelerated(denoiser(), CPU, Speed(compile=True))
    with pytest.raises(GddimError, match=r"--compile: torch cannot .*recompile_limit.*leave --compile out"):
        network(states(5), times(0.5, 5))
