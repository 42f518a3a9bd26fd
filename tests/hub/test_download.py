"""`gddim download` against a local server that stands in for the network and fails in every way that it does."""

import errno
import hashlib
import io
import json
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import torch
import yaml

from gddim_cli.cli.main import main
from gddim_cli.errors import CheckpointError
from gddim_cli.hub import download, fetch, store
from gddim_cli.hub.load import load

CPU = torch.device("cpu")
FILE = "small.msgpack"
QUOTA_PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


class Site:
    """What the server does: files by path, and for each request in turn an entry of `plan` (else it behaves)."""

    def __init__(self):
        self.files, self.plan, self.requests = {}, [], []
        self.etag, self.ranges, self.type, self.delay = '"1"', True, "application/octet-stream", 0.0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        content = self.files.get(handler.path.partition("?")[0])
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        step = self.plan.pop(0) if self.plan else {}
        time.sleep(self.delay)
        status, begin = step.get("status", 200), 0
        if content is None or status >= 400:
            handler.send_error(status if status >= 400 else 404)
            return
        fresh = handler.headers.get("If-Range", self.etag) == self.etag
        if asked and self.ranges and fresh:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            status = 206
        handler.send_response(status)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.send_header("Content-Type", step.get("type", self.type))
        handler.send_header("Content-Disposition", f'attachment; filename="{FILE}"')
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(content[begin:][: step.get("cut")])


@pytest.fixture
def site():
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def flax(golden_file):
    return golden_file("ncsnpp_small_flax.msgpack").read_bytes()


@pytest.fixture
def cards(site, flax, tmp_path, monkeypatch):
    """A checkpoint and a statistics file published on the local server; a cache of their own."""
    folder = tmp_path / "cards"
    folder.mkdir()
    released = yaml.safe_load((store.bundled_folder() / "cld-cifar10.yaml").read_text())
    released |= {"name": "small", "parameters": None}
    released["network"] |= {"nf": 16, "num_res_blocks": 1}
    released["source"] = {"file": FILE, "format": "gddim-flax", "size": len(flax), "url": f"{site.url}/{FILE}"}
    buffer = io.BytesIO()
    np.savez(buffer, mu=np.zeros(4), sigma=np.eye(4))
    site.files = {f"/{FILE}": flax, "/stats.npz": buffer.getvalue()}
    source = {"file": "stats.npz", "format": "verbatim", "size": 1000, "url": f"{site.url}/stats.npz"}
    stats = {"name": "stats", "title": "Some", "kind": "statistics", "source": source, "arrays": ["mu", "sigma"]}
    made = {"small": released, "stats": stats}

    def write():
        (folder / "small.yaml").write_text(yaml.safe_dump(made["small"]))
        (folder / "stats.file.yaml").write_text(yaml.safe_dump(made["stats"]))

    write()
    monkeypatch.setattr(store, "bundled_folder", lambda: folder)
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GDDIM_MIRROR", raising=False)
    return SimpleNamespace(made=made, write=write, home=tmp_path / "home")


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gddim", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        last = captured.err.strip().splitlines()[-1:] or [""]
        return SimpleNamespace(status=ended.value.code, out=captured.out, err=captured.err, last=last[0])

    return call


def kept(home):
    """The files of a cache but for locks."""
    return sorted(
        str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "locks" not in path.parts
    )


WHOLE = ["checkpoints/small.safetensors", "records/small.json"]


def test_a_download_from_beginning_to_end(cards, site, run, flax):
    done = run("download", "small")
    assert done.status == 0, done.err
    assert done.out == ""
    assert kept(cards.home) == WHOLE
    record = store.read_record("small")
    assert record.sha256 == hashlib.sha256(flax).hexdigest()
    assert record.size == len(flax)
    assert record.source == f"{site.url}/{FILE}"
    assert load("small", CPU).sha256 == record.native_sha256
    again = run("download", "small")
    assert again.status == 0
    assert "already downloaded" in again.err
    assert len(site.requests) == 1


def test_a_file_that_is_no_checkpoint_is_kept_as_it_is(cards, site, run):
    assert run("download", "stats").status == 0
    assert store.find_file("stats").read_bytes() == site.files["/stats.npz"]
    assert kept(cards.home) == ["files/stats.npz", "records/stats.json"]


def test_keep_and_the_kept_file_is_used_again(cards, site, run, flax):
    assert run("download", "small", "--keep").status == 0
    assert (cards.home / "originals" / "small" / FILE).read_bytes() == flax
    store.cached_weights("small").unlink()
    assert run("download", "small", "--offline", "--keep").status == 0
    assert len(site.requests) == 1
    assert kept(cards.home) == [WHOLE[0], f"originals/small/{FILE}", WHOLE[1]]


