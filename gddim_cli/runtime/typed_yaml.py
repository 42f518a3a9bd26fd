"""Reads users' YAML files strictly, and converts their content to typed structs."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from gddim_cli.errors import DataError, GddimError, nearest
from gddim_cli.runtime.files import read_plain
from gddim_cli.runtime.text import printable

T = TypeVar("T")
MAX_BYTES = 1 << 20
"""The largest YAML file that is read."""
MAX_DEPTH = 20


class StrictLoader(yaml.SafeLoader):
    """YAML with the numbers of YAML 1.2: 1e-3 is a number; 012 and 1:30 are strings. Has no dates or duplicate keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """The next node; raises YAMLError if it is nested too deeply or is an alias, which can expand without limit."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported; write the value out")
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                raise yaml.YAMLError(f"lists and mappings are nested more than {MAX_DEPTH} deep")
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """A text; raises YAMLError for half of a surrogate pair, which cannot be written to a file."""
        found = super().construct_scalar(node)
        if any("\ud800" <= letter <= "\udfff" for letter in found):
            raise yaml.YAMLError(
                f"line {node.start_mark.line + 1}: half of a surrogate pair is not a Unicode character"
            )
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; raises YAMLError for a duplicate key."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen:
                raise yaml.YAMLError(f"duplicate key '{name}' in lines {seen[name]} and {line}; remove one")
            seen[name] = line
        return super().construct_mapping(node, deep)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """By first character, the patterns of unquoted values that are not strings."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    kinds = [
        ("tag:yaml.org,2002:bool", r"true|false", "tf"),
        ("tag:yaml.org,2002:null", r"null|~|", "n~"),
        ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]{0,19})", "-+0123456789"),
        ("tag:yaml.org,2002:float", r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}\.[0-9]{0,30}|[0-9]{1,30}(?=[eE]))([eE][-+]?[0-9]{1,4})?",
         "-+.0123456789"),
    ]  # fmt: skip
    for tag, pattern, letters in kinds:
        for letter in [*letters, *([""] if "null" in tag else [])]:
            found.setdefault(letter, []).append((tag, re.compile(rf"({pattern})\Z")))
    return found


def _number(_: StrictLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


def _no_tag(_: StrictLoader, _suffix: str, node: yaml.Node) -> Any:
    raise yaml.YAMLError(f"the tag {node.tag} is not allowed")


StrictLoader.yaml_implicit_resolvers = _resolvers()
StrictLoader.add_constructor("tag:yaml.org,2002:float", _number)
for _tag in ("binary", "omap", "pairs", "set", "timestamp"):
    StrictLoader.yaml_constructors.pop(f"tag:yaml.org,2002:{_tag}", None)
StrictLoader.add_multi_constructor("", _no_tag)


def read_yaml(path: Path, name: str | None = None) -> Any:
    """The content of a YAML file: mappings, lists, strings, numbers, true, false and null.

    Args:
        name: what messages call the file. Default: its path.

    Raises:
        DataError: the file is missing or too large, is not valid YAML, or uses YAML features that are not allowed.
    """
    source = name or str(path)
    try:
        return yaml.load(read_plain(path, MAX_BYTES).decode("utf-8"), StrictLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{source}: not valid YAML: {' '.join(str(error).split())[:300]}") from error
    except LookupError as error:  # PyYAML looks up the value of !!bool, and the first character of !!int, unchecked.
        raise DataError(
            f"{source}: not valid YAML: a value does not fit its tag, such as !!int; leave the tag out"
        ) from error


def typed(raw: Any, kind: type[T], source: object, error: type[GddimError] = DataError) -> T:
    """Converts `raw`, which consists of plain dicts and lists, to the `msgspec.Struct` `kind`.

    Args:
        source: what messages call the origin of `raw`.
        error: the class of the error to raise.

    Raises:
        error: a key is unknown (the message suggests the nearest one) or missing, or a value has the wrong type.
    """
    try:
        return msgspec.convert(raw, kind)
    except UnicodeEncodeError as problem:
        raise error(f"{source}: contains a text that is not valid Unicode") from problem
    except msgspec.ValidationError as problem:
        text = (
            str(problem)
            .replace("Object ", "the mapping ", 1)
            .replace("`object`", "a mapping")
            .replace("`array`", "a list")
            .replace("got `null`", "got nothing")
        )
        unknown = re.search(r"unknown field `(.+?)`(?: - at `\$(\S*)`)?$", text)
        hint = f"; {nearest(unknown[1], fields_at(kind, unknown[2] or ''))}" if unknown else ""
        raise error(f"{source}: {printable(text)}{hint}") from problem


def fields_at(kind: Any, path: str) -> list[str]:
    """The keys of the struct at a path such as `.rows[0].network` in `kind`; empty if there is no struct there."""
    for step in re.findall(r"\w+|\[.*?\]", path):
        plain = unwrapped(kind)
        if step.startswith("["):
            kind = next(iter(typing.get_args(plain)[-1:]), None)
        elif is_struct(plain):
            names = dict(zip(plain.__struct_encode_fields__, plain.__struct_fields__, strict=True))
            kind = typing.get_type_hints(plain, include_extras=True).get(names.get(step, ""))
        else:
            return []
    found = unwrapped(kind)
    return list(found.__struct_encode_fields__) if is_struct(found) else []


def unwrapped(kind: Any) -> Any:
    """A type without its annotations, and without `None`."""
    while True:
        if hasattr(kind, "__metadata__"):
            kind = typing.get_args(kind)[0]
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            kind = next((part for part in typing.get_args(kind) if part is not types.NoneType), None)
        else:
            return kind


def is_struct(kind: Any) -> bool:
    """Whether a type is a `msgspec.Struct`."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
