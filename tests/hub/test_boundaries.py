"""Downloads and cards that are too large, damaged or hostile: one line each, and nothing kept."""

import gzip
import io
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from gddim_cli.checkpoints.card import FileCard
from gddim_cli.errors import DownloadError
from gddim_cli.hub import download, fetch, places, verify
from gddim_cli.hub.load import load
from gddim_cli.runtime.typed_yaml import typed

CPU = torch.device("cpu")
FILE = "small.pkl"


@pytest.fixture
def site():
    """A server whose answers a test chooses: a function of the handler."""
    found = SimpleNamespace(answer=None, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found.requests.append((self.path, self.headers.get("Range")))
            found.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def content(golden_file):
    return golden_file("edm_small_ncsnpp_cond.pkl").read_bytes()


@pytest.fixture
def card(site, content, tmp_path, catalogue):
    """A conditional EDM model that is published on the server under a non-commercial licence."""
    made, folder = catalogue("edm-cifar10-cond-ve")
    made["network"] |= {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1}
    made["source"] = {"file": FILE, "format": "edm", "size": len(content), "url": f"{site.url}/{FILE}"}

    def write(**changes):
        made.update(changes)
        (folder / "small.yaml").write_text(yaml.safe_dump(made))

    write()
    site.answer = plain(content)
    return SimpleNamespace(made=made, write=write, folder=folder, home=tmp_path / "home")


def plain(body, **headers):
    """An answer with a length."""

    def answer(handler):
        handler.send_response(200)
        for name, value in {"Content_Length": len(body), **headers}.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def endless(handler):
    """An answer without a length that does not end by itself."""
    handler.send_response(200)
    handler.end_headers()
    block = bytes(1 << 20)
    try:
        for _ in range(10_000):
            handler.wfile.write(block)
    except OSError:
        return


def kept(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file() and "locks" not in path.parts)


def test_a_released_model_from_download_to_denoiser(card, gddim, golden_file):
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert "license CC BY-NC-SA 4.0 (non-commercial): not for commercial use" in done.err
    model = load("small", CPU)
    assert (model.name, model.classes) == ("small", 10)
    original = load(str(golden_file("edm_small_ncsnpp_cond.pkl")), CPU)
    y, labels = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
    torch.testing.assert_close(model(y, 2.0, labels), original(y, 2.0, labels))
    assert model.card.network["dropout"] == 0.13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 0}, "labels is 10 in the file, but 0 in the card of small; they are different models"),
        ({"parameterization": "ve_residual", "convention": {}}, "parameterization is edm in the file"),
        ({"images": {"channels": 3, "size": 64}}, "images.size is 32 in the file"),
    ],
)
def test_another_model_than_the_card_says(card, gddim, change, message):
    card.write(**change)
    done = gddim("download", "small")
    assert done.status == 1
    assert message in done.err
    assert kept(card.home) == []
    card.made["network"]["resample_filter"] = [1, 1]
    card.write(labels=10, parameterization="edm", images={"channels": 3, "size": 32}, convention={"sigma_data": 0.5})
    assert "network.resample_filter is [1, 3, 3, 1] in the file" in gddim("download", "small").err


@pytest.mark.parametrize("kind", ["announced", "endless", "compressed"])
def test_a_file_far_larger_than_its_card_says(card, site, gddim, monkeypatch, kind):
    monkeypatch.setattr(download, "SLACK_BYTES", 1 << 20)
    large = bytes(64 << 20)
    site.answer = {
        "announced": plain(b"", Content_Length=10**15),
        "endless": endless,
        "compressed": plain(gzip.compress(large, 1), Content_Encoding="gzip"),
    }[kind]
    done = gddim("download", "small")
    assert done.status == 1
    last = done.err.strip().splitlines()[-1]
    assert "the file has more than 2 MB, but its card says 1 MB; not kept" in last
    assert kept(card.home) == []
    assert len(site.requests) == 1


def test_an_error_is_one_line_with_the_address_once(card, site, gddim):
    site.answer = lambda handler: handler.send_error(404)
    done = gddim("download", "small")
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("gddim: small cannot be fetched from http")
    assert done.err.count(card.made["source"]["url"]) == 2  # before fetching, and in the message
    assert last.count("http") == 1
    assert "HTTP 404 Not Found" in last
    assert last.endswith("gddim download small --from FILE")


@pytest.mark.parametrize(
    "mirror",
    [
        f"http://{'a' * 300}.example/x",
        "http://[::1",
        "nonsense",
        "http://127.0.0.1:99999/",
        "http://\x1b[31m/",
        "http://",
    ],
)
def test_mirrors_that_are_no_addresses(card, gddim, monkeypatch, mirror):
    monkeypatch.setenv("GDDIM_MIRROR", mirror)
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert "trying the next address" in done.err
    assert "\x1b" not in done.err
    assert max(map(len, done.err.splitlines())) < 600


