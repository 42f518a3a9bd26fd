"""Bytes from the network into a file that goes on where it was cut: https by requests, Google Drive by gdown."""

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

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, with how many there will be; may raise to stop."""

ATTEMPTS = 4
TIMEOUT = (15, 60)  # seconds: to connect, between bytes
CHUNK = 1 << 16  # what is lost at most when a connection is cut
PAGE_STARTS = (b"<!doctype html", b"<html")
QUOTA = ("quota exceeded", "too many users have viewed or downloaded")


class CutError(Exception):
    """The connection ended before the file did."""


def fetch_url(url: str, part: Path, on_bytes: OnBytes) -> Path:
    """Downloads `url` into `part`, from where an earlier call left it; tries again when the connection is cut.

    Returns:
        `part`.

    Raises:
        DownloadError: no such file there, a page in its place, or cut every time (what came stays in `part`).
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
        except requests.RequestException as error:
            raise DownloadError(f"{url}: {reason(error)}") from error
        else:
            return part
    raise DownloadError(f"{url}: {problem}; what has come is kept, and the same command goes on from there")


def fetch_once(url: str, part: Path, on_bytes: OnBytes) -> None:
    """One attempt of `fetch_url`.

    Raises:
        CutError: fewer bytes came than were announced.
        DownloadError, OutputError, requests.RequestException: as there.
    """
    version = version_of(part, url)
    have = part.stat().st_size if part.exists() and version is not None else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if version:  # an exchanged file is then sent whole, not as another file's end
            headers["If-Range"] = version
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it was there
            part.unlink(missing_ok=True)
            raise CutError("the part that was there did not fit; beginning anew")
        if not answer.ok:
            raise DownloadError(f"{url}: HTTP {answer.status_code} {answer.reason}")
        resumed = answer.status_code == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise CutError("the server sent another part than was asked for; beginning anew")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if "text/html" in answer.headers.get("Content-Type", ""):
            refuse_page(answer.raw.read(1 << 16), url)
            raise DownloadError(f"{url}: a web page came in place of the file")
        on_bytes(have, total)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        with writing(part):
            stamp_of(part).write_text(f"{url}\n{'' if version.startswith('W/') else version}")
        receive(answer, part, have, total, on_bytes, url)


def stamp_of(part: Path) -> Path:
    """Where it is kept what `part` is of: its address and its version, as the server calls it."""
    return part.with_name(f"{part.name}.version")


def version_of(part: Path, url: str) -> str | None:
    """The version that `part` is of, perhaps empty; None where it is not known to come from `url`."""
    stamp = stamp_of(part)
    address, _, version = stamp.read_text().partition("\n") if stamp.exists() else ("", "", "")
    return version if address == url else None


def receive(answer: requests.Response, part: Path, have: int, total: int | None, on_bytes: OnBytes, url: str) -> None:
    """Writes the answer's bytes behind the first `have` of `part`.

    Raises:
        CutError, DownloadError, OutputError, requests.RequestException: as `fetch_once`.
    """
    with writing(part):
        file = part.open("ab" if have else "wb")
    with file:
        for chunk in answer.iter_content(CHUNK):
            if not have:
                refuse_page(chunk, url, part)
            with writing(part):
                file.write(chunk)
                file.flush()
            have += len(chunk)
            on_bytes(have, total)
    if total is not None and have < total:
        raise CutError(f"the connection was cut after {have} of {total} bytes")


def fetch_drive(source: Source, part: Path, on_bytes: OnBytes) -> Path:
    """Downloads a Google Drive file, or the one of its name in a folder.

    Returns:
        Where it is: beside `part`, which another source may have begun. gdown keeps its own parts there.

    Raises:
        DownloadError: quota used up, not public, not in the folder, or cut (what came stays beside `part`).
        OutputError: `part` cannot be written.
    """
    whole = part.with_name(f"{part.name}.drive")
    with writing(whole):
        download_from_drive(source, whole, on_bytes)
    with whole.open("rb") as file:
        refuse_page(file.read(1 << 16), source.page, whole)
    return whole


def download_from_drive(source: Source, part: Path, on_bytes: OnBytes) -> None:
    """gdown's part of `fetch_drive`.

    Raises:
        DownloadError: as there.
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
        text = " ".join(str(error).split())
        if any(words in text.lower() for words in QUOTA):
            raise DownloadError(quota(source.page)) from error
        raise DownloadError(f"{source.page}: {reason(error)}") from error


def find_in_folder(source: Source) -> str:
    """The id of the file of that name in the Drive folder.

    Raises:
        DownloadError: it is not there.
    """
    listed = gdown.download_folder(
        id=source.google_drive_folder, skip_download=True, quiet=True, use_cookies=False, timeout=TIMEOUT
    )
    names = {Path(entry.path).name: entry.id for entry in listed if not isinstance(entry, str)}
    if source.file not in names:
        raise DownloadError(
            f"{source.page}: no {source.file} in that folder, which has {', '.join(names) or 'nothing'}"
        )
    return names[source.file]


def refuse_page(start: bytes, where: str, part: Path | None = None) -> None:
    """Refuses a web page that came in place of a file, and removes it.

    Raises:
        DownloadError: quoting the page's title, or saying that it is Drive's quota page.
    """
    if not start.lstrip().lower().startswith(PAGE_STARTS):
        return
    if part is not None:
        part.unlink()
        stamp_of(part).unlink(missing_ok=True)
    text = start.decode("utf-8", "replace")
    if any(words in text.lower() for words in QUOTA):
        raise DownloadError(quota(where))
    title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    said = f" ('{' '.join(title[1].split())[:80]}')" if title else ""
    raise DownloadError(f"{where}: a web page{said} came in place of the file")


def quota(where: str) -> str:
    return f"{where}: Google Drive's download quota of this file is used up for now; try again in some hours"


def reason(error: Exception) -> str:
    """An exception of the network in a few words."""
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached (no network, or no such server)"
    return " ".join(str(error).split())[:200] or type(error).__name__
