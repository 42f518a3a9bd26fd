"""The boundaries at which data from outside arrives: for each, a function that makes one bad case from good files."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fuzz.corpus import FORMATS, Corpus
from fuzz.harness import Case
from fuzz.mutations import NUMBERS, TEXTS, changed_text, changed_tree, pick
from fuzz.user_files import own_code
from PIL import Image
from support import damaged

from gddim_cli.checkpoints import native
from gddim_cli.cli.app import COMMANDS, full_command

Draw = np.random.Generator
Boundary = Callable[[Corpus, Draw, Path], Case]
SAMPLE = ["sample", "--nfe", 2, "-n", 2, "--out", "out"]
FID = ["fid", "--no-cache", "--ref", "mnist:test"]
GOOD_WORDS = {
    "sample": [*SAMPLE, "--checkpoint", "tiny.safetensors"],
    "fid": [*FID, "digits"],
    "bench": [
        "bench",
        "--checkpoint",
        "small.safetensors",
        "--ref",
        "mnist:test",
        "--nfe",
        "3",
        "-n",
        "4",
        "--out",
        "out",
    ],
    "tune": ["tune", "--checkpoint", "tiny.safetensors", "--nfe", "3", "-n", "4", "--out", "solver.json"],
    "train": ["train", "squares.yaml", "--data", "squares.npz", "--out", "out"],
    "download": ["download", "--offline", "cld-cifar10"],
    "checkpoints": ["checkpoints", "tiny.safetensors"],
    "convert": ["convert", "edm_small_vp.pkl", "out.safetensors", "--card", "edm-baseline-cifar10-vp"],
    "samplers": ["samplers"],
    "diffusions": ["diffusions"],
    "coefficients": ["coefficients", "--nfe", "3"],
    "check": ["check", "nothing"],
}
NEEDS = {
    "sample": ["tiny.safetensors"],
    "fid": ["digits"],
    "bench": ["small.safetensors"],
    "tune": ["tiny.safetensors"],
    "train": ["squares.yaml", "squares.npz"],
    "checkpoints": ["tiny.safetensors"],
    "convert": ["edm_small_vp.pkl"],
}
LEFT_OUT = {"--help", "--compile", "--device", "--install-completion", "--show-completion"}


def spoiled(draw: Draw, content: bytes) -> bytes:
    """A file's content, damaged at random."""
    return next(damaged(content, 1, seed=int(draw.integers(1 << 32))))


def spoil(draw: Draw, path: Path) -> None:
    """Damages a file in place."""
    path.write_bytes(spoiled(draw, path.read_bytes()))


