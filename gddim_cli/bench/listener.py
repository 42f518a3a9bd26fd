"""What is told of a benchmark's work as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gddim_cli.bench.folder import Result
    from gddim_cli.bench.jobs import Job


class Listener:
    """Hears of cells and evaluations; this one keeps silent.

    Evaluations are of the network for one image: a batch of 64 makes 64 of them at a time.
    """

    def begin(self, job: Job) -> None:
        """A cell is begun, or gone on with."""

    def advance(self, evaluations: float) -> None:
        """So many have been made."""

    def skip(self, evaluations: float) -> None:
        """So many were made earlier, or will not be."""

    def end(self, job: Job, result: Result) -> None:
        """A cell has its number, or has failed; told of kept ones too."""
