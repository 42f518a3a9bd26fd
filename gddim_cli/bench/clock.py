"""Time that the device spends in a call, apart from the time around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Clock:
    """Adds up the seconds of the calls that it times.

    CUDA's are measured by events, so that the clock makes nothing wait; read it where the work has come to an end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, on the clock."""

        def run(*words: Any) -> Any:
            if self.device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                start.record()
                result = call(*words)
                end.record()
                self._events.append((start, end))
                return result
            began = time.perf_counter()
            result = call(*words)
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
