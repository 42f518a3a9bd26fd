"""`gddim download` against a local server that stands in for the network and fails in every way that it does."""

import errno
import hashlib
import io
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch

from gddim_cli.hub import download, fetch, places, store
from gddim_cli.hub.load import load

CPU = torch.device("cpu")
FILE = "small.msgpack"
QUOTA_PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


WHOLE = ["checkpoints/small.safetensors", "records/small.json"]


def test_a_download_from_beginning_to_end(cards, site, gddim, flax):
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert done.out == ""
    assert cards.kept() == WHOLE
    record = store.read_record("small")
    assert record.sha256 == hashlib.sha256(flax).hexdigest()
    assert record.size == len(flax)
    assert record.source == f"{site.url}/{FILE}"
    assert load("small", CPU).sha256 == record.native_sha256
    again = gddim("download", "small")
    assert again.status == 0
    assert "already downloaded" in again.err
    assert len(site.requests) == 1


def test_a_file_that_is_no_checkpoint_is_kept_as_it_is(cards, site, gddim):
    assert gddim("download", "stats").status == 0
    assert store.find_file("stats").read_bytes() == site.files["/stats.npz"]
    assert cards.kept() == ["files/stats.npz", "records/stats.json"]


def test_keep_and_the_kept_file_is_used_again(cards, site, gddim, flax):
    assert gddim("download", "small", "--keep").status == 0
    assert (cards.home / "originals" / "small" / FILE).read_bytes() == flax
    store.cached_weights("small").unlink()
    assert gddim("download", "small", "--offline", "--keep").status == 0
    assert len(site.requests) == 1
    assert cards.kept() == [WHOLE[0], f"originals/small/{FILE}", WHOLE[1]]


def test_a_cut_connection_is_resumed_at_once(cards, site, gddim, flax):
    site.plan = [{"cut": 20 * fetch.CHUNK}, {"cut": 30 * fetch.CHUNK + 5}]
    assert gddim("download", "small").status == 0
    assert [asked for _, asked in site.requests] == [None, *(f"bytes={count * fetch.CHUNK}-" for count in (20, 50))]
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_a_connection_cut_every_time_goes_on_at_the_next_call(cards, site, gddim):
    site.plan = [{"cut": 2 * fetch.CHUNK}] * fetch.ATTEMPTS
    done = gddim("download", "small")
    assert done.status == 1
    assert "the connection was interrupted" in done.last
    assert "rerun the same command to resume" in done.last
    assert not store.cached_weights("small").exists()
    site.requests.clear()
    assert gddim("download", "small").status == 0
    assert site.requests == [(f"/{FILE}", f"bytes={2 * fetch.ATTEMPTS * fetch.CHUNK}-")]


def test_a_server_without_ranges_sends_all_again(cards, site, gddim):
    site.plan, site.ranges = [{"cut": 1_000_000}], False
    assert gddim("download", "small").status == 0
    assert len(site.requests) == 2


def test_a_file_exchanged_meanwhile_is_begun_anew(cards, site, gddim, flax, golden_file):
    site.plan = [{"cut": 1_000_000}, {"status": 503}]
    assert gddim("download", "small").status == 1
    site.etag = '"2"'
    assert gddim("download", "small").status == 0
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_what_was_whole_when_the_program_stopped_is_not_fetched_again(cards, site, gddim, flax):
    part = places.parts_folder("small") / FILE
    part.parent.mkdir(parents=True)
    part.write_bytes(flax)
    fetch.stamp_of(part).write_text(f'{site.url}/{FILE}\n"1"')
    assert gddim("download", "small").status == 0
    assert site.requests == [(f"/{FILE}", f"bytes={len(flax)}-")]


def test_a_part_longer_than_the_file_is_thrown_away(cards, site, gddim, flax):
    part = places.parts_folder("small") / FILE
    part.parent.mkdir(parents=True)
    part.write_bytes(flax + b"x")
    fetch.stamp_of(part).write_text(f"{site.url}/{FILE}\n")
    assert gddim("download", "small").status == 0
    assert cards.kept() == WHOLE


def test_a_part_from_elsewhere_is_not_continued(cards, site, gddim, flax, monkeypatch):
    site.files[f"/mirror/{FILE}"] = b"x" * len(flax)
    monkeypatch.setenv("GDDIM_MIRROR", f"{site.url}/mirror")
    site.plan = [{"cut": 100_000}, {"status": 503}]
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert site.requests[-1] == (f"/{FILE}", None)
    assert store.read_record("small").sha256 == hashlib.sha256(flax).hexdigest()


def test_a_pinned_hash_that_does_not_fit(cards, site, gddim, flax):
    cards.made["small"]["source"]["sha256"] = hashlib.sha256(flax).hexdigest()[:12]
    cards.write()
    site.files[f"/{FILE}"] = flax[:-1] + b"x"
    done = gddim("download", "small")
    assert done.status == 1
    assert "as in the card of small; not kept" in done.last
    assert cards.kept() == []
    site.files[f"/{FILE}"] = flax
    assert gddim("download", "small").status == 0


def test_another_file_than_the_first_time(cards, site, gddim, golden_file):
    assert gddim("download", "small").status == 0
    assert gddim("checkpoints", "remove", "small").status == 0
    assert cards.kept() == ["records/small.json"]
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"] = good + b"\xc0"
    done = gddim("download", "small")
    assert done.status == 1
    assert "is not the" in done.last
    assert "--forget" in done.last
    assert cards.kept() == ["records/small.json"]
    site.files[f"/{FILE}"] = good
    assert gddim("download", "small").status == 0
    assert gddim("checkpoints", "remove", "small", "--forget").status == 0
    assert cards.kept() == []


