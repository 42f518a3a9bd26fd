"""Reads what a pickle describes, without running the pickle.

A pickle is a program: loading it imports modules and calls functions from them. This reader interprets only the opcodes
that build plain data. For an import, the reader records a `Name`; for a call, it records a `Call` with the arguments.
Whatever the file contains, nothing is imported or called.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gddim_cli.errors import DataError
from gddim_cli.runtime.archives import read_whole, refuse_packed

Buffer = bytes | memoryview

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
LONGEST_INTEGER = 64  # bytes
LARGEST_TORCH_PICKLE = 64 << 20  # bytes, without the tensors; the released files need 0.5 MB
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, OverflowError, EOFError)
KEYS = (str, int, float, bool, bytes, type(None))


class OutlineError(Exception):
    """The file is not a pickle, is damaged, or has opcodes that plain data does not need."""


@dataclass(frozen=True)
class Name:
    """Something that the pickle would import."""

    name: str


@dataclass(eq=False)
class Call:
    """Something that the pickle would call.

    Attributes:
        name: the name of the function or class, with its module.
        args: the arguments of the call.
        state: what would be passed to `__setstate__` of the result.
        items: the elements, or the alternating keys and values, that would be added to the result.
    """

    name: str
    args: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Persistent:
    """A reference to data outside the pickle, such as a torch storage."""

    identity: Any


class Mark:
    """A stack entry that marks where the arguments of an opcode begin."""


MARK = Mark()


class Interpreter:
    """Reads one pickle.

    Args:
        data: the bytes; long byte strings are returned as views of them.
        position: the offset at which the pickle begins.
        refuse: called with the name of each import, before the import is recorded; may raise an error.
    """

    def __init__(self, data: Buffer, position: int = 0, refuse: Callable[[str], object] = lambda _: None) -> None:
        self.data, self.position, self.refuse = data, position, refuse
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}  # a dict, because an index in the file may be huge

    def run(self) -> Any:
        """The value that the pickle describes. Afterwards `position` is the offset just after the pickle.

        Raises:
            OutlineError: the pickle is truncated or malformed.
        """
        self.stack, self.memo = [], {}
        try:
            while (opcode := self.take(1)[0]) != STOP:
                action = ACTIONS.get(opcode)
                if action is None:
                    raise OutlineError(f"unsupported opcode {opcode:#x} at byte {self.position - 1}")
                action(self)
            return self.stack.pop()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            raise OutlineError(f"damaged before byte {self.position}") from error

    def take(self, count: int) -> Buffer:
        """The next `count` bytes."""
        found = self.data[self.position : self.position + count]
        if len(found) != count:
            raise OutlineError("truncated")
        self.position += count
        return found

    def number(self, layout: str) -> Any:
        """The next number, in the format `layout` of the module `struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """The next line of text."""
        begin = self.position
        while self.take(1)[0] != 0x0A:
            if self.position - begin > 1000:
                raise OutlineError(f"damaged before byte {self.position}")
        return bytes(self.data[begin : self.position - 1]).decode()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Removes the last mark and all items above it from the stack, and returns the items."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise OutlineError(f"damaged before byte {self.position}")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def put_items(self, pairs: list[Any]) -> None:
        """Adds alternating keys and values to the dictionary or `Call` on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Call):
            target.items.extend(pairs)
            return
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, KEYS):
                raise OutlineError(f"a {type(key).__name__} as a key before byte {self.position}")
            target[key] = value

    def put_elements(self, elements: list[Any]) -> None:
        """Appends elements to the list or `Call` on top of the stack; a set is read as a list."""
        target = self.stack[-1]
        (target.items if isinstance(target, Call) else target).extend(elements)

    def name(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise OutlineError(f"damaged before byte {self.position}")
        self.refuse(f"{module}.{attribute}")
        self.push(Name(f"{module}.{attribute}"))

    def call(self, args: Any) -> None:
        """Replaces the name on top of the stack by a `Call` of that name, or by {} for an OrderedDict."""
        called = self.stack.pop()
        if called == Name("collections.OrderedDict"):
            self.push({})
        elif isinstance(called, Name) and isinstance(args, tuple):
            self.push(Call(called.name, args))
        else:
            raise OutlineError(f"a call of a {type(called).__name__} before byte {self.position}")

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def integer(self, size: int) -> None:
        if size > LONGEST_INTEGER:
            raise OutlineError(f"an integer of {size} bytes before byte {self.position}")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def text(self, size: int, encoding: str = "utf-8") -> None:
        self.push(bytes(self.take(size)).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise OutlineError(f"damaged before byte {self.position}")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(found)

    def dictionary(self) -> None:
        pairs = self.marked()
        self.push({})
        self.put_items(pairs)


def pickled(opcode: str) -> int:
    return ord(opcode)


STOP = pickled(".")
# What each opcode does. The names in the comments are those of the module `pickle`.
ACTIONS: dict[int, Callable[[Interpreter], Any]] = {
    0x80: lambda it: it.take(1),  # PROTO
    0x95: lambda it: it.take(8),  # FRAME
    pickled("("): lambda it: it.push(MARK),
    pickled("0"): lambda it: it.stack.pop(),  # POP
    pickled("1"): lambda it: it.marked(),  # POP_MARK
    pickled("2"): lambda it: it.push(it.stack[-1]),  # DUP
    pickled("N"): lambda it: it.push(None),
    0x88: lambda it: it.push(True),
    0x89: lambda it: it.push(False),
    pickled("I"): lambda it: it.push({"00": False, "01": True}.get(text := it.line()) or int(text)),
    pickled("J"): lambda it: it.push(it.number("<i")),
    pickled("K"): lambda it: it.push(it.number("<B")),
    pickled("M"): lambda it: it.push(it.number("<H")),
    0x8A: lambda it: it.integer(it.number("<B")),
    0x8B: lambda it: it.integer(it.number("<I")),
    pickled("G"): lambda it: it.push(it.number(">d")),
    pickled("X"): lambda it: it.text(it.number("<I")),
    0x8C: lambda it: it.text(it.number("<B")),
    0x8D: lambda it: it.text(it.number("<Q")),
    pickled("U"): lambda it: it.text(it.number("<B"), "latin-1"),
    pickled("T"): lambda it: it.text(it.number("<I"), "latin-1"),
    pickled("B"): lambda it: it.push(it.take(it.number("<I"))),
    pickled("C"): lambda it: it.push(bytes(it.take(it.number("<B")))),
    0x8E: lambda it: it.push(it.take(it.number("<Q"))),
    pickled("]"): lambda it: it.push([]),
    pickled("l"): lambda it: it.push(it.marked()),
    pickled("a"): lambda it: it.put_elements([it.stack.pop()]),
    pickled("e"): lambda it: it.put_elements(it.marked()),
    pickled(")"): lambda it: it.push(()),
    pickled("t"): lambda it: it.push(tuple(it.marked())),
    0x85: lambda it: it.tuple_of(1),
    0x86: lambda it: it.tuple_of(2),
    0x87: lambda it: it.tuple_of(3),
    pickled("}"): lambda it: it.push({}),
    pickled("d"): lambda it: it.dictionary(),
    pickled("s"): lambda it: it.put_items([it.stack.pop(-2), it.stack.pop()]),
    pickled("u"): lambda it: it.put_items(it.marked()),
    0x8F: lambda it: it.push([]),  # EMPTY_SET
    0x90: lambda it: it.put_elements(it.marked()),  # ADDITEMS
    0x91: lambda it: it.push(it.marked()),  # FROZENSET
    pickled("p"): lambda it: it.memo.__setitem__(int(it.line()), it.stack[-1]),
    pickled("q"): lambda it: it.memo.__setitem__(it.number("<B"), it.stack[-1]),
    pickled("r"): lambda it: it.memo.__setitem__(it.number("<I"), it.stack[-1]),
    0x94: lambda it: it.memo.__setitem__(len(it.memo), it.stack[-1]),  # MEMOIZE
    pickled("g"): lambda it: it.push(it.memo[int(it.line())]),
    pickled("h"): lambda it: it.push(it.memo[it.number("<B")]),
    pickled("j"): lambda it: it.push(it.memo[it.number("<I")]),
    pickled("c"): lambda it: it.name(it.line(), it.line()),
    0x93: lambda it: it.name(it.stack.pop(-2), it.stack.pop()),  # STACK_GLOBAL
    pickled("R"): lambda it: it.call(it.stack.pop()),
    0x81: lambda it: it.call(it.stack.pop()),
    pickled("b"): lambda it: it.build(),
    pickled("Q"): lambda it: it.push(Persistent(it.stack.pop())),
}


def read_outline(path: Path, refuse: Callable[[str], object] = lambda _: None) -> Any:
    """The value that a pickle file describes; long byte strings are views of the file.

    Raises:
        OutlineError: the file is not a pickle, or is damaged.
        OSError: the file cannot be read.
    """
    return Interpreter(mapped(path), 0, refuse).run()


@lru_cache(maxsize=4)
def cached_torch_outline(path: Path, size: int, modified: int) -> Any:
    """`torch_outline`, cached until the size or the modification time of the file changes."""
    del size, modified
    if zipfile.is_zipfile(path):
        return Interpreter(torch_pickle(path)).run()
    interpreter = Interpreter(mapped(path))
    if interpreter.run() != TORCH_MAGIC:
        raise OutlineError("not a torch checkpoint")
    values = [interpreter.run() for _ in range(3)]
    return values[2]


def torch_outline(path: Path) -> Any:
    """The value that a file written by `torch.save` describes. Each tensor in it is a `Call` of `_rebuild_tensor_v2`.

    Raises:
        OutlineError: `torch.save` did not write the file, or the file is damaged.
        OSError: the file cannot be read.
    """
    status = path.stat()
    return cached_torch_outline(path, status.st_size, status.st_mtime_ns)


def torch_pickle(path: Path) -> bytes:
    """The pickle inside a zip that `torch.save` wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
            if len(names) != 1 or names[0].file_size > LARGEST_TORCH_PICKLE:
                raise OutlineError("not a torch checkpoint")
            refuse_packed(names, path)
            return read_whole(archive, names[0])
    except ZIP_DAMAGE as error:
        raise OutlineError("a damaged zip") from error
    except DataError as error:
        raise OutlineError("a compressed zip") from error


def mapped(path: Path) -> memoryview:
    """The file's bytes as a memory map, which reads from disk only the parts that are used."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise OutlineError("empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def keys(value: Any) -> set[Any]:
    """The keys of a dictionary; for any other value, an empty set."""
    return set(value) if isinstance(value, dict) else set()
