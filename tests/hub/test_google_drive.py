"""`gddim download` from Google Drive, whose addresses lead to a local server."""

import hashlib
from types import SimpleNamespace

import gdown
import pytest
import requests

from gddim_cli.hub import fetch, store
from gddim_cli.hub.fetch import reason

FILE = "small.msgpack"


QUOTA_PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


WHOLE = ["checkpoints/small.safetensors", "records/small.json"]


@pytest.fixture
def drive(cards, site, monkeypatch, flax):
    """Google Drive's addresses lead to the local server; gdown is the real one."""
    site.files["/uc"] = flax
    send = requests.adapters.HTTPAdapter.send

    def redirected(adapter, request, **options):
        request.url = request.url.replace("https://drive.google.com", site.url)
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
    source = cards.made["small"]["source"]
    del source["url"]
    source["google_drive"] = "1Wi9xOVJS03KDzD3eFpC1whHrzxf7P1cy"
    cards.write()
    return source


def test_google_drive(cards, drive, site, gddim, flax):
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert site.requests[0][0].startswith("/uc?id=1Wi9xOVJS03KDzD3eFpC1whHrzxf7P1cy")
    assert cards.kept() == WHOLE
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_google_drive_resumes(cards, drive, site, gddim):
    site.plan = [{"cut": 1_000_000}]
    assert gddim("download", "small").status == 0
    first, last = (asked for _, asked in site.requests)
    assert first is None
    assert 0 < int(last.removeprefix("bytes=").rstrip("-")) <= 1_000_000
    assert cards.kept() == WHOLE


def test_google_drive_quota(cards, drive, site, gddim, flax, monkeypatch):
    answer = site.answer

    def quota(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.end_headers()
        text = b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'
        handler.wfile.write(QUOTA_PAGE.replace(b"</html>", text + b"</html>"))

    monkeypatch.setattr(site, "answer", quota)
    done = gddim("download", "small")
    assert done.status == 1
    assert "download quota for this file is used up" in done.last
    assert "--from FILE" in done.last
    assert cards.kept() == []
    monkeypatch.setattr(site, "answer", answer)
    assert gddim("download", "small").status == 0


def test_a_file_of_a_google_drive_folder(cards, drive, site, gddim, monkeypatch):
    drive["google_drive_folder"] = drive.pop("google_drive")
    cards.write()
    listed = [SimpleNamespace(id="1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", path=f"folder/{FILE}")]
    monkeypatch.setattr(fetch.gdown, "download_folder", lambda **_: listed)
    assert gddim("download", "small").status == 0
    assert "1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" in site.requests[0][0]
    gddim("checkpoints", "remove", "small")
    listed[0].path = "folder/other.pth"
    done = gddim("download", "small")
    assert done.status == 1
    assert "no small.msgpack in the Drive folder, which holds other.pth" in done.last


def test_a_network_that_is_missing_is_told_without_the_librarys_message():
    """gdown puts the whole of a connection's error, with its address, into its own."""
    failed = gdown.exceptions.DownloadError(
        "Download failed after 3 retries: HTTPSConnectionPool(host='drive.google.com')"
    )
    failed.__cause__ = requests.ConnectionError()
    assert reason(failed) == "cannot be reached (no network, or no such server)"
