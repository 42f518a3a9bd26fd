"""A training run replaces its own files and no others."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gddim_cli.checkpoints import native
from gddim_cli.errors import GddimError, OutputError
from gddim_cli.runtime.files import LOCK
from gddim_cli.training.folder import TrainingFolder


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


STRANGERS = (
    "squares.safetensors",
    "squares.yaml",
    "log.csv",
    "state.pt",
    "train.json",
    "grid-000002.png",
    "grid-000500.png",
)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_that_the_run_did_not_write_stops_it(train, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_bytes(b"mine")
    result = train()
    assert result.status == 1
    assert f"{run / name}: " in result.err
    assert "--force" in result.err
    assert result.err.count("\n") == 1, result.err
    assert content(run) == {name: b"mine"}
    assert train("--force").status == 0
    assert (run / "squares.safetensors").exists()
    if name != "grid-000500.png":  # this one is not written yet
        assert content(run)[name] != b"mine"
    assert train("--steps", 4).status == 0  # it may be replaced from now on


def test_a_file_that_was_changed_since_stops_it(train, tmp_path: Path) -> None:
    assert train().status == 0
    card = tmp_path / "run" / "squares.yaml"
    card.write_text(card.read_text() + "# mine\n")
    before = content(tmp_path / "run")
    result = train("--steps", 4)
    assert result.status == 1
    assert "squares.yaml: has changed since this run wrote it; move it away" in result.err
    assert content(tmp_path / "run") == before
    card.unlink()
    assert train("--steps", 4).status == 0


def test_force_starts_another_run_in_the_folder(train, tmp_path: Path, config: Path) -> None:
    assert train("--steps", 4).status == 0
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "seed": 4}))
    before = content(tmp_path / "run")
    result = train(recipe=other)
    assert result.status == 2
    assert (
        "belongs to a run with other settings: seed: 0 -> 4; choose another --out, use that run's recipe and images"
        in result.err
    )
    assert content(tmp_path / "run") == before
    result = train("--force", recipe=other)
    assert result.status == 0
    assert "resuming" not in result.err
    assert native.read(tmp_path / "run" / "squares.safetensors")[0].training["steps"] == 2


def test_a_state_of_nonsense(train, tmp_path: Path) -> None:
    assert train().status == 0
    (tmp_path / "run" / "train.json").unlink()
    state = tmp_path / "run" / "state.pt"
    whole = state.read_bytes()
    for damaged in (b"hello", b"", whole[:-200], whole[:1000] + b"\xff" * 50 + whole[1050:]):
        state.write_bytes(damaged)
        result = train("--steps", 4)
        assert (result.status, result.err.count("\n")) == (1, 1), result.err
        assert "state.pt: not a training state of gddim (" in result.err
        assert state.read_bytes() == damaged
    assert train("--steps", 4, "--force").status == 0


def test_a_flipped_bit_in_the_state_is_noticed(train, tmp_path: Path) -> None:
    """In a weight, where the file can still be read."""
    assert train().status == 0
    state = tmp_path / "run" / "state.pt"
    whole = state.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    state.write_bytes(damaged)
    result = train("--steps", 4)
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert (
        "state.pt: has changed since this run wrote it, and may be damaged; restore it, move it away to start"
        in result.err
    )
    state.write_bytes(whole)
    assert "resuming at step 2" in train("--steps", 4).err


@pytest.mark.parametrize("name", ["state.pt", "train.json"])
def test_damaged_files_of_a_run_are_one_line_or_unharmed(
    tmp_path: Path, squares: np.ndarray, training, name: str
) -> None:
    """Bytes cut off, changed or inserted, at random: the run resumes as if nothing had happened, or says what is wrong."""
    run = training(squares, tmp_path)
    run.step()
    run.save()
    whole, rng = (tmp_path / name).read_bytes(), random.Random(0)
    weights = {key: tensor.clone() for key, tensor in run.trainer.network.state_dict().items()}
    for case in range(60):
        damaged = bytearray(whole)
        place = (
            rng.randrange(min(len(whole), 3000)) if case % 2 else len(whole) - 1 - rng.randrange(min(len(whole), 3000))
        )
        if case % 3 == 0:
            del damaged[place:]
        elif case % 3 == 1:
            damaged[place] = rng.randrange(256)
        else:
            damaged[place:place] = rng.randbytes(8)
        (tmp_path / name).write_bytes(damaged)
        try:
            again = training(squares, tmp_path)
        except GddimError as error:
            said = str(error)
        else:
            said = "resumed"
            for key, tensor in again.trainer.network.state_dict().items():
                torch.testing.assert_close(tensor, weights[key], rtol=0, atol=0)
        assert "\n" not in said


def test_a_state_with_other_tensors(train, tmp_path: Path) -> None:
    assert train().status == 0
    path = tmp_path / "run" / "state.pt"
    for file in (tmp_path / "run").iterdir():
        if file != path:
            file.unlink()
    whole = torch.load(path, weights_only=True)
    for change in (
        {"network": {}}, {"average": {"x": torch.zeros(1)}}, {"optimizer": {}}, {"step": -1}, {"step": "2"}, {"log": 3},
        {"recipe": {}}, {"optimizer": {**whole["optimizer"], "state": {0: {"exp_avg": 1}}}}, {"seconds": None},
    ):  # fmt: skip
        torch.save({**whole, **change}, path)
        result = train("--steps", 4)
        assert (result.status, result.err.splitlines()[-1].startswith("gddim: ")) == (1, True), (change, result.err)
        assert "not a training state of gddim (" in result.err
        assert "Traceback" not in result.err


def test_the_recipe_and_the_data_are_never_replaced(gddim, train, tmp_path: Path, config: Path, monkeypatch) -> None:
    recipe = config.read_bytes()
    for out, words in [(tmp_path, ()), (tmp_path, ("--force",))]:
        result = train(*words, out=out)
        assert result.status == 2
        assert (
            f"--out: this run would write {config}, which is its input; choose another folder or --name" in result.err
        )
    link = tmp_path / "links"
    link.mkdir()
    os.link(config, link / "squares.yaml")
    assert "which is its input" in train("--force", out=link).err
    monkeypatch.chdir(tmp_path)
    for out in (".", "", tmp_path):
        result = train(out=out)
        assert result.status == 2
        assert "--out: cannot be the current folder; choose another folder" in result.err
    assert config.read_bytes() == recipe
    assert {path.name for path in tmp_path.iterdir()} == {"squares.npz", "squares.yaml", "links"}
    assert train("--name", "other", out=link).status == 0


def test_the_folder_of_the_data_is_left_alone(train, tmp_path: Path, squares: np.ndarray) -> None:
    from support import folder_of

    photos = folder_of(tmp_path / "photos", squares[..., None])
    before = content(photos)
    for out in (photos, photos / "run"):
        assert "is in the folder of --data" in train(data=photos, out=out).err
    assert content(photos) == before


def test_two_at_once_are_one_line(train, tmp_path: Path) -> None:
    import filelock

    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / LOCK):
        result = train()
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert "another gddim train is running in this folder; wait for it to finish, or choose another --out" in result.err
    assert train().status == 0


def test_an_older_step_is_not_written_over_a_newer_one(tmp_path: Path, squares: np.ndarray, training) -> None:
    """As if the first process had been stopped, its lock lost, and another had trained on."""
    first = training(squares, tmp_path)
    first.step()
    first.save()
    second = training(squares, tmp_path)
    for _ in range(4):
        second.step()
    second.save()
    before = content(tmp_path)
    first.step()
    with pytest.raises(OutputError, match="another process has written to this run in the meantime; run the same"):
        first.save()
    assert content(tmp_path) == before
    with pytest.raises(OutputError, match="another process has written to this run"):
        first.export("")
    assert content(tmp_path) == before


def test_a_file_that_appears_while_training_is_left_alone(tmp_path: Path, squares: np.ndarray, training) -> None:
    run = training(squares, tmp_path)
    run.step()
    run.save()
    (tmp_path / "squares.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"squares.yaml: was not written by this run"):
        run.export("")
    assert (tmp_path / "squares.yaml").read_text() == "mine"


def test_a_folder_that_disappears_is_one_line(tmp_path: Path, squares: np.ndarray, training) -> None:
    run = training(squares, tmp_path / "run")
    run.step()
    run.save()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OutputError, match=r"state.pt: cannot be written: its folder has been removed"):
        run.save()


def test_kills_between_record_and_file_leave_no_foreign_file(
    tmp_path: Path, squares: np.ndarray, training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just before or just after the record of the next file is written, several times: each next call resumes."""
    run = training(squares, tmp_path)
    run.step()
    run.save()
    run.export("")
    record = TrainingFolder._write_record
    for moment in ("before", "after", "after", "before", "after"):

        def killed(self: TrainingFolder, moment: str = moment) -> None:
            if moment == "after":
                record(self)
            raise KeyboardInterrupt

        run = training(squares, tmp_path)
        assert run.done == 1
        run.step()
        monkeypatch.setattr(TrainingFolder, "_write_record", killed)
        for write in (run.save, lambda: run.export("")):  # noqa: B023
            with pytest.raises(KeyboardInterrupt):
                write()
        monkeypatch.undo()
    run = training(squares, tmp_path)
    run.step()
    run.save()
    run.export("")
    assert training(squares, tmp_path).done == 2