def test_a_cut_connection_is_resumed_at_once(cards, site, run, flax):
    site.plan = [{"cut": 20 * fetch.CHUNK}, {"cut": 30 * fetch.CHUNK + 5}]
    assert run("download", "small").status == 0
    assert [asked for _, asked in site.requests] == [None, *(f"bytes={count * fetch.CHUNK}-" for count in (20, 50))]
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_a_connection_cut_every_time_goes_on_at_the_next_call(cards, site, run):
    site.plan = [{"cut": 2 * fetch.CHUNK}] * fetch.ATTEMPTS
    done = run("download", "small")
    assert done.status == 1
    assert "the connection was interrupted" in done.last
    assert "rerun the same command to resume" in done.last
    assert not store.cached_weights("small").exists()
    site.requests.clear()
    assert run("download", "small").status == 0
    assert site.requests == [(f"/{FILE}", f"bytes={2 * fetch.ATTEMPTS * fetch.CHUNK}-")]


def test_a_server_without_ranges_sends_all_again(cards, site, run):
    site.plan, site.ranges = [{"cut": 1_000_000}], False
    assert run("download", "small").status == 0
    assert len(site.requests) == 2


def test_a_file_exchanged_meanwhile_is_begun_anew(cards, site, run, flax, golden_file):
    site.plan = [{"cut": 1_000_000}, {"status": 503}]
    assert run("download", "small").status == 1
    site.etag = '"2"'
    assert run("download", "small").status == 0
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_what_was_whole_when_the_program_stopped_is_not_fetched_again(cards, site, run, flax):
    part = download.parts_folder("small") / FILE
    part.parent.mkdir(parents=True)
    part.write_bytes(flax)
    fetch.stamp_of(part).write_text(f'{site.url}/{FILE}\n"1"')
    assert run("download", "small").status == 0
    assert site.requests == [(f"/{FILE}", f"bytes={len(flax)}-")]


def test_a_part_longer_than_the_file_is_thrown_away(cards, site, run, flax):
    part = download.parts_folder("small") / FILE
    part.parent.mkdir(parents=True)
    part.write_bytes(flax + b"x")
    fetch.stamp_of(part).write_text(f"{site.url}/{FILE}\n")
    assert run("download", "small").status == 0
    assert kept(cards.home) == WHOLE


def test_a_part_from_elsewhere_is_not_continued(cards, site, run, flax, monkeypatch):
    site.files[f"/mirror/{FILE}"] = b"x" * len(flax)
    monkeypatch.setenv("GDDIM_MIRROR", f"{site.url}/mirror")
    site.plan = [{"cut": 100_000}, {"status": 503}]
    done = run("download", "small")
    assert done.status == 0, done.err
    assert site.requests[-1] == (f"/{FILE}", None)
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_a_pinned_hash_that_does_not_fit(cards, site, run, flax):
    cards.made["small"]["source"]["sha256"] = hashlib.sha256(flax).hexdigest()[:12]
    cards.write()
    site.files[f"/{FILE}"] = flax[:-1] + b"x"
    done = run("download", "small")
    assert done.status == 1
    assert "is not that of the card of small" in done.last
    assert kept(cards.home) == []
    site.files[f"/{FILE}"] = flax
    assert run("download", "small").status == 0


def test_another_file_than_the_first_time(cards, site, run, golden_file):
    assert run("download", "small").status == 0
    assert run("checkpoints", "remove", "small").status == 0
    assert kept(cards.home) == ["records/small.json"]
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"] = good + b"\xc0"
    done = run("download", "small")
    assert done.status == 1
    assert "is not the" in done.last
    assert "--forget" in done.last
    assert kept(cards.home) == ["records/small.json"]
    site.files[f"/{FILE}"] = good
    assert run("download", "small").status == 0
    assert run("checkpoints", "remove", "small", "--forget").status == 0
    assert kept(cards.home) == []


@pytest.mark.parametrize(
    ("page", "type", "message"),
    [
        (b"<!doctype html><title> Please\n log in </title>", "text/html", "a web page ('Please log in') came in place"),
        (b"\n<HTML><body>x</body>", "application/octet-stream", "a web page came in place of the file"),
        (b"sorry", "text/html; charset=utf-8", "a web page came in place of the file"),
        (QUOTA_PAGE, "text/html", "download quota of this file is used up"),
    ],
)
def test_a_page_in_place_of_the_file(cards, site, run, page, type, message):
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"], site.type = page, type
    done = run("download", "small")
    assert done.status == 1
    assert message in done.last
    assert "--from FILE" in done.last
    assert kept(cards.home) == []
    site.files[f"/{FILE}"], site.type = good, "application/octet-stream"
    assert run("download", "small").status == 0
    assert kept(cards.home) == WHOLE