@pytest.mark.parametrize(
    "stamp", [b"\xff\xfe", b"", b"URL\nbad\x00\nheader", b"URL\n\x1b[31m", b"URL\n\xc3\xa9", b"x" * 10**6]
)
def test_a_damaged_version_of_a_partial_download(card, site, gddim, stamp):
    part = places.parts_folder("small") / FILE
    part.parent.mkdir(parents=True)
    part.write_bytes(b"another file")
    fetch.stamp_of(part).write_bytes(stamp.replace(b"URL", card.made["source"]["url"].encode()))
    done = gddim("download", "small")
    assert done.status == 0, done.err
    assert site.requests == [(f"/{FILE}", None)]


def file_card(*arrays):
    source = {"file": "x.npz", "format": "verbatim", "size": 10}
    return typed(
        {"name": "x", "title": "x", "kind": "statistics", "source": source, "arrays": list(arrays)}, FileCard, "x"
    )


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


SIGMA = np.eye(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4)}, "no array sigma"),
        ({"mu": np.zeros(4), "sigma": np.zeros((4, 4))}, "not a covariance"),
        ({"mu": np.zeros(4), "sigma": -SIGMA}, "not a covariance"),
        ({"mu": np.zeros(3), "sigma": SIGMA}, r"mu of shape \[3\] with sigma of shape \[4, 4\]"),
        ({"mu": np.zeros((4, 4)), "sigma": SIGMA}, "mu of shape"),
        ({"mu": np.full(4, np.nan), "sigma": SIGMA}, "mu holds NaN"),
        ({"mu": np.zeros(4, int), "sigma": SIGMA}, "mu holds int64"),
        ({"mu": np.array([None] * 4), "sigma": SIGMA}, "Python objects"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"holds float64 of shape \[0\]"),
    ],
)
def test_files_that_are_no_statistics(tmp_path, arrays, message):
    with pytest.raises(DownloadError, match=message):
        verify.check_content(file_card("mu", "sigma"), npz(tmp_path / "x.npz", **arrays))


def test_features_and_claims(tmp_path):
    verify.check_content(file_card("pool_3"), npz(tmp_path / "x.npz", pool_3=np.random.default_rng(0).random((5, 8))))
    verify.check_content(file_card("mu", "sigma"), npz(tmp_path / "x.npz", mu=np.zeros(4), sigma=SIGMA))
    for features in (np.zeros((5, 8)), np.ones(8), np.ones((1, 8))):
        with pytest.raises(DownloadError, match="no features"):
            verify.check_content(file_card("pool_3"), npz(tmp_path / "x.npz", pool_3=features))
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 8 * 10**4)})
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("pool_3.npy", header.getvalue())
    with pytest.raises(DownloadError, match=r"takes 640000000000000 bytes|holds float64 of shape"):
        verify.check_content(file_card("pool_3"), tmp_path / "y.npz")


def test_titles_reach_the_terminal_without_escape_codes(card, gddim, tmp_path, tiny):
    from gddim_cli.checkpoints import native

    card.write(title="a \x1b[31mred\x07 title\nof two lines")
    for words in (("checkpoints",), ("checkpoints", "small")):
        shown = gddim(*words)
        assert shown.status == 0, shown.err
        assert "\x1b[31m" not in shown.out + shown.err
        assert "\x07" not in shown.out + shown.err
    inside, tensors = native.read(tiny)
    import msgspec

    native.write(tmp_path / "x.safetensors", msgspec.structs.replace(inside, name="\x1b[2Jx"), tensors)
    done = gddim(
        "sample", "--checkpoint", tmp_path / "x.safetensors", "--nfe", 2, "--num", 1, "--out", tmp_path / "imgs"
    )
    assert "\x1b[2J" not in done.out + done.err


def test_torch_files_that_hold_something_else(tmp_path, gddim):
    for content in ("hello", 3, None, [1, 2], {"model": "x", "ema": "y"}, {"a": torch.ones(1)}):
        torch.save(content, tmp_path / "x.pth")
        done = gddim("convert", tmp_path / "x.pth", tmp_path / "x.safetensors")
        assert done.status == 1
        assert "not a checkpoint of a known format" in done.err
        done = gddim("convert", tmp_path / "x.pth", tmp_path / "x.safetensors", "--format", "score-sde")
        assert done.status == 1
        assert re.search("not a training state|must hold tensors", done.err)


def test_what_fid_needs_comes_with_the_model(gddim):
    done = gddim("download", "--protocol", "gddim-paper", "--list")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == ["cld-cifar10", "stats-cifar10-tf", "inception"]
    done = gddim("download", "edm-cifar10-uncond-vp", "ve-cifar10", "--with-fid", "--list")
    names = [line.split("\t")[0] for line in done.out.splitlines()]
    assert names == ["edm-cifar10-uncond-vp", "ve-cifar10", "stats-cifar10-edm", "inception", "stats-cifar10-scoresde"]
    assert "gddim download NAME --from FILE" in done.err
    assert all(len(line.split("\t")) == 4 and "https://" in line for line in done.out.splitlines())
    listed = [line.split("\t") for line in gddim("download", "--list").out.splitlines()]
    assert len(listed) > 30
    assert len({line[1] for line in listed}) == len(listed)  # no two have one name on a mirror
    assert "no published reference" in gddim("download", "edm-ffhq64-vp", "--with-fid").err
    assert gddim("download").status == 2
    assert "there is no 'x'" in gddim("download", "--protocol", "x").err
