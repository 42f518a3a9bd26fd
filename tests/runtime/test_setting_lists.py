"""Lists of values for declared settings: what they read, and all mistakes with their places."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from gddim_cli.errors import DataError, UsageError
from gddim_cli.runtime.setting_lists import ListReader, located
from gddim_cli.settings import about, declared


class Toy(msgspec.Struct):
    size: Annotated[int, about("Size.", ge=1)] = 1
    name: Annotated[str, about("Name.", flag="--title")] = ""
    on: Annotated[bool, about("Switch.")] = False


def refuse(name: str, where: str) -> None:
    if name == "nobody":
        raise DataError(f"{where}: there is nobody")


@pytest.fixture
def reader() -> ListReader:
    return ListReader(declared(Toy), single={"on"}, find={"name": refuse})


def test_values_have_places(reader: ListReader) -> None:
    assert reader.mapping({"size": [1, 2], "name": 7, "on": True}, "$") == {
        "size": [(1, "$.size[0]"), (2, "$.size[1]")],
        "name": [("7", "$.name")],
        "on": [(True, "$.on")],
    }
    assert reader.options({"size": "3, 4", "name": "a,b", "on": False}) == {
        "size": [(3, "--size"), (4, "--size")],
        "name": [("a", "--title"), ("b", "--title")],
        "on": [(False, "--on")],
    }
    assert reader.problems == []


def test_all_mistakes_are_collected(reader: ListReader) -> None:
    raw = {"size": [0, 2, 2], "name": "nobody", "on": [True, False], "sice": 1, "far": 1}
    assert reader.mapping(raw, "$.x", {"far": "belongs elsewhere"}) == {
        "size": [(2, "$.x.size[1]")], "name": [], "on": [],
    }  # fmt: skip
    assert reader.problems == [
        "$.x.size[0]: 0: expected a whole number of at least 1",
        "$.x.size[2]: 2 is listed twice; leave one out",
        "$.x.name: there is nobody",
        "$.x.on: one value is needed, not a list",
        "$.x.sice: there is no setting 'sice'; did you mean 'size'?",
        "$.x.far: belongs elsewhere",
    ]


def test_an_error_names_the_place_of_its_option() -> None:
    where = {"size": "$.size[1]", "row": "$"}
    assert located(UsageError("--size: 3 is too large"), where) == "$.size[1]: 3 is too large"
    assert located(UsageError("--other: is wrong"), where) == "$: --other: is wrong"
    assert located(DataError("x.npz: missing"), where, ["size"]) == "$.size[1]: x.npz: missing"
