"""The cheapest ways to reach the FD of the paper's scheme at NFE 50: docs/few-evaluations.md.

    gddim bench benchmarks/few_fd.yaml --out few_fd && python benchmarks/cheapest.py few_fd

Reads `table.csv` of the benchmark. A cell reaches the goal if its value is at most the goal plus twice the standard error of
the difference.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

GOAL = ("through CLD", 50)
"""Table and NFE of the goal. The goal is the first cell of this table at this NFE."""
SHOWN = 5


@dataclass(frozen=True)
class Way:
    """A cell of the benchmark."""

    table: str
    sampler: str
    nfe: int
    value: float
    error: float

    def reaches(self, goal: Way) -> bool:
        """Whether the value is at most the goal's plus twice the standard error of the difference."""
        return self.value <= goal.value + 2 * (self.error**2 + goal.error**2) ** 0.5


def ways(path: Path) -> list[Way]:
    """All cells that have a value, in the order of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mean"]]
    return [
        Way(row["table"], row["sampler"], int(row["nfe"]), float(row["mean"]), float(row["standard_error"]))
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    found = ways(parser.parse_args().folder / "table.csv")
    goal = next(way for way in found if (way.table, way.nfe) == GOAL)
    print(f"Goal: {goal.sampler}, {goal.table}, NFE {goal.nfe}: {goal.value:.2f} ± {goal.error:.2f}\n")
    print("| NFE | way | FD |\n| --- | --- | --- |")
    for way in sorted((way for way in found if way.reaches(goal)), key=lambda way: way.nfe)[:SHOWN]:
        print(f"| {way.nfe} | {way.sampler}, {way.table} | {way.value:.2f} ± {way.error:.2f} |")


if __name__ == "__main__":
    main()