@pytest.mark.parametrize("content", [b"", b"\x81\xaaparams_ema\x81\xa1a", b"garbage" * 1000])
def test_a_whole_file_of_wrong_structure(cards, site, run, content):
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"] = content
    done = run("download", "small")
    assert done.status == 1
    assert kept(cards.home) == []
    site.files[f"/{FILE}"] = good
    assert run("download", "small").status == 0


@pytest.mark.parametrize("content", [b"garbage", b"PK\x05\x06" + bytes(18)])
def test_statistics_of_wrong_structure(cards, site, run, content):
    site.files["/stats.npz"] = content
    done = run("download", "stats")
    assert done.status == 1
    assert "not kept" in done.last
    assert kept(cards.home) == []


def test_errors_of_the_server_and_no_server(cards, site, run):
    del site.files[f"/{FILE}"]
    assert "HTTP 404" in run("download", "small").last
    site.server.shutdown()
    site.server.server_close()
    done = run("download", "small")
    assert done.status == 1
    assert "cannot be reached" in done.last
    assert "--from FILE" in done.last


def test_the_mirror_is_tried_first_and_may_not_have_it(cards, site, run, monkeypatch, flax):
    monkeypatch.setenv("GDDIM_MIRROR", f"{site.url}/mirror/")
    done = run("download", "small")
    assert done.status == 0
    assert "mirror/small.msgpack: HTTP 404" in done.err
    assert [path for path, _ in site.requests] == [f"/mirror/{FILE}", f"/{FILE}"]
    run("checkpoints", "remove", "small")
    site.files[f"/mirror/{FILE}"] = flax
    site.requests.clear()
    assert run("download", "small").status == 0
    assert [path for path, _ in site.requests] == [f"/mirror/{FILE}"]


def test_a_full_disk_is_seen_before_the_first_byte(cards, site, run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    done = run("download", "small")
    assert done.status == 1
    assert "50 MB are free, 76 MB are needed" in done.last
    assert "GDDIM_HOME" in done.last
    assert site.requests == []


def test_a_size_that_only_the_server_knows(cards, site, run, monkeypatch):
    cards.made["small"]["source"]["size"] = 1000
    cards.write()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=70_000_000))
    done = run("download", "small")
    assert done.status == 1
    assert "are needed" in done.last
    assert not any(path.stat().st_size for path in download.parts_folder("small").glob(FILE))


def test_a_disk_that_fills_meanwhile(cards, site, run, monkeypatch):
    class Full(io.BufferedWriter):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    original = fetch.Path.open

    def open_full(path, mode="r", **options):
        full = path.name == FILE and mode in ("wb", "ab")
        return Full(io.FileIO(path, "wb")) if full else original(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fetch.Path, "open", open_full)
        done = run("download", "small")
    assert done.status == 1
    assert "the disk is full" in done.last
    assert not store.cached_weights("small").exists()
    assert run("download", "small").status == 0


@pytest.mark.parametrize("where", ["/proc/gddim", "file"])
def test_a_cache_that_cannot_be_written(cards, site, run, monkeypatch, tmp_path, where):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / where / "home"))
    done = run("download", "small")
    assert done.status == 1
    assert "cannot be written" in done.last
    assert site.requests == []
    monkeypatch.setenv("GDDIM_HOME", str(cards.home))
    assert run("download", "small").status == 0


def test_from_a_file_the_person_has(cards, site, run, golden_file, tmp_path):
    mine = tmp_path / "downloaded (1).bin"
    shutil.copy(golden_file("ncsnpp_small_flax.msgpack"), mine)
    part = cards.home / "partial" / "small" / "cut"  # of an earlier try, which a quota ended
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    assert run("download", "small", "--from", mine, "--offline").status == 0
    assert mine.exists()
    assert not part.exists()
    assert site.requests == []
    assert kept(cards.home) == WHOLE
    run("checkpoints", "remove", "small")
    for content in (b"no", b"<html>"):
        mine.write_bytes(content)
        done = run("download", "small", "--from", mine)
        assert done.status == 1
        assert mine.read_bytes() == content
    assert run("download", "small", "--from", tmp_path / "none").status == 2


def test_offline_never_touches_the_network(cards, site, run):
    done = run("download", "small", "--offline")
    assert done.status == 1
    assert "--offline forbids" in done.last
    assert site.requests == []


