"""Work that fails on one process fails on all; what must end the program is raised as it is."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from gddim_cli.errors import DataError, OutputError
from gddim_cli.runtime.distributed import World
from gddim_cli.runtime.shared_work import SharedWork, WorkError


def fail(error: Exception) -> None:
    raise error


def test_failures_are_reasons_unless_they_end_the_program() -> None:
    work = SharedWork(World(), nullcontext, lambda: None)
    assert work.on_main(lambda: 3) == work.together(lambda: 3) == 3
    assert work.attempt(lambda: fail(DataError("no"))) == (None, "no")
    for shared in (work.on_main, work.together):
        with pytest.raises(WorkError, match="no"):
            shared(lambda: fail(DataError("no")))
        with pytest.raises(OutputError):
            shared(lambda: fail(OutputError("disk full")))
        with pytest.raises(ZeroDivisionError):
            shared(lambda: 1 // 0)
