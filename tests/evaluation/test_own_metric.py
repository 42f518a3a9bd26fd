"""A metric from outside the package: registered by a program, or offered by an installed plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pytest
import torch
from support import folder_of, pictures

from gddim_cli.errors import UsageError
from gddim_cli.evaluation.extractors.lenet import load_lenet
from gddim_cli.evaluation.metrics.base import MetricSpec
from gddim_cli.evaluation.metrics.registry import METRICS
from gddim_cli.runtime.registry import register
from gddim_cli.runtime.user_file import LOADED
from gddim_cli.settings import about

TOY = """
import numpy as np
from gddim_cli.evaluation.metrics.base import MetricSpec

def compute(features, reference, options, on_step):
    on_step(1.0)
    return {"value": float(np.abs(features.mean(axis=0) - reference.gaussian.mean).sum())}

TOY = MetricSpec(name="toy", title="Toy", lower_is_better=True, compute=compute)
"""


class ToyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the toy metric."""

    power: Annotated[float, about("The power that differences are raised to.", label="power {}", gt=0, le=8)] = 1.0


def compute(features, reference, options: ToyOptions, on_step) -> dict[str, float]:
    """The sum of the powers of differences between the mean features."""
    on_step(1.0)
    distances = np.abs(features.mean(axis=0) - reference.gaussian.mean)
    return {"value": float((distances**options.power).sum()), "largest": float(distances.max())}


@pytest.fixture
def toy() -> Iterator[MetricSpec]:
    spec = MetricSpec(name="toy", title="Toy", lower_is_better=True, options=ToyOptions, compute=compute)
    register(spec)
    yield spec
    METRICS.remove("toy")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    return folder_of(tmp_path / "digits", pictures(30, 28, 1))


@pytest.mark.parametrize("base", ["BaseException", "RuntimeError", "OSError"])
def test_errors_of_every_class_in_a_metric_are_one_line(
    gddim: Callable, digits: Path, tmp_path: Path, base: str
) -> None:
    bad = f"    raise Odd\n\nclass Odd({base}):\n    def __str__(self): return 5\n"
    (tmp_path / "bad.py").write_text(TOY.replace("    on_step(1.0)\n", bad + "\ndef other(features, reference):\n"))
    try:
        found = gddim("fid", digits, "--ref", digits, "--metrics", tmp_path / "bad.py")
        assert (found.status, len(found.err.splitlines())) == (1, 1), found.err
    finally:
        METRICS.remove("toy")
        LOADED.clear()


def test_a_registered_metric_is_a_metric_like_the_others(gddim: Callable, digits: Path, toy: MetricSpec) -> None:
    words = ("fid", digits, "--ref", digits.parent / "other")
    other = folder_of(digits.parent / "other", pictures(40, 28, 1, seed=1))
    found = gddim(*words, "--metrics", "toy,fid,toy:power=2", "--json")
    assert found.status == 0, found.err
    said = json.loads(found.out)
    lenet = load_lenet(torch.device("cpu"))
    means = [lenet(pictures(n, 28, 1, seed=seed)).mean(axis=0) for n, seed in ((30, 0), (40, 1))]
    for name, power in (("toy", 1), ("toy:power=2", 2)):
        exact = (np.abs(means[0] - means[1]) ** power).sum()
        assert said["metrics"][name]["value"] == pytest.approx(exact, rel=1e-4)
    assert (said["metric"], said["metric_name"], said["metric_options"]) == ("Toy(lenet-mnist)", "toy", {"power": 1})
    assert said["metrics"]["toy:power=2"]["metric"] == "Toy(lenet-mnist) (power 2)"
    assert other.exists()
    shown = gddim(*words, "--metrics", "toy:power=2").out
    assert shown.startswith("Toy(lenet-mnist) (power 2)@30 = ")
    assert "largest" in shown.splitlines()[0]
    refused = gddim(*words, "--metrics", "toy:power=9")
    assert (refused.status, "--metrics toy:power: 9" in refused.err) == (2, True)
    with pytest.raises(UsageError, match="there is a metric 'fid' already"):
        register(MetricSpec(name="fid", title="Mine", lower_is_better=True, compute=compute))


