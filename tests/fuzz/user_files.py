"""Users' Python files, whose code is changed: it raises errors, exits, or returns something else."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
from fuzz.corpus import Corpus
from fuzz.harness import Case
from fuzz.mutations import pick

MODEL = """
import torch
import gddim_cli as gddim

class Shrink(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.variance = 0.25

    def forward(self, y, sigma):
        share = self.variance / (self.variance + sigma**2)
        return y * share.view(-1, 1, 1, 1)

def build():
    module = Shrink()
    return gddim.Denoiser(module, image_shape=(1, 8, 8), sigma_min=0.001, sigma_max=300.0, prediction="denoiser")
"""
SAMPLER = """
import dataclasses
from typing import Annotated
import msgspec
import gddim_cli as gddim

class Options(msgspec.Struct, frozen=True, kw_only=True):
    stretch: Annotated[float, gddim.about("Stretch of each step.", ge=0, le=1)] = 0.0

def prepare(diffusion, config, budget, options):
    from gddim_cli.samplers.base import PreparedSampler, multistep_sampler, time_grid
    from gddim_cli.samplers.em import em_coefficients
    found = em_coefficients(diffusion, time_grid(diffusion, config, budget, budget), 0.0, config.k, config.denoise)
    made = multistep_sampler(dataclasses.replace(found, C=found.C * (1 + options.stretch)), options)
    def solve(eps, u, draw):
        for t, state in made.solve(eps, u, draw):
            yield t, state
    return dataclasses.replace(made, solve=solve)

SPEC = gddim.SamplerSpec(name="fuzzed", title="Fuzzed", order="1", source="a test", prepare=prepare, options=Options)
"""
METRIC = """
import numpy as np
from gddim_cli.evaluation.metrics.base import MetricSpec

def compute(features, reference, options, on_step):
    on_step(1.0)
    return {"value": float(np.abs(features.mean(axis=0) - reference.gaussian.mean).sum())}

SPEC = MetricSpec(name="fuzzed-metric", title="Fuzzed", lower_is_better=True, compute=compute)
"""
FEATURES = """
import torch

def build(device):
    def network(images):
        return images.flatten(1)[:, :16]
    return network
"""
STATEMENTS = [
    "raise KeyError('x')", "raise SystemExit", "raise SystemExit(0)", "raise SystemExit('no')", "return None", "return 5", "return 'x'",
    "1 / 0", "import nowhere", "return [1]", "return {}", "return float('nan')", "return ()", "assert False", "yield 1", "return print",
    "raise ValueError('\\x1b[2J\\nno\\ud800')", "raise Exception", "raise OSError(5, 'no')", "raise StopIteration", "return 1j",
    "raise GeneratorExit", "raise RuntimeError('out of memory')", "import sys; sys.exit()", "raise UnicodeDecodeError('x', b'', 0, 1, 'y')",
]  # fmt: skip
CONSTANTS = [None, True, 0, -1, 2, 1e300, -0.5, float("nan"), float("inf"), 10**9, 10**25, "", "x", "\ud800", (), 1j]


def own_code(corpus: Corpus, draw: np.random.Generator, place: Path) -> Case:
    """A model, a sampler, a diffusion, a metric or features of a user's own."""
    for needed in ("tiny.safetensors", "digits"):
        corpus.copy(needed, place)
    sample = ["sample", "--nfe", 3, "-n", 2, "--out", "out"]
    fid = ["fid", "--no-cache", "--ref", "digits", "digits"]
    tiny = ["--checkpoint", "tiny.safetensors"]
    kinds = [
        (MODEL, [*sample, "--checkpoint", "mine.py:build"]),
        (MODEL, ["tune", "--nfe", 3, "--num", 4, "--out", "solver.json", "--checkpoint", "mine.py:build"]),
        (MODEL, ["check", "--checkpoint", "mine.py:build"]),
        (SAMPLER, [*sample, *tiny, "--sampler", "mine.py"]),
        (SAMPLER, ["sample", "--sampler", "mine.py", "--help"]),
        ((corpus.root / "own.py").read_text(), [*sample, *tiny, "--diffusion", "mine.py"]),
        ((corpus.root / "own.py").read_text(), ["coefficients", "--nfe", 3, "--diffusion", "mine.py"]),
        ((corpus.root / "own.py").read_text(), ["check", "mine.py"]),
        (METRIC, [*fid, "--metrics", "mine.py"]),
        (FEATURES, [*fid, "--features", "mine.py:build"]),
    ]
    code, words = pick(draw, kinds)
    text, note = changed_code(draw, code)
    (place / "mine.py").write_text(text, encoding="utf-8", errors="surrogatepass")
    return Case(words, [place / "mine.py"], note)


def changed_code(draw: np.random.Generator, code: str) -> tuple[str, str]:
    """The code with a statement put into a function, a constant replaced, or a statement removed, and what was done."""
    tree = ast.parse(code)
    kind = draw.integers(4)
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    if kind < 2:
        body = pick(draw, [node for node in bodies if isinstance(node, ast.FunctionDef)])
        statement = pick(draw, STATEMENTS)
        body.body.insert(
            int(draw.integers(len(body.body) + 1)), ast.parse(f"def f():\n    {statement}").body[0].body[0]
        )
        note = f"{body.name}: {statement}"
    elif kind == 2 and constants:
        constant, value = pick(draw, constants), pick(draw, CONSTANTS)
        note = f"{constant.value!r} = {value!r}"
        constant.value = value
    else:
        body = pick(draw, bodies)
        note = f"without {ast.unparse(body.body.pop(int(draw.integers(len(body.body)))))[:60]!r}"
        body.body = body.body or [ast.Pass()]
    return "".join(
        character if ord(character) < 128 else ascii(character)[1:-1] for character in ast.unparse(tree)
    ), note
