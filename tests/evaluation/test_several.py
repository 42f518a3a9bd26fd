"""`gddim fid` with several references and metrics: one pass, one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import folder_of, pictures


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    return folder_of(tmp_path / "digits", pictures(60, 28, 1))


def test_several_references_make_a_table_from_one_pass(
    gddim: Callable, digits: Path, tmp_path: Path, calls: list[int]
) -> None:
    other = folder_of(tmp_path / "other", pictures(70, 28, 1, seed=1))
    alone = {
        ref: json.loads(gddim("fid", digits, "--ref", ref, "--metrics", "fid,kid", "--no-cache", "--json").out)
        for ref in ("mnist", "mnist:test", str(other))
    }
    calls.clear()
    words = ("fid", digits, "--metrics", "fid,kid", "--ref", "mnist,mnist:test", "--ref", other)
    found = gddim(*words, "--json")
    assert found.status == 0, found.err
    assert sorted(calls) == [6, 60, 64]  # the reference's 70 images and the 60, each once
    said = json.loads(found.out)
    names = [(result["metric_name"], result["reference"]) for result in said["results"]]
    assert names == [(metric, ref) for metric in ("fid", "kid") for ref in ("mnist", "mnist:test", "other")]
    for result, ref in zip(said["results"], 2 * list(alone), strict=True):
        expected = alone[ref]["metrics"][result["metric_name"]]
        assert result["numbers"]["value"] == pytest.approx(expected["value"], rel=1e-9)
        assert result["reference_sha256"] == alone[ref]["reference_sha256"]
    assert said["metrics"] == alone["mnist"]["metrics"]
    assert said["value"] == alone["mnist"]["value"]
    shown = gddim(*words)
    lines = shown.out.splitlines()
    assert lines[0].split() == ["mnist", "mnist:test", str(other)]
    assert lines[1].startswith("FD(lenet-mnist)@60  ")
    assert lines[2].startswith("KID(lenet-mnist)  ")
    assert f"{alone['mnist:test']['value']:.6g}" in lines[1]
    assert " to " in lines[2]  # the interval
    assert [line.split()[0] for line in lines[3:]] == ["images", "reference", "reference", "reference", "network"]
    assert calls.count(60) == 1
    notes = [line for line in shown.err.splitlines() if "is not FID" in line]
    assert len(notes) == 1


def test_what_needs_no_reference_stands_above_the_table(gddim: Callable, digits: Path) -> None:
    lines = gddim("fid", digits, "--metrics", "fid,is:splits=2", "--ref", "mnist,mnist:test").out.splitlines()
    assert lines[0].startswith("IS(lenet-mnist) (splits 2)@60 = ")
    assert lines[1].split() == ["mnist", "mnist:test"]
    assert lines[2].startswith("FD(lenet-mnist)@60  ")


def test_references_of_one_name_in_two_folders_are_two(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        folder_of(tmp_path / str(i) / "same", pictures(30, 28, 1, seed=i + 1))
    words = ("fid", digits, "--ref", tmp_path / "0" / "same", "--ref", tmp_path / "1" / "same")
    values = [result["numbers"]["value"] for result in json.loads(gddim(*words, "--json").out)["results"]]
    assert values[0] != values[1]
    lines = gddim(*words).out.splitlines()
    assert lines[0].split() == [str(tmp_path / str(i) / "same") for i in range(2)]
    assert all(f"{value:.6g}" in lines[1] for value in values)


def test_mistakes_in_lists_are_named(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    comma = folder_of(tmp_path / "a,b", pictures(20, 28, 1))
    assert gddim("fid", digits, "--ref", comma).status == 0
    cases = [
        (("--ref", "mnist", "--ref", "mnist"), 2, "--ref mnist: is listed twice"),
        (
            ("--ref", "mnist,mnits"),
            1,
            "--ref mnits: neither a file, a folder nor a known reference; did you mean 'mnist'",
        ),
        (("--ref", "mnist,mnist:test", "--protocol", "edm"), 2, "--ref mnist: --protocol edm fixes it to cifar10-edm"),
    ]
    for words, status, message in cases:
        found = gddim("fid", digits, *words)
        assert (found.status, message in found.err) == (status, True), found.err
