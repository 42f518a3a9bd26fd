"""Python files of users: they are executed, and their errors are reported as one line that names the file."""

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
    sys.modules[spec.name] = module  # dataclasses look up their module while they are created
    guarded(path, "running it", lambda: loader.exec_module(module))
    return module


def guarded(path: Path, what: str, call: Callable[[], T]) -> T:
    """The result of a call into the user's code.

    Raises:
        DataError: the code raised an error or tried to exit; the message names the file.
    """
    try:
        return call()
    except GddimError as error:
        raise DataError(f"{path}: {what} failed: {error}") from error
    except (Exception, SystemExit) as error:
        reason = f": {error}" if str(error) else ""
        raise DataError(f"{path}: {what} raised {type(error).__name__}{reason}") from error
