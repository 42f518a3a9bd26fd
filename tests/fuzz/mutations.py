"""Nasty values, and values put into texts and trees."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

NUMBERS = [
    "0", "-0", "-1", "1", "2", "3", "0.5", "1.5", "1e-320", "1e400", "-1e400", "nan", "inf", "-inf", "012", "1e1", "0x10", "1_0",
    "+2", " 2", "2 ", "٣", "1e308", "1e-308", "999999999999999999999", "-999999999999999999999", "1" * 5000, "1e" + "9" * 400,
]  # fmt: skip
TEXTS = [
    "", " ", ".", "..", "/", "-", "--", "~", "*", "%s%s%n", "{}", "[]", "a\nb", "a\tb", "\x1b[31mred\x1b[0m", "\u202e", "\ud7ff",
    "\udcff\udcfe", "ü" * 200, "a" * 300, "a" * 5000, "nul", "auto", "true", "none", "a,b", ",", "a=b", "=", ":", "/dev/null",
    "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem", "/proc/self/fd", "nowhere/x.npz", "[bold]x", "\\", "'", '"', "$(id)",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 10**9, 10**20, -(10**20), 0.0, -0.5, 1e300, 1e-300, float("inf"), float("nan"), "", "x",
    "\x1b[2J", "\ud800", "x" * 10_000, [], [1], [[]], {}, {"a": 1}, [None], [0] * 1000, "2024-13-01", "0x", "1e3", "/dev/zero", "../x",
]  # fmt: skip
YAML = [
    "{", "[", "]", "- ", "? ", ": ", "!!int x", "!!float x", "!!python/object/apply:os.system [id]", "!!binary aa", "0x", "1:30:00",
    "2024-13-01", "&a [*a]", "*a", "|", ">", "%YAML 9.9", "---", "...", "\t", "\x00", "\ufeff", "012", "1" * 5000, "[" * 3000, "{a: " * 500,
    "~", "<<: {a: 1}", "nfe: 10", "!x y", "'", '"', "@", "`", "#", "\u2028", "yes", "1e3", ".inf", ".nan", "-.inf",
]  # fmt: skip


def paths_of(tree: Any, here: tuple = ()) -> Iterator[tuple]:
    """The path of every value in nested dicts and lists."""
    yield here
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:20]) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from paths_of(value, (*here, key))


def changed_tree(draw: np.random.Generator, tree: Any) -> tuple[Any, str]:
    """A copy with some values replaced, removed, added or nested, and what was done."""
    tree, notes = copy.deepcopy(tree), []
    for _ in range(int(draw.integers(1, 4))):
        places = list(paths_of(tree))
        path = places[int(draw.integers(len(places)))]
        value = copy.deepcopy(VALUES[int(draw.integers(len(VALUES)))])
        notes.append(f"{'.'.join(map(str, path))} = {value!r:.30}")
        if not path:
            if draw.integers(6) == 0:
                return value, notes[-1]
            continue
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        kind = draw.integers(6)
        if kind == 0 and isinstance(parent, dict):
            del parent[path[-1]]
            notes[-1] = f"without {'.'.join(map(str, path))}"
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{path[-1]}x"] = value
        elif kind == 2 and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent[:1]) * int(draw.integers(1, 50)))
        else:
            parent[path[-1]] = value
    return tree, ", ".join(notes)


def changed_text(draw: np.random.Generator, text: str) -> tuple[str, str]:
    """A YAML text with fragments put in, lines doubled, removed or indented, and what was done."""
    lines, notes = text.splitlines(), []
    for _ in range(int(draw.integers(1, 4))):
        at, piece = int(draw.integers(len(lines))), YAML[int(draw.integers(len(YAML)))]
        kind = int(draw.integers(6))
        notes.append(f"line {at} kind {kind} {piece!r:.30}")
        if kind == 0:
            lines.insert(at, piece)
        elif kind == 1:
            lines[at] = f"{lines[at].partition(':')[0]}: {piece}"
        elif kind == 2:
            lines.insert(at, lines[at])
        elif kind == 3:
            lines[at] = "  " + lines[at]
        elif kind == 4:
            lines[at] += piece
        elif len(lines) > 1:
            del lines[at]
    return "\n".join(lines), ", ".join(notes)


def pick(draw: np.random.Generator, values: list) -> Any:
    """One of the values."""
    return values[int(draw.integers(len(values)))]
