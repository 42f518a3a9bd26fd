"""The errors that a person can cause and mend. The command line catches `GddimError` once; nothing else is caught broadly.

A message names the thing, its value, and the way out, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GddimError(Exception):
    """Base of all. `exit_code` is the status that the command ends with."""

    exit_code = 1


class UsageError(GddimError):
    """The call itself is wrong: an option's value, or two options that exclude each other."""

    exit_code = 2


class CheckpointError(GddimError):
    """A checkpoint or its card is missing, damaged, or contradicts itself."""


class DownloadError(GddimError):
    """A published file cannot be fetched, or is not what it was."""


class DataError(GddimError):
    """An input file or folder cannot be used."""


class OutputError(GddimError):
    """An output cannot be written."""


class CapacityError(GddimError):
    """The machine has not enough memory for what was asked."""


class PeerError(GddimError):
    """Another process of the run has ended, and so this one cannot go on."""


class NumericsError(GddimError):
    """A computation did not reach its accuracy, or left the finite numbers."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a message: the known word nearest to a mistyped one, or all of them."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(words)}"
