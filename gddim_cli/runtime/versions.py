"""Versions of what makes the numbers."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from gddim_cli import __version__


def versions() -> dict[str, str]:
    """Of gddim, Python and the packages whose arithmetic is in a result."""
    found = {"gddim": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "pillow", "clean-fid"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