def test_a_plugins_metric_is_found(digits: Path, tmp_path: Path) -> None:
    """As after `pip install` of a package with an entry point in the group gddim.plugins."""
    site = tmp_path / "site"
    (site / "toy-1.0.dist-info").mkdir(parents=True)
    (site / "toy_metric.py").write_text(TOY)
    (site / "toy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (site / "toy-1.0.dist-info" / "entry_points.txt").write_text("[gddim.plugins]\ntoy = toy_metric:TOY\n")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path])
    words = [sys.executable, "-m", "gddim_cli", "fid", str(digits), "--metrics", "toy", "--json"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["metric"] == "Toy(lenet-mnist)"
    assert said["value"] > 0


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forgets the metric of a user's file afterwards."""
    yield
    METRICS.remove("toy")
    LOADED.clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"value"', '{"score"', "}; expected a dict of numbers by name, one of them named 'value'"),
        ("return {", "return None\n    return {", "compute returned None; expected a dict of numbers by name"),
        ("return {", "return 5\n    return {", "compute returned 5; expected a dict of numbers by name"),
        ("float(np.abs", "str(np.abs", "' under the name 'value'; expected a number, and a text as its name"),
        (
            "return {",
            "return {'value': 10**400}\n    return {",
            "compute returned inf under the name 'value'; expected a finite",
        ),
        ("return {", "return {'value': float('nan')}\n    return {", "compute returned nan under the name 'value'"),
        ("return {", "return {'value': 1, 'low': 0}\n    return {", "low = 0 and high = None; expected both ends"),
        (
            "return {",
            "return {'value': 1, 'low': 2, 'high': 0}\n    return {",
            "low = 2 and high = 0; expected both ends",
        ),
        (
            "return {",
            "return {'value': 1, 'standard_error': -1}\n    return {",
            "standard_error = -1; expected 0 or more",
        ),
        (
            "return {",
            "return {'value': 1, '\\ud800': 1}\n    return {",
            "under the name '\\ud800'; expected a name that can",
        ),
        (
            "return {",
            "return {'value': 1, '\\x1b[31m': 1}\n    return {",
            "under the name '\\x1b[31m'; expected a name that can",
        ),
        ("options, on_step)", "options)", "compute raised TypeError: compute() takes 3 positional arguments"),
        (
            "compute=compute",
            "compute=compute, least_images=lambda d, o: 'x'",
            "least_images returned str; expected a whole number",
        ),
        ("compute=compute", "compute=compute, least_images=lambda: 2", "least_images raised TypeError"),
        (
            "compute=compute",
            "compute=compute, notes=lambda f, r: 5",
            "notes raised TypeError: 'int' object is not iterable",
        ),
        ("compute=compute", "compute=compute, notes=lambda f, r: [5]", "notes returned [5]; expected texts"),
        ('title="Toy"', "title=5", "running it failed: MetricSpec: title is 5, not a text"),
        ('title="Toy"', 'title="{none}"', "running it failed: metric toy: title '{none}': "),
    ],
)
def test_a_metric_that_is_wrong_ends_in_one_line(
    gddim: Callable, digits: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "own.py"
    path.write_text(TOY.replace(old, new, 1))
    found = gddim("fid", digits, "--ref", digits, "--metrics", path)
    assert (found.status, str(path) in found.err, message in found.err) == (1, True, True), found.err
    assert found.err.count("gddim: ") == 1


@pytest.mark.usefixtures("forgotten")
def test_numbers_of_any_real_type_are_a_metrics_numbers(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    given = '{"value": Fraction(1, 4), "single": np.float32(0.5), "count": np.int64(3), "large": 10**30}\n    return {'
    path.write_text(f"from fractions import Fraction\n{TOY.replace('return {', f'return {given}', 1)}")
    words = ("fid", digits, "--ref", digits, "--metrics", path)
    found = gddim(*words, "--json")
    assert found.status == 0, found.err
    numbers = json.loads(found.out)["results"][0]["numbers"]
    assert numbers == {"value": 0.25, "single": 0.5, "count": 3, "large": 1e30}
    assert "count 3" in gddim(*words).out


@pytest.mark.usefixtures("forgotten")
def test_a_metric_cannot_change_what_the_next_one_is_given(gddim: Callable, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    other = folder_of(tmp_path / "other", pictures(40, 28, 1, seed=1))
    path.write_text(TOY.replace("    on_step", "    object.__setattr__(reference, 'name', 'x')\n    on_step", 1))
    words = ("fid", digits, "--ref", other, "--json", "--metrics")
    alone, after = gddim(*words, "fid"), gddim(*words, f"{path},fid")
    assert (alone.status, after.status) == (0, 0), after.err
    assert json.loads(after.out)["results"][1] == json.loads(alone.out)["results"][0]
    for array in ("reference.gaussian.mean", "reference.gaussian.covariance", "features"):
        METRICS.remove("toy")
        path.write_text(TOY.replace("    on_step", f"    {array}[:] = 0\n    on_step", 1))
        refused = gddim(*words, f"{path},fid")
        assert (
            refused.status,
            "own.py: compute raised ValueError: assignment destination is read-only" in refused.err,
        ) == (
            1,
            True,
        ), refused.err
