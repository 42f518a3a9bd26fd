"""Devices by name, with stand-ins for the GPUs of a machine."""

from __future__ import annotations

import pytest
import torch

from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import World


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two GPUs; the numbers that become torch's current device."""
    numbers: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", numbers.append)
    return numbers


def test_a_gpu_with_a_number_becomes_the_current_one(current: list[int]) -> None:
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert current == [1]
    assert find_device("cuda") == find_device("auto") == torch.device("cuda")
    assert current == [1]


def test_each_process_has_its_own_gpu_unless_one_is_named(current: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddim_cli.runtime.device.world", lambda: World(3, 4, 1))
    assert find_device("cuda") == torch.device("cuda:1")
    assert find_device("cuda:0") == torch.device("cuda:0")
    assert current == [1, 0]
    monkeypatch.setattr("gddim_cli.runtime.device.world", lambda: World(3, 4, 2))
    with pytest.raises(UsageError, match="more processes than the 2 CUDA GPUs"):
        find_device("cuda")


@pytest.mark.parametrize(("name", "reason"), [("cuda:2", "there are 2 CUDA GPUs"), ("cuda:x", "counted from 0")])
def test_a_gpu_that_does_not_exist_is_refused(current: list[int], name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_device(name)
    assert current == []