@pytest.mark.parametrize(
    ("page", "type", "message"),
    [
        (
            b"<!doctype html><title> Please\n log in </title>",
            "text/html",
            "the server sent a web page ('Please log in') instead",
        ),
        (b"\n<HTML><body>x</body>", "application/octet-stream", "the server sent a web page instead of the file"),
        (b"sorry", "text/html; charset=utf-8", "the server sent a web page instead of the file"),
        (QUOTA_PAGE, "text/html", "download quota for this file is used up"),
    ],
)
def test_a_page_in_place_of_the_file(cards, site, gddim, page, type, message):
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"], site.type = page, type
    done = gddim("download", "small")
    assert done.status == 1
    assert message in done.last
    assert "--from FILE" in done.last
    assert cards.kept() == []
    site.files[f"/{FILE}"], site.type = good, "application/octet-stream"
    assert gddim("download", "small").status == 0
    assert cards.kept() == WHOLE


@pytest.mark.parametrize("content", [b"", b"\x81\xaaparams_ema\x81\xa1a", b"garbage" * 1000])
def test_a_whole_file_of_wrong_structure(cards, site, gddim, content):
    good = site.files[f"/{FILE}"]
    site.files[f"/{FILE}"] = content
    done = gddim("download", "small")
    assert done.status == 1
    assert cards.kept() == []
    site.files[f"/{FILE}"] = good
    assert gddim("download", "small").status == 0


@pytest.mark.parametrize("content", [b"garbage", b"PK\x05\x06" + bytes(18)])
def test_statistics_of_wrong_structure(cards, site, gddim, content):
    site.files["/stats.npz"] = content
    done = gddim("download", "stats")
    assert done.status == 1
    assert "not kept" in done.last
    assert cards.kept() == []


def test_errors_of_the_server_and_no_server(cards, site, gddim):
    del site.files[f"/{FILE}"]
    assert "HTTP 404" in gddim("download", "small").last
    site.server.shutdown()
    site.server.server_close()
    done = gddim("download", "small")
    assert done.status == 1
    assert "cannot be reached" in done.last
    assert "--from FILE" in done.last


def test_the_mirror_is_tried_first_and_may_not_have_it(cards, site, gddim, monkeypatch, flax):
    monkeypatch.setenv("GDDIM_MIRROR", f"{site.url}/mirror/")
    done = gddim("download", "small")
    assert done.status == 0
    assert "mirror/small.msgpack: HTTP 404" in done.err
    assert [path for path, _ in site.requests] == [f"/mirror/{FILE}", f"/{FILE}"]
    gddim("checkpoints", "remove", "small")
    site.files[f"/mirror/{FILE}"] = flax
    site.requests.clear()
    assert gddim("download", "small").status == 0
    assert [path for path, _ in site.requests] == [f"/mirror/{FILE}"]


def test_a_full_disk_is_seen_before_the_first_byte(cards, site, gddim, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    done = gddim("download", "small")
    assert done.status == 1
    assert "50 MB are free, 76 MB are needed" in done.last
    assert "GDDIM_HOME" in done.last
    assert site.requests == []


def test_a_size_that_only_the_server_knows(cards, site, gddim, monkeypatch):
    cards.made["small"]["source"]["size"] = 1000
    cards.write()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=70_000_000))
    done = gddim("download", "small")
    assert done.status == 1
    assert "are needed" in done.last
    assert not any(path.stat().st_size for path in places.parts_folder("small").glob(FILE))


def test_a_disk_that_fills_meanwhile(cards, site, gddim, monkeypatch):
    class Full(io.BufferedWriter):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    original = fetch.Path.open

    def open_full(path, mode="r", **options):
        full = path.name == FILE and mode in ("wb", "ab")
        return Full(io.FileIO(path, "wb")) if full else original(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fetch.Path, "open", open_full)
        done = gddim("download", "small")
    assert done.status == 1
    assert "the disk is full" in done.last
    assert not store.cached_weights("small").exists()
    assert gddim("download", "small").status == 0


@pytest.mark.parametrize("where", ["/proc/gddim", "file"])
def test_a_cache_that_cannot_be_written(cards, site, gddim, monkeypatch, tmp_path, where):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / where / "home"))
    done = gddim("download", "small")
    assert done.status == 1
    assert "cannot be written" in done.last
    assert site.requests == []
    monkeypatch.setenv("GDDIM_HOME", str(cards.home))
    assert gddim("download", "small").status == 0


def test_from_a_file_the_person_has(cards, site, gddim, golden_file, tmp_path):
    mine = tmp_path / "downloaded (1).bin"
    shutil.copy(golden_file("ncsnpp_small_flax.msgpack"), mine)
    part = cards.home / "partial" / "small" / "cut"  # of an earlier try, which a quota ended
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    assert gddim("download", "small", "--from", mine, "--offline").status == 0
    assert mine.exists()
    assert not part.exists()
    assert site.requests == []
    assert cards.kept() == WHOLE
    gddim("checkpoints", "remove", "small")
    for content in (b"no", b"<html>"):
        mine.write_bytes(content)
        done = gddim("download", "small", "--from", mine)
        assert done.status == 1
        assert mine.read_bytes() == content
    assert gddim("download", "small", "--from", tmp_path / "none").status == 2


def test_offline_never_touches_the_network(cards, site, gddim):
    done = gddim("download", "small", "--offline")
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
    assert cards.kept() == WHOLE
