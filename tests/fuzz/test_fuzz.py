"""Thousands of bad inputs at every boundary: one line or a result; no traceback, no hang, nothing executed or overwritten."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz.boundaries import BOUNDARIES
from fuzz.corpus import Corpus
from fuzz.harness import call, faults, fingerprint

SEED = 15
FEW, MANY = 25, 400
"""Cases at each boundary, in the normal and in the nightly tests."""


@pytest.mark.parametrize(
    ("first", "count"),
    [(0, FEW), pytest.param(FEW, MANY, marks=[pytest.mark.slow, pytest.mark.nightly])],
    ids=["few", "many"],
)
@pytest.mark.parametrize("name", BOUNDARIES)
def test_bad_input(
    corpus: Corpus, tmp_path: Path, record_property: Callable, name: str, first: int, count: int
) -> None:
    found, ends = [], Counter()
    for number in range(first, first + count):
        sandbox = tmp_path / "sandbox"
        place = sandbox / "work"
        place.mkdir(parents=True)
        shutil.copytree(corpus.root / "home", sandbox / "home")
        case = BOUNDARIES[name](corpus, np.random.default_rng([SEED, zlib.crc32(name.encode()), number]), place)
        before = fingerprint(case.inputs)
        outcome = call(case.words, sandbox, place)
        wrong = faults(outcome)
        if fingerprint(case.inputs) != before:
            wrong.append("an input has changed")
        if wrong:
            words = " ".join(f"{str(word)!r:.80}" for word in case.words)
            found.append(f"{name} {number}: {', '.join(wrong)}\n  {words}\n  {case.note}\n  {outcome.err[-1500:]}")
        ends[outcome.status] += 1
        shutil.rmtree(sandbox)
    record_property("fuzzing", (name, count, dict(sorted(ends.items()))))
    assert not found, f"{len(found)} of {count} cases:\n" + "\n".join(found[:40])
