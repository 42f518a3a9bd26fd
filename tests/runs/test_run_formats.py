"""`gddim fid` reads what `gddim sample` writes, in every format, in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gddim_cli.errors import DataError
from gddim_cli.runs.images import open_images
from gddim_cli.runs.storage import shards
from gddim_cli.runs.storage.registry import FORMATS


def test_every_format_holds_the_same_images(
    gddim: Callable, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 5)
    found = {}
    for kind in FORMATS:
        words = ("--checkpoint", tiny, "--nfe", 3, "--num", 13, "--batch-size", 4, "--format", kind)
        assert gddim("sample", *words, "--out", tmp_path / kind).status == 0
        source = open_images(tmp_path / kind)
        assert (source.count, source.shape, source.quantize, source.ignored) == (13, (8, 8, 1), "floor", 0)
        found[kind] = np.concatenate(list(source.batches(6)))
        np.testing.assert_array_equal(np.concatenate(list(source.batches(2, 4, 11))), found[kind][4:11])
        assert len(np.concatenate(list(open_images(tmp_path / kind, num=7).batches(3)))) == 7
    np.testing.assert_array_equal(found["tar"], found["png"])
    np.testing.assert_array_equal(found["npz"], found["png"])
    assert len(list((tmp_path / "tar").glob("*.tar"))) == 3


@pytest.mark.parametrize("format", ["npz", "tar"])
def test_a_missing_shard_is_named(
    format: str, gddim: Callable, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 5)
    words = ("--checkpoint", tiny, "--nfe", 3, "--num", 13, "--batch-size", 4, "--format", format)
    assert gddim("sample", *words, "--out", tmp_path / "run").status == 0
    next((tmp_path / "run").glob("images-000005*")).unlink()
    with pytest.raises(DataError, match=r"8 of 13 images are there.*--num 5"):
        open_images(tmp_path / "run")
    assert open_images(tmp_path / "run", num=5).count == 5
