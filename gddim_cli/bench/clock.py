"""Time that the device spends in calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Clock:
    """Adds up the seconds of calls; on CUDA by events, so that nothing waits for the clock until it is read."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._seconds = device, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, on the clock."""

        def run(*arguments: Any) -> Any:
            if self.device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                start.record()
                result = call(*arguments)
                end.record()
                self._events.append((start, end))
                return result
            began = time.perf_counter()
            result = call(*arguments)
            if self.device.type != "cpu":
                torch.accelerator.synchronize(self.device)
            self._seconds += time.perf_counter() - began
            return result

        return run

    def read(self) -> float:
        """Seconds so far."""
        if self._events:
            torch.cuda.synchronize(self.device)
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        return self._seconds
