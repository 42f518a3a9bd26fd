"""A local server that stands in for the network, and a small catalogue of what it publishes."""

import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from gddim_cli.hub import store

FILE = "small.msgpack"


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
def catalogue(tmp_path, monkeypatch):
    """`catalogue(card)`: the card under the name `small`, and an empty folder in place of the catalogue's; an own cache."""
    bundled, folder = store.bundled_folder(), tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(store, "bundled_folder", lambda: folder)
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GDDIM_MIRROR", raising=False)
    return lambda card: (
        yaml.safe_load((bundled / f"{card}.yaml").read_text()) | {"name": "small", "parameters": None},
        folder,
    )


@pytest.fixture
def cards(site, flax, tmp_path, catalogue):
    """A checkpoint and a statistics file published on the local server; a cache of their own."""
    released, folder = catalogue("cld-cifar10")
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
    return SimpleNamespace(made=made, write=write, home=tmp_path / "home", kept=lambda: kept(tmp_path / "home"))


def kept(home):
    """The files of a cache but for locks."""
    return sorted(
        str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "locks" not in path.parts
    )
