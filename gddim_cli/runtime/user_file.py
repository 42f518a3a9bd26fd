"""Python files of the user: they are executed, as any program is, and their errors become one line that names the file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from gddim_cli.errors import DataError, GddimError

T = TypeVar("T")


def execute(path: Path) -> ModuleType:
    """The module that a Python file defines.

    Raises:
        DataError: the file is missing, raises an error or exits.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"gddim_user_{path.stem}", path)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up while they are made
    guarded(path, "running it", lambda: loader.exec_module(module))
    return module


def guarded(path: Path, what: str, call: Callable[[], T]) -> T:
    """What the user's code returns; any error in it, and any attempt to exit, becomes a message that names the file.

    Raises:
        DataError: in place of the error.
    """
    try:
        return call()
    except GddimError as error:
        raise DataError(f"{path}: {what} failed: {error}") from error
    except (Exception, SystemExit) as error:
        reason = f": {error}" if str(error) else ""
        raise DataError(f"{path}: {what} raised {type(error).__name__}{reason}") from error