def options(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Any option or argument of any command, with any value."""
    name = pick(draw, list(COMMANDS))
    for needed in NEEDS.get(name, []):
        corpus.copy(needed, place)
    words = list(GOOD_WORDS[name])
    command = full_command(name)
    command = getattr(command, "commands", {}).get("run", command)
    flags = [
        p
        for p in command.params
        if getattr(p, "opts", None) and p.opts[0].startswith("-") and p.opts[0] not in LEFT_OUT
    ]
    for _ in range(int(draw.integers(1, 4))):
        kind = draw.integers(8)
        value = pick(draw, NUMBERS) if draw.integers(2) else pick(draw, TEXTS)
        if kind == 0:
            words.append(value)
        elif kind == 1:
            words[int(draw.integers(len(words)))] = value
        elif flags:
            flag = pick(draw, flags)
            if flag.is_flag:
                words.append(flag.opts[0])
            else:
                words += (
                    [f"{flag.opts[0]}={value}"]
                    if draw.integers(2) and flag.opts[0].startswith("--")
                    else [flag.opts[0], value]
                )
    return Case([str(word).replace("\0", "") for word in words], [place / n for n in NEEDS.get(name, [])])


def plans(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Plans of benchmarks."""
    corpus.copy("small.safetensors", place)
    text, note = changed_text(draw, (corpus.root / "plan.yaml").read_text())
    return Case(["bench", written(draw, place / "plan.yaml", text), "--out", "out"], [place / "plan.yaml"], note)


def recipes(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Recipes of training runs, of two steps at most."""
    corpus.copy("squares.npz", place)
    if draw.integers(2):
        text, note = changed_text(draw, (corpus.root / "squares.yaml").read_text())
    else:
        from fuzz.corpus import RECIPE

        tree, note = changed_tree(draw, RECIPE)
        text = json.dumps(tree)
    path = written(draw, place / "squares.yaml", text)
    return Case(
        ["train", path, "--data", "squares.npz", "--out", "out", "--steps", "2"], [path, place / "squares.npz"], note
    )


def diffusions(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Diffusions as YAML and as Python."""
    corpus.copy("tiny.safetensors", place)
    if draw.integers(2):
        text, note = changed_text(draw, (corpus.root / "diffusion.yaml").read_text())
        path = written(draw, place / "diffusion.yaml", text)
    else:
        lines = (corpus.root / "own.py").read_text().splitlines()
        at = int(draw.integers(len(lines)))
        bad = ["raise KeyError('x')", "raise SystemExit", "D = 2", "T = float('nan')", "return None", "return 'x'", "import nothing",
               "return np.full((*np.shape(t), 1, 1), np.nan)", "1 / 0", ")", "name = 3", "exit(0)"]  # fmt: skip
        note = pick(draw, bad)
        indent = len(lines[at]) - len(lines[at].lstrip())
        lines.insert(at, " " * indent + note)
        path = written(draw, place / "own.py", "\n".join(lines))
    words = pick(
        draw, [[*GOOD_WORDS["sample"], "--diffusion", path], ["coefficients", "--nfe", "3", "--diffusion", path]]
    )
    return Case(words, [path], note)


def written(draw: Draw, path: Path, text: str) -> Path:
    """A text in a file, sometimes in another encoding or with a damaged byte."""
    content = text.encode("utf-8", "surrogatepass")
    kind = draw.integers(12)
    if kind == 0:
        content = text.encode("utf-16", "replace")
    elif kind == 1:
        content = spoiled(draw, content)
    elif kind == 2:
        content = b"\xef\xbb\xbf" + content
    path.write_bytes(content)
    return path


def cards(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """The card inside a native checkpoint."""
    raw = (corpus.root / "tiny.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    kind = draw.integers(5)
    if kind == 0:
        header, note = changed_tree(draw, header)
    else:
        card, note = changed_tree(draw, json.loads(header["__metadata__"][native.CARD]))
        header["__metadata__"][native.CARD] = json.dumps(card)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path = place / "tiny.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return Case(
        pick(draw, [GOOD_WORDS["sample"], ["checkpoints", path], ["convert", path, "out.safetensors"]]), [path], note
    )


def native_bytes(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """The bytes of a native checkpoint."""
    path = corpus.copy("tiny.safetensors", place)
    spoil(draw, path)
    return Case(pick(draw, [GOOD_WORDS["sample"], ["checkpoints", path]]), [path])


def released(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Checkpoints of each released storage."""
    name = pick(draw, list(FORMATS))
    path = corpus.copy(name, place)
    spoil(draw, path)
    words = FORMATS[name]
    sample = [*SAMPLE, "--checkpoint", path, *words] if words[0] == "--set" else None
    return Case(sample if sample and draw.integers(2) else ["convert", path, "out.safetensors", *words], [path], name)


def pipelines(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Folders of diffusers."""
    folder = corpus.copy("pipeline", place)
    name = pick(draw, ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
    tree, note = changed_tree(draw, json.loads((folder / name).read_text()))
    written(draw, folder / name, json.dumps(tree))
    return Case(
        pick(draw, [["convert", folder, "out.safetensors"], [*SAMPLE, "--checkpoint", folder]]),
        [folder],
        f"{name}: {note}",
    )


def records(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """`run.json`, `manifest.json` and the files of a run, as `sample` and `fid` meet them."""
    storage = pick(draw, ["png", "npz", "tar"])
    run = corpus.copy(f"run_{storage}", place)
    corpus.copy("tiny.safetensors", place)
    name = pick(draw, ["run.json", "manifest.json"])
    if draw.integers(3):
        tree, note = changed_tree(draw, json.loads((run / name).read_text()))
        written(draw, run / name, json.dumps(tree))
    else:
        spoil(draw, run / name)
        note = "bytes"
    return run_case(draw, run, storage, f"{name}: {note}")


def shards(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """The images of a run."""
    storage = pick(draw, ["png", "npz", "tar"])
    run = corpus.copy(f"run_{storage}", place)
    corpus.copy("tiny.safetensors", place)
    file = pick(draw, sorted(run.glob(f"*0*.{storage}")))
    kind = draw.integers(4)
    note = file.name
    if draw.integers(2):
        (run / "manifest.json").unlink()
        note += ", no manifest"
    if kind == 0:
        file.write_bytes(hostile_file(draw, file.suffix))
    elif kind == 1 and storage == "npz":
        index: object = pick(
            draw,
            [
                [-1] * 6,
                [0, 1, 2, 3, 4, 99],
                [np.nan] * 6,
                [[0, 1, 2, 3, 4, 5]],
                [],
                ["a"] * 6,
                list(range(7)),
                3,
                [0] * 6,
            ],
        )
        images = pick(draw, [np.zeros((6, 8, 8, 1), np.uint8), np.zeros((6, 9, 8, 1), np.uint8), np.zeros((6, 8, 8, 3), np.uint8),
                             np.zeros(6), np.zeros((6, 8, 8), np.uint8), np.zeros((0, 8, 8, 1), np.uint8)])  # fmt: skip
        np.savez(file, images=images, index=np.array(index))
        note += f" index {index}, images {images.shape}"
    elif kind == 2:
        file.unlink()
        pick(
            draw,
            [
                file.mkdir,
                lambda: os.mkfifo(file),
                lambda: file.symlink_to(file.name),
                lambda: None,
                lambda: file.symlink_to("/dev/zero"),
            ],
        )()
    else:
        spoil(draw, file)
    return run_case(draw, run, storage, note)


def run_case(draw: Draw, run: Path, storage: str, note: str) -> Case:
    """A command on a run's folder."""
    sample = ["sample", "--checkpoint", "tiny.safetensors", "--nfe", 2, "--format", storage, "--out", run]
    commands = [
        [*sample, "-n", 6],
        [*sample, "-n", 8],
        [*sample, "-n", 6, "--overwrite"],
        [*FID, run],
        ["fid", "stats", run, "new.npz", "--mode", "lenet"],
    ]
    words = pick(draw, commands)
    return Case(words, [run] if words[0] == "fid" else [], note)


def images(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Folders, archives and arrays of a user's images."""
    name = pick(draw, ["digits", "digits.zip", "digits.tar", "digits.npz", "packed.npz", "digits.npy"])
    path = corpus.copy(name, place)
    if path.is_dir():
        file = pick(draw, sorted(path.iterdir()))
        kind = draw.integers(4)
        if kind == 0:
            file.write_bytes(hostile_file(draw, pick(draw, [".png", ".jpg", ".bmp", ".webp", ".tif"])))
        elif kind == 1:
            source = corpus.root / pick(draw, [f"picture.{ending}" for ending in ("png", "jpg", "bmp", "webp", "tif")])
            (path / source.name).write_bytes(spoiled(draw, source.read_bytes()))
        elif kind == 2:
            odd = path / pick(
                draw, ["\udcff\udcfe.png", "\x1b[31m.png", "a\nb.png", "ü" * 80 + ".png", " .png", "-.png"]
            )
            file.rename(odd)
            if draw.integers(2):
                spoil(draw, odd)
        else:
            file.unlink()
            in_its_place(draw, file, lambda: file.symlink_to("."))
    elif draw.integers(3):
        spoil(draw, path)
    else:
        path.write_bytes(hostile_file(draw, path.suffix))
    words = pick(draw, [[*FID, path], ["fid", "stats", path, "new.npz", "--mode", "lenet"], [*FID, "digits", "--ref", path],
                        [*FID, path, "--json"]])  # fmt: skip
    if "digits" in words and not (place / "digits").exists():
        corpus.copy("digits", place)
    return Case(words, [path], name)


def in_its_place(draw: Draw, path: Path, other: Callable[[], object]) -> None:
    """Makes a pipe, an endless device or a folder of that name, or calls `other`."""
    pick(draw, [lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir, other])()


def hostile_file(draw: Draw, suffix: str) -> bytes:
    """A file that claims more than it holds, or holds something else."""
    buffer = io.BytesIO()
    shape = pick(
        draw,
        [
            (10**12, 28, 28, 1),
            (2**62, 28, 28),
            (-1, 28, 28),
            (10**8, 28, 28, 1),
            (3, 0, 28),
            (2**31, 2**31, 3),
            (8, 28, 28, 3),
        ],
    )
    header = io.BytesIO()
    descr = pick(draw, ["|u1", "|O", "<f8", ">u2", "|S8", "|V8"])
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": bool(draw.integers(2)), "shape": shape}
    )
    array = header.getvalue() + bytes(64)
    if suffix in (".npz", ".zip"):
        member = (
            "images.npy" if suffix == ".npz" else pick(draw, ["../../evil.png", "/etc/evil.png", "a.png", "a\x1b.png"])
        )
        with zipfile.ZipFile(buffer, "w", pick(draw, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            archive.writestr(member, array if suffix == ".npz" else bytes(1 << 20))
            archive.writestr("index.npy", array)
    elif suffix == ".tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in ("000000.png", "../evil.png", "/abs.png"):
                entry = tarfile.TarInfo(name)
                entry.type = pick(
                    draw,
                    [
                        tarfile.REGTYPE,
                        tarfile.SYMTYPE,
                        tarfile.LNKTYPE,
                        tarfile.FIFOTYPE,
                        tarfile.GNUTYPE_SPARSE,
                        tarfile.DIRTYPE,
                    ],
                )
                entry.linkname = "/etc/passwd"
                entry.size = 4 if entry.type == tarfile.REGTYPE else 0
                tar.addfile(entry, io.BytesIO(b"abcd"))
    elif suffix == ".npy":
        buffer.write(array)
    elif suffix == ".png":
        return pick(
            draw,
            [
                bomb(),
                picture_of(draw, "RGBA"),
                picture_of(draw, "I;16"),
                picture_of(draw, "LA"),
                picture_of(draw, "P"),
                b"",
                b"GIF89a",
            ],
        )
    else:
        return pick(
            draw, [b"", b"\xff\xd8\xff\xe0" + bytes(100), b"BM" + bytes(60), b"RIFF" + bytes(40), b"II*\0" + bytes(40)]
        )
    return buffer.getvalue()


def picture_of(draw: Draw, mode: str) -> bytes:
    """A PNG of another mode or size."""
    buffer = io.BytesIO()
    side = pick(draw, [1, 8, 28, 29])
    Image.new(mode, (side, side)).save(buffer, format="PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG that claims 60 000 x 60 000 pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def statistics(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Statistics for `--ref`."""
    corpus.copy("digits", place)
    path = corpus.copy("stats.npz", place)
    note = "bytes"
    if draw.integers(2):
        spoil(draw, path)
    else:
        arrays = dict(np.load(path))
        key = pick(draw, list(arrays))
        shape = np.shape(arrays[key])
        value = pick(draw, [-5, 1, np.nan, np.zeros(0), np.full(shape, np.nan), np.full(shape, 1e300), np.zeros(shape), "text", b"\xff",
                            np.zeros((3, 3)), np.full(shape, -1.0), 10**18, np.zeros(shape, complex)])  # fmt: skip
        arrays[key] = np.array(value)
        note = f"{key} = {value!r:.40}"
        np.savez(path, **arrays)
    return Case(["fid", "--no-cache", "digits", "--ref", path], [path, place / "digits"], note)


def features(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Features in the cache, which heal."""
    corpus.copy("digits", place)
    files = sorted((place.parent / "home" / "features").iterdir())
    file = pick(draw, [file for file in files if file.is_file()])
    if draw.integers(3):
        spoil(draw, file)
    else:
        file.unlink()
        in_its_place(draw, file, lambda: file.write_bytes(b""))
    return Case(["fid", "digits"], [place / "digits"], file.name)


def training(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """The folder of a training run."""
    for name in ("squares.yaml", "squares.npz"):
        corpus.copy(name, place)
    run = corpus.copy("trained", place)
    file = pick(draw, sorted(file for file in run.iterdir() if file.is_file()))
    note = "bytes"
    if file.name == "train.json" and draw.integers(2):
        tree, note = changed_tree(draw, json.loads(file.read_text()))
        written(draw, file, json.dumps(tree))
    elif file.name == "state.pt" and draw.integers(2):
        state = torch.load(file, weights_only=True)
        plain = {k: v for k, v in state.items() if k not in ("network", "average", "optimizer")}
        tree, note = changed_tree(draw, plain)
        torch.save({**state, **tree} if isinstance(tree, dict) else tree, file)
    elif draw.integers(4) == 0:
        file.unlink()
        pick(
            draw,
            [
                file.mkdir,
                lambda: os.mkfifo(file),
                lambda: file.symlink_to("/dev/zero"),
                lambda: file.write_bytes(b""),
                lambda: None,
            ],
        )()
        note = "not a file"
    else:
        spoil(draw, file)
    words = ["train", "squares.yaml", "--data", "squares.npz", "--out", run, "--steps", pick(draw, ["4", "5"])]
    inputs = [place / "squares.yaml", place / "squares.npz"]
    return Case([*words, "--force"] if draw.integers(3) == 0 else words, inputs, f"{file.name}: {note}")


def benchmarks(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """The folder of a benchmark."""
    corpus.copy("small.safetensors", place)
    folder = corpus.copy("benched", place)
    file = pick(
        draw,
        sorted(f for f in folder.rglob("*") if f.is_file() and f.suffix in (".json", ".yaml", ".csv", ".npz", ".md")),
    )
    note = "bytes"
    if file.suffix == ".json" and draw.integers(2):
        tree, note = changed_tree(draw, json.loads(file.read_text()))
        written(draw, file, json.dumps(tree))
    else:
        spoil(draw, file)
    again = [*GOOD_WORDS["bench"][:-1], folder, "--nfe", "3,4"]
    words = pick(
        draw,
        [
            again,
            ["bench", "--status", folder],
            ["bench", "compare", folder, folder],
            ["bench", "compare", folder, folder, "--json"],
        ],
    )
    return Case(words, [], f"{file.relative_to(folder)}: {note}")


def arrays(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Initial states, and labelled images for training."""
    corpus.copy("tiny.safetensors", place)
    if draw.integers(2):
        path = corpus.copy("noise.npy", place)
        if draw.integers(2):
            spoil(draw, path)
        else:
            path.write_bytes(hostile_file(draw, ".npy"))
        return Case([*GOOD_WORDS["sample"], "--init-noise", path], [path])
    path = corpus.copy("squares.npz", place)
    corpus.copy("squares.yaml", place)
    if draw.integers(2):
        spoil(draw, path)
    else:
        labels = pick(
            draw, [[-1] * 8, [0] * 8, [0.5] * 8, [10**18] * 8, ["a"] * 8, [0, 1], [[0]] * 8, [], [2**63 - 1] * 8]
        )
        np.savez(path, train_images=np.zeros((8, 8, 8), np.uint8), train_labels=np.array(labels))
    words = ["train", "squares.yaml", "--data", path, "--out", "out", "--steps", "1"]
    return Case([*words, "--conditional"] if draw.integers(2) else words, [path])


def solvers(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Solver files of `gddim tune`."""
    corpus.copy("tiny.safetensors", place)
    path = corpus.copy("solver.json", place)
    note = "bytes"
    if draw.integers(3):
        tree, note = changed_tree(draw, json.loads(path.read_text()))
        written(draw, path, json.dumps(tree))
    else:
        spoil(draw, path)
    return Case(
        ["sample", "--checkpoint", "tiny.safetensors", "--nfe", 3, "-n", 2, "--out", "out", "--solver", path],
        [path],
        note,
    )


def names(corpus: Corpus, draw: Draw, place: Path) -> Case:
    """Good files of every kind under odd names, and odd names for outputs."""
    odd = [
        "\udcff\udcfe",
        "\x1b[31mred",
        "a\nb",
        "\u202e",
        "ü" * 80,
        " ",
        "-x",
        "$(id)",
        "%s",
        "[bold]",
        "'",
        '"',
        "a,b",
        "a=b",
        "~",
    ]
    for needed in ("tiny.safetensors", "digits", "squares.yaml", "squares.npz"):
        corpus.copy(needed, place)
    out = pick(draw, odd)

    def renamed(name: str) -> Path:
        source = corpus.copy(name, place) if not (place / name).exists() else place / name
        return source.rename(place / f"{pick(draw, odd)}{source.suffix}")

    cases = [
        lambda: [*GOOD_WORDS["sample"][:-1], renamed("tiny.safetensors")],
        lambda: ["sample", "--nfe", 2, "-n", 2, f"--out={out}", "--checkpoint=tiny.safetensors", "--json"],
        lambda: [*GOOD_WORDS["sample"], f"--save-raw={out}.npy", f"--trajectory={out}.gif"],
        lambda: [*GOOD_WORDS["sample"], "--init-noise", renamed("noise.npy")],
        lambda: [*GOOD_WORDS["sample"], "--diffusion", renamed("diffusion.yaml")],
        lambda: ["coefficients", "--nfe", 3, "--diffusion", renamed("own.py"), f"--npz={out}.npz"],
        lambda: [*FID, renamed("digits"), "--json"],
        lambda: [
            *FID,
            renamed(pick(draw, ["digits.zip", "digits.tar", "digits.npz", "run_png", "run_tar"])),
            f"--save-stats={out}.npz",
        ],
        lambda: ["fid", "--no-cache", "digits", "--ref", renamed("stats.npz"), "--json"],
        lambda: ["train", renamed("squares.yaml"), "--data", "squares.npz", "--steps", 1, f"--out={out}"],
        lambda: ["train", "squares.yaml", "--data", renamed("squares.npz"), "--steps", 1, "--out=o", f"--name={out}"],
        lambda: ["convert", renamed("edm_small_vp.pkl"), f"./{out}.safetensors", "--card", "edm-baseline-cifar10-vp"],
        lambda: ["checkpoints", renamed("tiny.safetensors")],
        lambda: ["bench", renamed("plan.yaml"), "--print-plan"],
        lambda: ["bench", "--status", renamed("benched")],
    ]
    return Case(pick(draw, cases)())


BOUNDARIES: dict[str, Boundary] = {
    boundary.__name__: boundary
    for boundary in (
        options, plans, recipes, diffusions, cards, native_bytes, released, pipelines, records, shards, images, statistics, features,
        training, benchmarks, arrays, names, solvers, own_code,
    )
}  # fmt: skip
