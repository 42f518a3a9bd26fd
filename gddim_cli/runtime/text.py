"""Formats texts and numbers for printing."""

from __future__ import annotations

LONGEST = 200


def printable(text: object, longest: int = LONGEST) -> str:
    """The text in one line, without control characters (see `plain`), shortened to at most `longest` characters."""
    line = " ".join(plain(str(text)[: 10 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def plain(text: str) -> str:
    """The text without control characters other than line ends. A terminal would obey such characters.

    Bytes of a file name that are not UTF-8 appear as escapes, such as `\\xff`.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else escaped(letter) for letter in text)


def escaped(letter: str) -> str:
    """A character that cannot be printed: an undecodable byte as an escape, any other as a space."""
    return f"\\x{ord(letter) - 0xDC00:02x}" if "\udc80" <= letter <= "\udcff" else " "


def message_of(error: BaseException) -> str:
    """An error's message; empty if the error is of a user's own class and cannot give its message."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (a user's code)
        return ""


def reason(error: BaseException) -> str:
    """An error's message in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else message_of(error)
    return printable(text) or type(error).__name__


def decimals(value: float) -> int:
    """The number of decimals with which tables print a value: from 0 for values above 1000 up to 4 for small values."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4


def figure(value: float) -> str:
    """A number in the format of tables."""
    return f"{value:.{decimals(value)}f}"


def with_error(value: float, error: float | None) -> str:
    """A number with its standard error, if known: `3.31 ± 0.04`. An error above 0 is never rounded to 0."""
    shown = "" if error is None else f"{error:.{decimals(value)}f}"
    shown = figure(error) if error and not float(shown) else shown
    return figure(value) + (f" ± {shown}" if shown else "")


def rounded(value: float) -> str:
    """A number of any size with at least two significant digits: `1.2e-03`, `0.16`, `55`."""
    return f"{value:.1e}" if value < 0.01 else f"{value:#.2g}" if value < 10 else f"{value:.0f}"


def signed(value: float | None, beside: float | None) -> str:
    """A difference with its sign and with as many decimals as the number `beside`; empty if either is None."""
    return "" if value is None or beside is None else f"{value:+.{decimals(beside)}f}"


def counted(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def printed(value: float | str | None) -> str:
    """A number with up to six significant digits, a text unchanged, an empty text for None."""
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
