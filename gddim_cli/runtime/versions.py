"""The versions that a result depends on."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from gddim_cli import __version__


def versions() -> dict[str, str]:
    """The versions of gddim, Python and the packages that compute results, by name; missing packages are left out."""
    found = {"gddim": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "pillow", "clean-fid"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
