"""`--batch-size auto` against machines whose speed and memory are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.errors import CapacityError
from gddim_cli.models.acceleration import Accelerated, Speed
from gddim_cli.models.network import Counted
from gddim_cli.runs.batch_size import FIRST, MOST, SECOND, BatchSizeProbe, OomRetry, attempt, best_size, fitting
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest


def machine(launch: float, each: float, memory: int) -> Callable[[int], float]:
    """A GPU: a fixed time for the launches, hidden by what an image takes once there are enough of them."""

    def seconds(size: int) -> float:
        if size > memory:
            raise torch.OutOfMemoryError(f"{size} images")
        return max(launch, size * each)

    return seconds


@pytest.mark.parametrize(
    ("launch", "each", "memory", "most", "expected"),
    [
        (1.0, 1 / 64, 10_000, MOST, 64),  # full at 64
        (1.0, 1 / 64, 40, MOST, 32),  # memory ends before
        (1.0, 1 / 64, 10_000, 20, 16),  # no more images than that
        (0.0, 1.0, 10_000, MOST, 1),  # no launch to hide
        (1.0, 1e-9, 10_000, MOST, MOST),
        (1.0, 1e-9, 1, MOST, 1),
    ],
)
def test_the_smallest_size_at_full_speed_is_found(launch, each, memory, most, expected) -> None:
    assert best_size(machine(launch, each, memory), most) == expected


def test_one_slow_measurement_does_not_end_the_search() -> None:
    true = machine(1.0, 1 / 64, 10_000)
    assert best_size(lambda size: true(size) * (3 if size == 8 else 1), MOST) == 64


def test_not_even_one_image() -> None:
    with pytest.raises(CapacityError, match="--batch-size auto: not even one"):
        best_size(machine(1.0, 1.0, 0), MOST)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(size: int) -> float:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        best_size(broken, MOST)


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**12))
def test_the_estimate_is_what_linear_memory_gives(each: int, fixed: int, free: int) -> None:
    count = fitting([fixed + FIRST * each, fixed + SECOND * each], free)
    assert 1 <= count <= MOST
    if count > 1:
        assert fixed + count * each <= 0.9 * free * (1 + 1e-9)
    if count < MOST:
        assert fixed + (count + 1) * each > 0.9 * free * (1 - 1e-9)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 30))
def test_every_index_is_made_once_in_order_whatever_fits(count: int, size: int, memory: int) -> None:
    tried: list[int] = []
    freed: list[int] = []

    def work(indices: Sequence[int]) -> list[int]:
        tried.append(len(indices))
        if len(indices) > memory:
            raise CapacityError("too many")
        return list(indices)

    halving = OomRetry(work, lambda: freed.append(1))
    made = []
    for first in range(0, count, size):
        for part in halving(range(first, min(first + size, count))):
            made += part
    assert made == list(range(count))
    # A size that failed is not tried again, and all of it is freed.
    failed = [length for length in tried if length > memory]
    assert failed == sorted(set(failed), reverse=True)
    assert len(freed) == len(failed)


def test_one_image_that_does_not_fit_ends_it() -> None:
    def work(indices: Sequence[int]) -> None:
        raise CapacityError("too many")

    with pytest.raises(CapacityError):
        list(OomRetry(work, lambda: None)(range(8)))


def test_what_failed_is_let_go_before_the_next_attempt() -> None:
    import weakref

    class Large:
        pass

    alive: list[weakref.ref] = []

    def work() -> None:
        large = Large()
        alive.append(weakref.ref(large))
        raise MemoryError

    assert attempt(work) is None
    assert alive[0]() is None


class Limited(torch.nn.Module):
    """A network with memory for so many images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


@pytest.mark.parametrize("speed", [Speed(), Speed(compile=True)])
def test_trials_run_the_network_uncompiled(speed, monkeypatch) -> None:
    monkeypatch.setattr(Accelerated, "_compile", lambda *_: lambda *_: pytest.fail("compiled"))
    card = Card("limited", "A test's", Images(1, 4), {}, "eps", {"name": "cld"})
    network = Limited(20)
    checkpoint = Checkpoint(card, Counted(Accelerated(network, torch.device("cpu"), speed)), Path(), "")
    trials = BatchSizeProbe(prepare(SamplingRequest(nfe=5), torch.device("cpu"), model=checkpoint))
    assert trials.max_batch_size() == MOST
    assert best_size(trials.seconds, trials.max_batch_size()) <= 16
    assert max(network.seen) <= 32
    assert network.seen[:3] == [1, 1, 1]
