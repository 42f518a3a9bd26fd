"""Text that comes from files, made safe to print."""

from __future__ import annotations

LONGEST = 200


def printable(text: object, longest: int = LONGEST) -> str:
    """The text in one line, without control characters (a terminal would obey escape codes), shortened if very long."""
    kept = "".join(letter if letter.isprintable() else " " for letter in str(text)[: 10 * longest])
    line = " ".join(kept.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
