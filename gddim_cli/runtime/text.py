"""Texts and numbers as they are printed."""

from __future__ import annotations

LONGEST = 200


def printable(text: object, longest: int = LONGEST) -> str:
    """The text in one line, without control characters (a terminal would obey escape codes), shortened if very long.

    Bytes of a file name that are not UTF-8 appear as `\\xff`.
    """
    kept = "".join(letter if letter.isprintable() else escaped(letter) for letter in str(text)[: 10 * longest])
    line = " ".join(kept.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def escaped(letter: str) -> str:
    """A character that cannot be printed: an undecodable byte as an escape, any other as a space."""
    return f"\\x{ord(letter) - 0xDC00:02x}" if "\udc80" <= letter <= "\udcff" else " "


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text) or type(error).__name__


def decimals(value: float) -> int:
    """Digits after the point for a number in a table: about four in all, at least two below 100."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4


def figure(value: float) -> str:
    """A number as tables print it."""
    return f"{value:.{decimals(value)}f}"


def rounded(value: float) -> str:
    """A number of any size to two digits: `1.2e-03`, `0.16`, `55`."""
    return f"{value:.1e}" if value < 0.01 else f"{value:#.2g}" if value < 10 else f"{value:.0f}"


def signed(value: float | None, beside: float | None) -> str:
    """A difference with its sign, with as many digits as the number beside it."""
    return "" if value is None or beside is None else f"{value:+.{decimals(beside)}f}"


def counted(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def printed(value: float | str | None) -> str:
    """A number in full, a text as it is, nothing for None."""
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