def test_two_at_once_fetch_once(cards, site):
    site.delay, said, errors = 0.5, [], []

    def get():
        try:
            download.Download(said.append, lambda *_: None).get("small")
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(site.requests) == 1
    assert sum("waiting for it" in line for line in said) == 2
    assert kept(cards.home) == WHOLE


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


def test_google_drive(cards, drive, site, run, flax):
    done = run("download", "small")
    assert done.status == 0, done.err
    assert site.requests[0][0].startswith("/uc?id=1Wi9xOVJS03KDzD3eFpC1whHrzxf7P1cy")
    assert kept(cards.home) == WHOLE
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_google_drive_resumes(cards, drive, site, run):
    site.plan = [{"cut": 1_000_000}]
    assert run("download", "small").status == 0
    first, last = (asked for _, asked in site.requests)
    assert first is None
    assert 0 < int(last.removeprefix("bytes=").rstrip("-")) <= 1_000_000
    assert kept(cards.home) == WHOLE


def test_google_drive_quota(cards, drive, site, run, flax, monkeypatch):
    answer = site.answer

    def quota(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.end_headers()
        text = b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'
        handler.wfile.write(QUOTA_PAGE.replace(b"</html>", text + b"</html>"))

    monkeypatch.setattr(site, "answer", quota)
    done = run("download", "small")
    assert done.status == 1
    assert "download quota of this file is used up" in done.last
    assert "--from FILE" in done.last
    assert kept(cards.home) == []
    monkeypatch.setattr(site, "answer", answer)
    assert run("download", "small").status == 0


def test_a_file_of_a_google_drive_folder(cards, drive, site, run, monkeypatch):
    drive["google_drive_folder"] = drive.pop("google_drive")
    cards.write()
    listed = [SimpleNamespace(id="1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", path=f"folder/{FILE}")]
    monkeypatch.setattr(fetch.gdown, "download_folder", lambda **_: listed)
    assert run("download", "small").status == 0
    assert "1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" in site.requests[0][0]
    run("checkpoints", "remove", "small")
    listed[0].path = "folder/other.pth"
    done = run("download", "small")
    assert done.status == 1
    assert "no small.msgpack in that folder, which has other.pth" in done.last


def test_names(cards, run):
    done = run("download", "smal")
    assert done.status == 2
    assert "did you mean 'small'" in done.last
    del cards.made["small"]["source"]
    cards.write()
    assert "ships with gddim" in run("download", "small").last
    assert "one NAME" in run("download", "stats", "small", "--from", "x").last


def test_weights_changed_in_the_cache_are_refused(cards, run):
    assert run("download", "small").status == 0
    path = store.cached_weights("small")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load("small", CPU)
    done = run("download", "small")
    assert done.status == 0
    assert "changed since its download, fetching it again" in done.err
    assert load("small", CPU)
    store.record_path("small").write_text("{")
    with pytest.raises(CheckpointError, match=r"small.json: damaged"):
        load("small", CPU)


def test_the_list_and_a_card(cards, run):
    before = {entry["name"]: entry for entry in json.loads(run("checkpoints", "--json").out)}
    assert before["small"]["state"] == before["stats"]["state"] == "available"
    assert before["small"]["fid"] == 2.2565
    run("download", "small")
    after = {entry["name"]: entry for entry in json.loads(run("checkpoints", "--json").out)}
    assert after["small"]["state"] == "downloaded"
    assert after["small"]["parameters"] > 400_000
    assert after["small"]["size"] == store.cached_weights("small").stat().st_size
    shown = json.loads(run("checkpoints", "small", "--json").out)
    assert shown["seen"]["sha256"]
    assert shown["path"] == str(store.cached_weights("small"))
    assert yaml.safe_load(run("checkpoints", "stats").out)["arrays"] == ["mu", "sigma"]
    assert "small" in run("checkpoints").out
    assert "did you mean 'small'" in run("checkpoints", "smal").last
    assert "nothing to remove" in run("checkpoints", "remove", "stats").err
    assert run("checkpoints", "remove").status == 2
    assert run("checkpoints", "a", "b").status == 2


def test_cards_of_files_are_whole(listed):
    assert store.file_names()[:3] == ["dinov2", "inception", "inception-pytorch"]
    for name in store.file_names():
        card = store.file_card_of(name)
        assert card.name == name
        assert card.source.format == "verbatim"
        assert card.source.size > 1e7
        assert card.source.page.startswith("https://")
    pinned = store.file_card_of("inception").source.sha256
    assert pinned == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert not set(store.file_names()) & set(store.names())
