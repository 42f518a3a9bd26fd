"""The good files from which the bad ones are made."""

from __future__ import annotations

import pytest
from fuzz.corpus import Corpus
from fuzz.harness import import_everything


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, golden_file) -> Corpus:
    import_everything()
    return Corpus(tmp_path_factory.mktemp("corpus"), golden_file)
