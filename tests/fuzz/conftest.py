"""The good files from which the bad ones are made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzz.corpus import Corpus
from fuzz.harness import import_everything


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, golden_file) -> Corpus:
    import_everything()
    return Corpus(tmp_path_factory.mktemp("corpus"), golden_file)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many cases ran."""
    found = list(reported(terminalreporter))
    for name, count, ends in found:
        terminalreporter.write_line(f"fuzzing {name}: {count} cases, by exit status {ends}")
    if found:
        terminalreporter.write_line(f"fuzzing: {sum(count for _, count, _ in found)} cases at {len(found)} boundaries")


def reported(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, int, dict[int, int]]]:
    """What the tests have recorded."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            yield from (value for name, value in report.user_properties if name == "fuzzing")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fuzzing goes first: a forked process cannot compute gradients if its parent has."""
    items.sort(key=lambda item: "fuzz" not in item.path.parts)
