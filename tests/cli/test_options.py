"""Options from declared settings: a command's struct, loose settings beside it, and what `--help` shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from gddim_cli.cli import options
from gddim_cli.cli.sample_settings import BatchSize, SampleSettings
from gddim_cli.errors import UsageError
from gddim_cli.settings import about, declared


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    out: Annotated[Path, about("Where to.", panel="Output", short="-o")] | None = None
    size: Annotated[BatchSize, about("How many.", panel="Speed", metavar="N|auto")] = 64
    keep: Annotated[bool, about("Keep.", flag="--keep")] = False
    cache: Annotated[bool, about("Cache. Default: cache.")] = True


class Loose(msgspec.Struct, frozen=True):
    nfe: Annotated[int, about("Evaluations.", ge=1)] = 50


@pytest.fixture
def command():
    """The command, and a list of what it was called with."""
    calls: list[tuple[Settings, dict[str, Any], int]] = []

    def draw(given: Mapping[str, Any], asked: Settings, level: Annotated[int, typer.Option()] = 0) -> None:
        """Draws."""
        calls.append((asked, dict(given), level))

    return options.command(options.with_settings(draw, declared(Loose).values())), calls


@pytest.mark.parametrize(
    ("words", "asked", "given", "level"),
    [
        ("", {}, {}, 0),
        ("-o a/b --size auto --keep --nfe x", {"out": Path("a/b"), "size": "auto", "keep": True}, {"nfe": "x"}, 0),
        ("--out 5 --size 8 --no-cache --level 2", {"out": Path("5"), "size": 8, "cache": False}, {}, 2),
    ],
)
def test_a_command_receives_its_struct_and_the_texts_of_other_settings(command, words, asked, given, level) -> None:
    app, calls = command
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0, done.output
    assert calls == [(Settings(**asked), given, level)]


@pytest.mark.parametrize("text", ["0", "half", "2.5", "1000001"])
def test_a_value_outside_its_range_is_refused_by_its_option(command, text: str) -> None:
    done = CliRunner().invoke(command[0], ["--size", text])
    assert isinstance(done.exception, UsageError)
    shown = text if text != "half" else "'half'"
    assert str(done.exception) == f"--size: {shown}: expected auto or a whole number from 1 to 1000000"


def test_help_shows_defaults_and_a_negative_form_where_there_is_one(command) -> None:
    shown = CliRunner().invoke(command[0], ["--help"]).output
    assert "How many. Default: 64." in shown
    assert "--no-cache" in shown
    assert "--no-keep" not in shown


def test_what_a_sheet_cannot_be_made_with() -> None:
    assert SampleSettings().beside_sheet() == []
    asked = SampleSettings(format="npz", compile=True, batch_size="auto")
    assert asked.beside_sheet() == ["--format", "--compile", "--batch-size auto"]
