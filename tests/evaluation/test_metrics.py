"""Metrics as specs: how `--metrics` chooses them, what they are called, what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gddim_cli.cli.fid_settings import FidSettings
from gddim_cli.cli.options import completion
from gddim_cli.errors import UsageError
from gddim_cli.evaluation.extractors.lenet import load_lenet
from gddim_cli.evaluation.factory import open_evaluator
from gddim_cli.evaluation.metrics.registry import METRICS, find_metric, find_metrics
from gddim_cli.settings import declared

CPU = torch.device("cpu")


def test_importing_the_metrics_imports_no_torch() -> None:
    code = "import sys; import gddim_cli.evaluation.metrics.registry, gddim_cli.evaluation.protocols\n"
    code += "sys.exit(str(sorted({'torch', 'scipy', 'PIL', 'cleanfid'} & set(sys.modules)) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_metric_is_named_after_its_features_and_options() -> None:
    lenet = load_lenet(CPU)
    inception = replace(lenet, name="inception", mode="clean", published=True)
    labels = {
        "fid": ("FID", "FD(lenet-mnist)"),
        "kid": ("KID", "KID(lenet-mnist)"),
        "kid:size=500": ("KID (size 500)", "KID(lenet-mnist) (size 500)"),
        "prdc": ("precision", "precision(lenet-mnist)"),
        "prdc:value=recall:k=3": ("recall (k 3)", "recall(lenet-mnist) (k 3)"),
    }
    for text, (official, other) in labels.items():
        metric = find_metric(text)
        assert (metric.label(inception), metric.label(lenet)) == (official, other)
        assert metric.text == text
    assert find_metric("kid:size=1000").text == "kid"
    assert [metric.spec.name for metric in find_metrics("fid, kid,prdc")] == ["fid", "kid", "prdc"]
    assert [METRICS[name].lower_is_better for name in ("fid", "kid", "prdc")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fidd", "--metrics: there is no metric 'fidd'; did you mean 'fid'"),
        ("prdc:k=0", "--metrics prdc:k: 0: expected a whole number from 1 to 1000"),
        ("prdc:k=three", "--metrics prdc:k: 'three': expected a whole number"),
        ("prdc:value=f1", "--metrics prdc:value: 'f1': expected one of precision, recall, density, coverage"),
        ("prdc:kk=3", "--metrics prdc:kk: the metric prdc has no setting 'kk'; did you mean 'k'"),
        ("fid:k=3", "--metrics fid:k: the metric fid has no setting 'k'"),
        ("prdc:3", "--metrics prdc:3: '3' is not of the form key=value"),
        ("prdc:k=3:k=4", "'k=4' is not of the form key=value, or its key is given twice"),
        ("fid,kid,fid", "--metrics fid,kid,fid: fid is listed twice"),
        (",", "--metrics: names no metric; known: fid"),
    ],
)
def test_metrics_that_cannot_be_used_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_metrics(text)
    assert message in str(refused.value)


def test_an_evaluator_says_what_its_value_depends_on() -> None:
    evaluator = open_evaluator(None, None, None, None, CPU, (28, 28, 1), metric="prdc:value=coverage")
    found = evaluator.identity()
    assert (found["metric"], found["metric_name"]) == ("coverage(lenet-mnist)", "prdc")
    assert found["metric_options"] == {"value": "coverage", "k": 5}
    assert (found["reference"], found["mode"], found["network"]) == ("mnist", "lenet", "lenet-mnist")
    assert evaluator.label(200) == "coverage(lenet-mnist)@200"
    assert evaluator.with_metric("kid").label(200) == "KID(lenet-mnist)"
    reference = evaluator.reference
    values = evaluator.evaluate(reference.features[:300])
    assert values["value"] == values["coverage"]
    bare = replace(evaluator, reference=replace(reference, features=None))
    with pytest.raises(
        UsageError, match="--metrics kid: needs the reference's features, and mnist has only their mean"
    ):
        bare.with_metric("kid")
    assert bare.with_metric("fid").label() == "FD(lenet-mnist)"


def test_a_usage_error_is_quick(tmp_path: Path) -> None:
    """A mistyped metric, mode or protocol is found before torch is imported."""
    for option, value in (("--metrics", "fidd"), ("--mode", "cleen"), ("--protocol", "edn"), ("--num", "1")):
        code = f"import sys; sys.argv = ['gddim', 'fid', {str(tmp_path)!r}, {option!r}, {value!r}]\n"
        code += "from gddim_cli.cli.main import main\ntry: main()\nexcept SystemExit as ended: assert ended.code == 2\n"
        code += "assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, option in done.stderr) == (0, True), done.stderr


def test_completion_offers_names_also_within_a_list() -> None:
    complete = completion(declared(FidSettings)["metrics"])
    assert complete
    assert complete("fi") == ["fid", "fid-infinity"]
    assert complete("fid,pr") == ["fid,prdc"]
    assert complete("x") == []
