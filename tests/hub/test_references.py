"""What `--checkpoint` may mean: names, files, folders, repositories of the Hugging Face Hub."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from gddim_cli.errors import CheckpointError, DownloadError, UsageError
from gddim_cli.hub import huggingface
from gddim_cli.hub.load import load, locate

CPU = torch.device("cpu")
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


def test_a_folder_with_one_model(tiny, golden_file, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="without a checkpoint of a known format"):
        load(str(folder), CPU)
    shutil.copy(golden_file("edm_small_vp.pkl"), folder)
    (folder / "notes.txt").write_text("hello")
    assert load(str(folder), CPU).name == "edm_small_vp"
    shutil.copy(tiny, folder / "mine.safetensors")
    assert load(str(folder), CPU).path == folder / "mine.safetensors"
    shutil.copy(tiny, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints \(mine.safetensors, other.safetensors\)"):
        load(str(folder), CPU)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "is empty"),
        ("nowhere/x.pkl", "no such file"),
        ("x" * 5000, "there is no checkpoint"),
        ("a\0b", "there is no checkpoint"),
        ("\x1b[31mred", "there is no checkpoint"),
        ("mnits", "did you mean 'mnist'"),
    ],
)
def test_references_that_mean_nothing(reference, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load(reference, CPU)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_foreign_file_is_converted_once(golden_file, monkeypatch):
    import gddim_cli.hub.load as module

    path, calls = golden_file("edm_small_vp.pkl"), []
    convert = module.convert_file
    monkeypatch.setattr(module, "convert_file", lambda *args, **kwargs: calls.append(args) or convert(*args, **kwargs))
    said = []
    first = load(str(path), CPU, say=said.append)
    second = load(str(path), CPU, say=said.append)
    assert len(calls) == 1
    assert first.sha256 == second.sha256
    assert sum("converting into the cache" in text for text in said) == 1
    first.path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load(str(path), CPU)


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A server with the part of the Hub's interface that fetching a model needs."""
    pytest.importorskip("huggingface_hub")
    site = SimpleNamespace(files={}, requests=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer()

        def answer(self, body=True):
            path = self.path.partition("?")[0]
            site.requests.append(path)
            if site.status != 200:
                self.send_response(site.status)
                self.send_header("X-Error-Code", "RepoNotFound" if site.status == 404 else "GatedRepo")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            name = path.partition(f"/resolve/{SHA}/")[2]
            if "/tree/" in path:
                found = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in site.files.items()
                ]
                content = json.dumps(found).encode()
            elif path.startswith("/api/models/"):
                siblings = [{"rfilename": name, "size": len(content)} for name, content in site.files.items()]
                content = json.dumps({"id": "org/name", "sha": SHA, "siblings": siblings}).encode()
            else:
                content = site.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", SHA)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    yield site
    server.shutdown()
    server.server_close()


def test_a_repository_of_the_hub(repository, golden_file):
    content = golden_file("edm_small_vp.pkl").read_bytes()
    repository.files = {"model.pkl": content, "README.md": b"# hello"}
    said = []
    model = load("hf://org/name", CPU, say=said.append)
    assert model.name == "model"
    assert any("hf://org/name: 1 MB" in text for text in said)
    y = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(y, 1.0), load(str(golden_file("edm_small_vp.pkl")), CPU)(y, 1.0))
    assert not [path for path in repository.requests if "README" in path]
    assert load("hf://org/name@main", CPU).path == model.path


def test_a_repository_with_a_diffusers_folder(repository):
    names = ["unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"]
    sizes = dict.fromkeys([*names, "model_index.json", "scheduler/scheduler_config.json", "vae/config.json"], 10)
    chosen = huggingface.choose(sizes, "hf://org/name")
    assert sorted(chosen) == [
        "model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"README.md": 5}, "holds 0 model files"),
        ({"a.pkl": 5, "b.pt": 5}, "holds 2 model files: a.pkl, b.pt"),
        ({"a.pkl": 10**12}, "1000 GB"),
    ],
)
def test_repositories_without_one_model(sizes, message):
    with pytest.raises(DownloadError, match=message):
        huggingface.choose(sizes, "hf://org/name")


@pytest.mark.parametrize(("status", "message"), [(404, "no such repository"), (403, "grant you access")])
def test_repositories_that_cannot_be_fetched(repository, status, message):
    repository.status = status
    with pytest.raises(DownloadError, match=message) as caught:
        locate("hf://org/name")
    assert "\n" not in str(caught.value)


def test_offline_mode_is_respected(repository, golden_file, monkeypatch):
    repository.files = {"model.pkl": golden_file("edm_small_vp.pkl").read_bytes()}
    path, _ = locate("hf://org/name")
    repository.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate("hf://org/name")[0] == path
    with pytest.raises(DownloadError, match="not in the cache"):
        locate("hf://org/other")
    assert repository.requests == []


def test_the_library_alone_in_a_new_process(tmp_path):
    """Its submodules are imported on demand; here nothing else has imported them."""
    pytest.importorskip("huggingface_hub")
    words = ["-m", "gddim_cli", "sample", "--checkpoint", "hf://org/name", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("gddim: hf://org/name: not in the cache, and cannot be fetched")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "reference", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://a b/c", "hf://a/b\x1b[0m"]
)
def test_references_of_another_form(reference):
    with pytest.raises(UsageError, match="expected hf://org/name"):
        locate(reference)


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"pip install 'gddim\[hub\]'"):
        locate("hf://org/name")
