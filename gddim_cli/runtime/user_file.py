"""Executes users' Python files, and reports errors in them in one line that names the file."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from gddim_cli.errors import DataError, GddimError
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.registry import ORIGINS, Registry, Spec
from gddim_cli.runtime.text import message_of

T = TypeVar("T")
S = TypeVar("S", bound=Spec)
PREFIX = "gddim_user_"
"""Prefix of the module names that users' files get."""
LOADED: dict[tuple[type[Spec], str], Spec] = {}
"""Specs that were loaded from files, by the class of the spec and the sha256 of the file."""


def execute(path: Path) -> ModuleType:
    """The module that a Python file defines.

    Raises:
        DataError: the file is missing, raises an error or exits.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
    spec = importlib.util.spec_from_file_location(f"{PREFIX}{path.stem}", path)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module while they are created
    guarded(path, "running it", lambda: loader.exec_module(module))
    return module


def guarded(
    path: Path | str, what: str, call: Callable[[], T], let_through: Callable[[BaseException], bool] | None = None
) -> T:
    """The result of a call into the user's code. The current folder and stderr are the same afterwards.

    What the code prints goes to stderr, since stdout may hold JSON.

    Args:
        path: the user's file, or the plugin, for messages.
        let_through: returns True for an error that is raised unchanged because the caller handles it.

    Raises:
        DataError: the code raised an error or tried to exit; the message names the file, and its line if it is known.
    """
    try:
        with same_surroundings(), redirect_stdout(sys.stderr):
            return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if let_through and let_through(error):
            raise
        if isinstance(error, GddimError):
            raise DataError(f"{path}: {what} failed: {message_of(error)}") from error
        raise DataError(f"{path}: {what} {raised(error)}") from error


@contextmanager
def same_surroundings() -> Iterator[None]:
    """Restores the current folder and the stream stderr when the context is left."""
    folder, stream = Path.cwd(), sys.stderr
    try:
        yield
    finally:
        sys.stderr = stream
        with suppress(OSError):  # The code may have removed the folder.
            os.chdir(folder)


def raised(error: BaseException) -> str:
    """A description of an error in a user's code, with the line that raised it."""
    message = message_of(error)
    reason = f": {message}" if message else ""
    lines = user_lines(error)
    name = type.__dict__["__name__"].__get__(type(error))  # A user's class may redefine it.
    return f"raised {name}{reason}" + (f" (line {lines[-1][1]})" if lines else "")


def user_lines(error: BaseException) -> list[tuple[str, int]]:
    """The lines of users' files in the traceback of an error, as file and line number; the innermost comes last."""
    frames = traceback.walk_tb(BaseException.__dict__["__traceback__"].__get__(error))  # A class may redefine it.
    return [
        (frame.f_code.co_filename, line)
        for frame, line in frames
        if str(frame.f_globals.get("__name__", "")).startswith(PREFIX)
    ]


def is_function(reference: str) -> bool:
    """Whether a reference is `FILE.py:FUNCTION`."""
    file, colon, _ = reference.rpartition(":")
    return bool(colon) and file.endswith(".py")


def function_of(reference: str) -> tuple[Path, Callable[..., Any]]:
    """The path and the function that `FILE.py:FUNCTION` refers to. The file is executed.

    Raises:
        DataError: the file or the function is missing, or the file raises an error.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    function = getattr(execute(path), name, None)
    if not callable(function):
        raise DataError(f"{path}: defines no function '{name}'")
    return path, function


def spec_of(path: Path, registry: Registry[S]) -> S:
    """The spec that a Python file defines. It is also added to the registry. The file is executed only once.

    Raises:
        DataError: the file is missing, raises an error, or does not define exactly one spec of the registry's kind.
        UsageError: the name of the spec is already taken by another one.
    """
    kind = registry.kind
    key = kind, sha256(path) if path.is_file() else ""
    if key not in LOADED:
        from gddim_cli.runtime.tensors import same_defaults

        with same_defaults():
            module = execute(path)
        specs = {id(value): value for value in vars(module).values() if isinstance(value, kind)}
        if len(specs) != 1:
            raise DataError(f"{path}: defines {len(specs)} {registry.word}s; exactly one {kind.__name__} is needed")
        (spec,) = specs.values()
        registry.add(spec)
        LOADED[key], ORIGINS[id(spec)] = spec, str(path)
    found = LOADED[key]
    assert isinstance(found, kind)
    return found
