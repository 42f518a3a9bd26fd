"""YAML from users: what it means, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from gddim_cli.errors import DataError
from gddim_cli.runtime.typed_yaml import read_yaml, typed


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.0e-3", 1e-3), ("5", 5), ("-7", -7), ("+.5", 0.5), ("2.", 2.0), ("true", True), ("null", None),
        ("~", None), ("", None), ("012", "012"), ("0x1F", "0x1F"), ("1:30", "1:30"), ("2024-13-01", "2024-13-01"),
        ("yes", "yes"), ("'5'", "5"), ("[1, 2.5, a]", [1, 2.5, "a"]), ("a: {b: 1e5}", {"a": {"b": 1e5}}), (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_values(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, text)
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(15)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' in lines 1 and 3"),
        ("[" * 100 + "]" * 100, "nested more than 20 deep"),
        (BOMB, "aliases (*name) are not supported"),
        ("!!python/object/apply:os.system [ls]", "is not allowed"),
        ("!!timestamp 2024-01-01", "is not allowed"),
        ("!!int x", "not valid YAML"),
        ("!!float x", "not valid YAML"),
        ("!!int ''", "a value does not fit its tag"),
        ("!!int '-'", "a value does not fit its tag"),
        ("!!bool maybe", "a value does not fit its tag"),
        ("a: [1", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("#" * (1 << 21), "2 MB; at most 1 MB are read"),
        ("? [a, b]\n: c", "not valid YAML"),
        ("a: &a\n  b: *a\n", "aliases (*name) are not supported"),
        ('a: "\\ud800"', "not a Unicode character"),
        ('"\\ud800": 1', "not a Unicode character"),
    ],
    ids=range(17),
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(DataError, match="not valid YAML"):
        read_yaml(tmp_path / "latin.yaml")


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    width: int = 1


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    rows: list[Annotated[Inner, msgspec.Meta(description="a row")]] = []
    named: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"inne": {}}, "did you mean 'inner'?"),
        ({"inner": {"widht": 1}}, "at `$.inner`; did you mean 'width'?"),
        ({"rows": [{}, {"widht": 1}]}, "at `$.rows[1]`; did you mean 'width'?"),
        ({"named": {"a": {"widht": 1}}}, "at `$.named[...]`; did you mean 'width'?"),
        ({"inner": {"a b": 1}}, "unknown field `a b` - at `$.inner`; known: width"),
    ],
)
def test_an_unknown_key_names_the_nearest_one_of_its_place(raw: object, hint: str) -> None:
    with pytest.raises(DataError) as refused:
        typed(raw, Outer, "file.yaml")
    assert hint in str(refused.value)
