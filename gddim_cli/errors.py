"""The errors that a user can cause and correct. The command line catches `GddimError` in one place.

Each message is one line. It names the faulty setting or file, says what is wrong with it, and offers a remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GddimError(Exception):
    """The base class of all errors of this package.

    Attributes:
        exit_code: the exit status of the command.
    """

    exit_code = 1


class UsageError(GddimError):
    """The request itself is wrong: an invalid value of an option, or two options that exclude each other."""

    exit_code = 2


class CheckpointError(GddimError):
    """A checkpoint or its model card is missing, damaged, or contradicts itself."""


class DownloadError(GddimError):
    """A published file cannot be downloaded, or differs from its card or from an earlier download."""


class DataError(GddimError):
    """An input file or folder cannot be used."""


class OutputError(GddimError):
    """An output cannot be written."""


class CapacityError(GddimError):
    """The machine does not have enough memory for the request."""


class PeerError(GddimError):
    """Another process of the process group has ended, so this process cannot continue."""


class NumericsError(GddimError):
    """A computation is not accurate, not finite, or not defined."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an error message: the known word closest to a mistyped one, or all known words if none is close."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(words)}"