def test_fifos_and_folders_in_the_place_of_files(train, tmp_path: Path) -> None:
    for name in ("state.pt", "train.json", "log.csv", "squares.yaml", "grid-000002.png"):
        run = tmp_path / f"run-{name}"
        run.mkdir()
        os.mkfifo(run / name)
        result = train(out=run)
        assert (result.status, result.err.count("\n")) == (1, 1), result.err
        assert f"{run / name}: " in result.err
        (run / name).unlink()
        (run / name).mkdir()
        for words in ((), ("--force",)):
            result = train(*words, out=run)
            assert result.status == 1, result.err
            assert f"{run / name}: " in result.err.splitlines()[-1]


@pytest.mark.parametrize("share", [0.1, 0.7, 0.999])
def test_a_disk_that_fills_up_is_one_line(tmp_path: Path, squares: np.ndarray, training, share: float) -> None:
    """While state.pt is written, near its start and its end; the files of the run stay."""
    run = training(squares, tmp_path)
    run.step()
    run.save()
    run.export("")
    before = content(tmp_path)
    largest = int(share * len(before["state.pt"]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        run.step()
        with pytest.raises(OutputError, match=r"state.pt: cannot be written: the file would exceed a size limit"):
            run.save()
        if largest < len(before["squares.safetensors"]):
            with pytest.raises(OutputError, match=r"squares.safetensors: cannot be written: .*size limit"):
                run.export("")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == before
    assert training(squares, tmp_path).done == 1


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, squares: np.ndarray, training) -> None:
    for name in (
        ".state.pt.abcd1234.tmp",
        ".grid-000500.png.abcd1234.tmp",
        ".squares.safetensors.abcd1234.tmp",
    ):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".notes.txt.abcd1234.tmp").write_bytes(b"not a file of training")
    training(squares, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".notes.txt.abcd1234.tmp"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "ignored"),
    [(signal.SIGKILL, False), (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)],
)
def test_an_interrupted_command_resumes(tmp_path: Path, config: Path, how: signal.Signals, ignored: bool) -> None:
    """In the real program. A background job of a script, which ignores SIGINT, ends at SIGTERM only."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gddim_cli", "train", str(config), "--data", str(tmp_path / "squares.npz")]
    command += ["--out", str(run), "--every", "50", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    process = subprocess.Popen([*command, "--steps", "100000"], stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not (run / "grid-000050.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    if how == signal.SIGINT and ignored:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=60)[1]
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "rerun the same command to resume" in message
        assert "Traceback" not in message
    step = torch.load(run / "state.pt", weights_only=True)["step"]
    assert step >= 50
    done = subprocess.run(
        [*command, "--steps", str(step + 3)], capture_output=True, text=True, check=True, env=environment
    )
    assert f"resuming at step {step}" in done.stderr


def test_a_damaged_record_is_told_from_a_changed_file(gddim, tmp_path: Path, config: Path) -> None:
    data, out = tmp_path / "squares.npz", tmp_path / "run"
    words = ("train", config, "--data", data, "--out", out, "--steps", 2, "--device", "cpu")
    assert gddim(*words).status == 0
    record = out / "train.json"
    text = record.read_text()
    at = text.index('"state.pt"') + 40
    record.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    result = gddim(*words)
    assert result.status == 1
    assert f"{record}: not the record of a training run (its checksum is wrong: it is damaged)" in result.err
    assert gddim(*words, "--force").status == 0
    assert gddim(*words).status == 0


def test_a_strangers_folder_is_not_swept(train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".state.pt.mybackup.tmp", "notes.txt"):
        (folder / name).write_text("mine")
    train()
    assert (folder / ".state.pt.mybackup.tmp").read_text() == "mine"
