"""Measures the time, memory and arithmetic rate of converting, loading and running full-size checkpoints.

The results are in docs/checkpoints-benchmark.md.

pip install '.[bench]' && python benchmarks/checkpoints.py [--folder DIR] [--threads N] [--batch N] [--no-flax]
"""

from __future__ import annotations

import argparse
import json
import lzma
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIST = Path(__file__).parent.parent / "tests" / "data" / "gddim_cld_cifar10_flax.json.xz"
CARD, EDM_CARD = "cld-cifar10", "edm-cifar10-uncond-vp"
GFLOP = {CARD: 37.18, EDM_CARD: 42.04}  # per evaluation of one 32x32 image; a multiply-add is two operations


def make(path: Path) -> None:
    """Uses flax to write a training state with the names and shapes of the released one: weights, averages, moments."""
    import numpy as np
    from flax.serialization import msgpack_serialize

    shapes: dict[str, list[int]] = json.loads(lzma.decompress(LIST.read_bytes()))
    random = np.random.default_rng(0)

    def nested(leaf: Callable[[list[int]], Any]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, shape in shapes.items():
            *above, last = name.split("/")
            node = tree
            for key in above:
                node = node.setdefault(key, {})
            node[last] = leaf(shape)
        return tree

    def weights(shape: list[int]) -> Any:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    def moments(shape: list[int]) -> dict[str, Any]:
        return {"grad_ema": weights(shape), "grad_sq_ema": weights(shape)}

    state = {
        "step": np.int32(1),
        "optimizer": {"target": nested(weights), "state": {"step": np.int32(1), "param_states": nested(moments)}},
        "lr": np.float32(2e-4),
        "model_state": {},
        "ema_rate": 0.9999,
        "params_ema": nested(weights),
        "rng": np.array([0, 1], np.uint32),
    }
    path.write_bytes(msgpack_serialize(state))


def read(path: Path) -> float:
    """Seconds that it takes merely to read the file."""
    started = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return time.perf_counter() - started


def make_edm(path: Path) -> None:
    """Writes a pickle in EDM's layout with the architecture of EDM's CIFAR-10 model."""
    from edm_pickle import write

    write(path, EDM_CARD)


def convert(path: Path, out: Path, name: Path = Path(CARD)) -> dict[str, float]:
    """Converts a file.

    Returns:
        The seconds of the conversion, the peak memory of this process in GB, the peak memory before the conversion, and
        the number of tensors written.
    """
    from safetensors import safe_open

    from gddim_cli.checkpoints.convert import convert_release
    from gddim_cli.checkpoints.formats.registry import recognize
    from gddim_cli.hub.store import card_of

    before = peak()
    started = time.perf_counter()
    card = card_of(str(name))
    assert card.source is not None
    assert recognize(path).name == card.source.format
    convert_release(path, card, out, card_of)
    seconds = time.perf_counter() - started
    with safe_open(out, framework="np") as file:
        tensors = len(list(file.keys()))
    return {"seconds": seconds, "peak": peak(), "before": before, "tensors": tensors}


def load(path: Path) -> dict[str, float]:
    """Seconds that it takes to load the native file as a network."""
    import torch

    from gddim_cli.hub.load import load as load_checkpoint

    started = time.perf_counter()
    load_checkpoint(str(path), torch.device("cpu"))
    return {"seconds": time.perf_counter() - started}


def sample(path: Path, out: Path) -> str:
    """Samples one image from the checkpoint; returns the time as `gddim sample` states it."""
    words = ["sample", "--checkpoint", path, "--nfe", 5, "--num", 1, "--out", out]
    command = [sys.executable, "-m", "gddim_cli", *map(str, words)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    return done.stderr.strip().rpartition("): ")[2]


def rate(card: str, threads: int, batch: int) -> dict[str, float]:
    """The best GFLOP/s of a full-size network and the best GFLOP/s of matrix products.

    Network and products are measured alternately, with the same number of operations. The time is the CPU time of the
    process, so that waiting for other programs does not count. Other programs still use the same caches and memory.
    """
    import torch

    from gddim_cli.checkpoints.load import empty_network
    from gddim_cli.hub.store import card_of

    torch.set_num_threads(threads)
    network = empty_network(card_of(card), Path(card)).eval()
    channels = 6 if card == CARD else 3
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    square, x, level = torch.randn(2048, 2048), torch.randn(batch, channels, 32, 32), torch.ones(batch)
    best = {"matrix products": 0.0, "network": 0.0}

    def measure(name: str, work: Callable[[], Any], gflop: float) -> None:
        started = time.process_time()
        work()
        best[name] = max(best[name], gflop * threads / (time.process_time() - started))

    with torch.inference_mode():
        network(x, level)
        gflop, product = GFLOP[card] * batch, 2 * 2048**3 / 1e9
        times = max(1, round(gflop / product))
        for _ in range(8):
            measure("matrix products", lambda: [square @ square for _ in range(times)], times * product)
            measure("network", lambda: network(x, level), gflop)
    return best


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def apart(*words: object) -> dict[str, float]:
    """Runs one of the measurements in a separate process and returns its result."""
    command = [sys.executable, __file__, "--only", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout or "{}")


def measure(name: str, maker: str, folder: Path) -> list[dict[str, float]]:
    """Makes a file of the released size, converts it and loads the result; prints and returns the measurements."""
    state, native = folder / f"{name}.state", folder / f"{name}.safetensors"
    apart(maker, state)
    reading = min(read(state) for _ in range(3))
    converted, loaded = apart("convert", state, native, name), apart("load", native)
    print(f"{name}: {state.stat().st_size / 1e9:.2f} GB, read in {reading:.2f} s")
    print(
        f"recognized and converted in {converted['seconds']:.2f} s ({converted['seconds'] / reading:.1f} times reading it); "
        f"peak memory {converted['peak']:.2f} GB, of which {converted['before']:.2f} GB is the program"
    )
    print(f"{converted['tensors']:.0f} tensors, each placed once: {native.stat().st_size / 1e9:.2f} GB")
    print(f"loaded and verified in {loaded['seconds']:.2f} s")
    print(f"one image: {sample(native, folder / name)}")
    state.unlink()
    return [converted, loaded]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder for 2.2 GB of temporary files (default: the system's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--no-flax", action="store_true", help="skip the checkpoint that is made with flax")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        name, *rest = options.only
        works: dict[str, Callable[..., Any]] = {"make": make, "make_edm": make_edm, "convert": convert, "load": load}
        json.dump(works[name](*map(Path, rest)) or {}, sys.stdout)
        return
    makers = {CARD: "make", EDM_CARD: "make_edm"}
    if options.no_flax:
        del makers[CARD]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = [measure(name, maker, Path(folder)) for name, maker in makers.items()]
    ratios = []
    for card in GFLOP:
        rates = rate(card, options.threads, options.batch)
        ratios.append(rates["network"] / rates["matrix products"])
        print(
            f"{card}, float32, {options.threads} threads, batch {options.batch}: network {rates['network']:.0f} GFLOP/s, "
            f"matrix products {rates['matrix products']:.0f} GFLOP/s, ratio {ratios[-1]:.2f}"
        )
    limits = {
        "peak memory under 1.5 GB": max(converted["peak"] for converted, _ in found) < 1.5,
        "loaded in under 3 s": max(loaded["seconds"] for _, loaded in found) < 3,
        "ratios at least 0.85": min(ratios) >= 0.85,
    }
    for limit, met in limits.items():
        print(f"{limit}: {'met' if met else 'NOT MET'}")
    sys.exit(not all(limits.values()))


if __name__ == "__main__":
    main()
