"""Resumable downloads: from URLs with requests, from Google Drive with gdown.

Error messages do not name the address; the caller adds it.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable
from pathlib import Path

import gdown
import gdown.exceptions
import requests

from gddim_cli.checkpoints.card import Source
from gddim_cli.errors import DownloadError
from gddim_cli.runtime.files import writing
from gddim_cli.runtime.text import printable

OnBytes = Callable[[int, int | None], None]
"""Called with the number of bytes that have arrived and, if known, the total; may raise an error to stop."""

ATTEMPTS = 4
TIMEOUT = (15, 60)  # Seconds to connect, and seconds between bytes.
CHUNK = 1 << 16  # Bytes. An interrupted connection loses at most this many.
PAGE_STARTS = (b"<!doctype html", b"<html")
QUOTA = ("quota exceeded", "too many users have viewed or downloaded")
QUOTA_USED = "Google Drive's download quota for this file is used up; try again in a few hours"


class CutError(Exception):
    """The connection ended early, or the answer did not fit the partial download; another attempt may succeed."""


def fetch_url(url: str, part: Path, on_bytes: OnBytes) -> Path:
    """Downloads `url` into `part`, resuming an earlier download; retries interrupted connections.

    Returns:
        `part`.

    Raises:
        DownloadError: the server or the file does not exist, the server sends a web page instead of the file, or every
            attempt is interrupted (`part` is kept).
        OutputError: `part` cannot be written.
    """
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            fetch_once(url, part, on_bytes)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            CutError,
        ) as error:
            problem = reason(error)
        except (requests.RequestException, ValueError) as error:  # ValueError: an impossible host name
            raise DownloadError(reason(error)) from error
        else:
            return part
    raise DownloadError(f"{problem}; rerun the same command to resume")


def fetch_once(url: str, part: Path, on_bytes: OnBytes) -> None:
    """One attempt of `fetch_url`.

    Raises:
        CutError: fewer bytes arrived than were announced, or the answer does not fit `part`.
        DownloadError, OutputError: as `fetch_url`.
        requests.RequestException: the connection fails or breaks off.
    """
    version = version_of(part, url)
    have = part.stat().st_size if part.exists() and version is not None else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if version:  # If the file has changed, this makes the server send all of it.
            headers["If-Range"] = version
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return  # `part` is already complete.
            part.unlink(missing_ok=True)
            raise CutError("the partial download does not match the server's file")
        if not answer.ok:
            raise DownloadError(f"HTTP {answer.status_code} {printable(answer.reason, 60)}".strip())
        resumed = answer.status_code == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise CutError("the server sent a different part than requested")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length", "")
        plain = (
            answer.headers.get("Content-Encoding", "identity") == "identity"
        )  # Otherwise Content-Length counts compressed bytes.
        total = have + int(length) if plain and length.isdigit() and len(length) < 20 else None
        if "text/html" in answer.headers.get("Content-Type", ""):
            refuse_page(answer.raw.read(1 << 16))
            raise DownloadError("the server sent a web page instead of the file")
        on_bytes(have, total)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        with writing(part):
            stamp_of(part).write_text(f"{url}\n{'' if version.startswith('W/') else version}", encoding="utf-8")
        receive(answer, part, have, total, on_bytes)


def stamp_of(part: Path) -> Path:
    """The file that records where `part` comes from (the address), and in which version (an ETag or a date)."""
    return part.with_name(f"{part.name}.version")


def version_of(part: Path, url: str) -> str | None:
    """The recorded version of `part`, empty if the server gave none; None if `part` is not known to come from `url`."""
    try:
        address, _, version = stamp_of(part).read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    sound = version.isascii() and (version.isprintable() or not version)
    return version if address == url and sound else None


def receive(answer: requests.Response, part: Path, have: int, total: int | None, on_bytes: OnBytes) -> None:
    """Appends the answer's bytes to the first `have` bytes of `part`.

    Raises:
        CutError, DownloadError, OutputError, requests.RequestException: as `fetch_once`.
    """
    with writing(part):
        file = part.open("ab" if have else "wb")
    with file:
        for chunk in answer.iter_content(CHUNK):
            if not have:
                refuse_page(chunk, part)
            with writing(part):
                file.write(chunk)
                file.flush()
            have += len(chunk)
            on_bytes(have, total)
    if total is not None and have < total:
        raise CutError(f"the connection was interrupted after {have} of {total} bytes")


def fetch_drive(source: Source, part: Path, on_bytes: OnBytes) -> Path:
    """Downloads a Google Drive file, given by its id or by its name in a folder.

    Returns:
        The path of the file. It is beside `part`, because `part` may hold a partial download from another source.

    Raises:
        DownloadError: the quota is used up, the file is not public or not in the folder, or the download was
            interrupted (the bytes that arrived stay beside `part`).
        OutputError: `part` cannot be written.
    """
    whole = part.with_name(f"{part.name}.drive")
    with writing(whole):
        download_from_drive(source, whole, on_bytes)
    with whole.open("rb") as file:
        refuse_page(file.read(1 << 16), whole)
    return whole


def download_from_drive(source: Source, part: Path, on_bytes: OnBytes) -> None:
    """Downloads a Drive file with gdown, for `fetch_drive`.

    Raises:
        DownloadError: as `fetch_drive`.
        OSError: `part` cannot be written.
    """
    try:
        gdown.download(
            id=source.google_drive or find_in_folder(source),
            output=str(part),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=on_bytes,
            timeout=TIMEOUT,
            retries=ATTEMPTS - 1,
        )
    except (gdown.exceptions.DownloadError, requests.RequestException) as error:
        if any(words in str(error).lower() for words in QUOTA):
            raise DownloadError(QUOTA_USED) from error
        raise DownloadError(reason(error)) from error


def find_in_folder(source: Source) -> str:
    """The id of the file in the Drive folder; see `Source.smallest_number`.

    Raises:
        DownloadError: the folder has no such file, or cannot be listed.
    """
    try:
        listed = gdown.download_folder(
            id=source.google_drive_folder, skip_download=True, quiet=True, use_cookies=False, timeout=TIMEOUT
        )
    except (gdown.exceptions.DownloadError, requests.RequestException) as error:
        raise DownloadError(reason(error)) from error
    names = {Path(entry.path).name: entry.id for entry in listed if not isinstance(entry, str)}
    if source.file in names:
        return names[source.file]
    stem = re.sub(r"\d+", r"(\\d+)", re.escape(source.file))
    numbered = sorted((int(match[1]), name) for name in names if (match := re.fullmatch(stem, name)))
    if source.smallest_number and numbered:
        return names[numbered[0][1]]
    held = ", ".join(printable(name, 60) for name in sorted(names)[:10]) or "nothing"
    raise DownloadError(f"no {source.file} in the Drive folder, which holds {held}")


def refuse_page(start: bytes, part: Path | None = None) -> None:
    """Refuses a web page that the server sent instead of a file, and removes `part`.

    Args:
        start: the first bytes of the answer.

    Raises:
        DownloadError: the answer is a web page; the message quotes its title, or says that Drive's quota is used up.
    """
    if not start.lstrip().lower().startswith(PAGE_STARTS):
        return
    if part is not None:
        part.unlink()
        stamp_of(part).unlink(missing_ok=True)
    text = start.decode("utf-8", "replace")
    if any(words in text.lower() for words in QUOTA):
        raise DownloadError(QUOTA_USED)
    title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    quoted = f" ('{printable(title[1], 80)}')" if title else ""
    raise DownloadError(f"the server sent a web page{quoted} instead of the file")


def reason(error: Exception) -> str:
    """A network error in a few words, without the address."""
    if isinstance(error.__cause__, requests.RequestException):  # gdown quotes the cause in full
        return reason(error.__cause__)
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was interrupted"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached (no network, or no such server)"
    if isinstance(error, (CutError, DownloadError)):
        return str(error)
    if isinstance(error, ValueError):
        return f"not a usable address ({type(error).__name__})"
    # Messages of libraries contain the address and a traceback; their first line says what happened.
    text = re.sub(r"https?://\S+", "its address", str(error).partition("\n")[0])
    return printable(text, 160) or type(error).__name__
