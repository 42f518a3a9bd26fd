"""Files: only plain ones are read, within bounds; space is there before it is used; names that a terminal would obey."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gddim_cli.errors import DataError, OutputError, UsageError
from gddim_cli.runtime import files
from gddim_cli.runtime.arrays import read_archive, read_array, read_member
from gddim_cli.runtime.json_files import read_json
from gddim_cli.runtime.row_file import RowFile
from gddim_cli.runtime.text import plain, printable


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(OSError, match="not a plain file"):
            files.read_plain(path, 100)
        with pytest.raises(OSError, match="not a plain file"):
            files.sha256(path)
        for read in (read_array, read_archive, lambda p: read_member(p, "x"), lambda p: read_json(p, dict)):
            with pytest.raises(DataError, match="not a plain file"):
                read(path)


def test_a_small_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    assert files.read_plain(path, 100) == bytes(100)
    with pytest.raises(OSError, match="at most 0 MB are read"):
        files.read_plain(path, 99)


def test_rows_that_the_disk_has_no_space_for_are_refused_before_they_are_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x.npy: takes 4e\+09 GB, but only .* GB are free on its disk"):
        RowFile(tmp_path / "x.npy", 10**12, (1_000_000,), "run", None, overwrite=False)
    assert list(tmp_path.iterdir()) == []
    rows = RowFile(tmp_path / "x.npy", 3, (2,), "run", None, overwrite=False)
    rows.store(range(3), np.ones((3, 2)))
    rows.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.ones((3, 2), np.float32))


def test_strangers_in_a_folder(tmp_path: Path) -> None:
    files.refuse_strangers(tmp_path, "run.json", "run")
    (tmp_path / ".lock").touch()
    files.refuse_strangers(tmp_path, "run.json", "run")
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match=r"holds a and 1 more, but no run\.json of a run"):
        files.refuse_strangers(tmp_path, "run.json", "run")
    (tmp_path / "run.json").touch()
    files.refuse_strangers(tmp_path, "run.json", "run")


def test_texts_for_a_terminal() -> None:
    assert printable("\x1b[31mred\x07\n  b\udcff") == r"[31mred b\xff"
    assert plain("a\nb\tc\x9b\u202e") == "a\nb c  "
    assert len(printable("x" * 10_000)) == 200
