"""Tables and plots: the numbers of `results.json`, in places that can be read back."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path

import msgspec
import pytest

from gddim_cli.bench import page, report, tables
from gddim_cli.bench.tables import Table
from gddim_cli.pages import figure, text

PLAN = """\
num: 6
batch_size: 6
solver_error: true
solver_error_images: 2
rows:
  - {table: Samplers, sampler: gddim, order: [0, 2], nfe: [5, 8], seeds: [0, 1, 2]}
  - {table: Samplers, sampler: heun, nfe: [5, 8]}
  - {table: Samplers, sampler: em, nfe: 8}
  - {table: K, sampler: gddim, order: 2, k: [R, L], nfe: 5}
  - {table: lambda, sampler: [gddim, em], order: 0, lambda: [0, 0.5, 1], nfe: 5}
"""


@pytest.fixture(scope="module")
def folder(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of that plan."""
    import sys

    from gddim_cli.cli.main import main

    path = tmp_path_factory.mktemp("report")
    (path / "plan.yaml").write_text(PLAN)
    words = ["bench", path / "plan.yaml", "--checkpoint", small, "--ref", "mnist", "--out", path / "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gddim", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return path / "out"


@pytest.fixture(scope="module")
def results(folder: Path) -> report.Report:
    return msgspec.json.decode((folder / "results.json").read_bytes(), type=report.Report)


def entries(results: report.Report) -> dict[tuple[str, str, float], tables.Entry]:
    return {
        (table.title, label, column): entry
        for table in results.tables
        for label, row in table.rows.items()
        for column, entry in zip(table.columns, row, strict=True)
        if entry
    }


def test_the_tables_are_the_cells(results: report.Report) -> None:
    """Means, spreads and errors from the cells alone, by the definitions."""
    by_key = {result.key: result for result in results.results}
    count = 0
    for table in results.tables:
        for entry in table.entries:
            values = [by_key[key].value for key in entry.keys]
            assert entry.mean == pytest.approx(sum(values) / len(values))
            assert entry.std == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)
            errors = [error.rms for key in entry.keys if (error := by_key[key].solver_error)]
            assert (entry.solver_error is None) == (not errors)
            count += len(entry.keys)
    assert count == 12 + 2 + 1 + 2 + 6
    assert len(results.results) == len(by_key) == count - 2
    assert [table.title for table in results.tables] == ["Samplers", "K", "lambda"]
    assert list(results.tables[0].rows) == ["gDDIM order 0", "gDDIM order 2", "Heun", "Euler-Maruyama"]
    assert list(results.tables[1].rows) == ["gDDIM order 2, K = R", "gDDIM order 2, K = L"]
    assert (results.tables[2].axis, results.tables[2].columns, results.tables[2].nfe) == ("lambda", [0.0, 0.5, 1.0], 5)


def test_a_cell_in_two_tables_is_measured_once(results: report.Report, folder: Path) -> None:
    keys = [key for table in results.tables for entry in table.entries for key in entry.keys]
    assert len(set(keys)) == len(keys) - 2  # order 2 with K = R, and order 0 as lambda 0, at NFE 5 and seed 0
    assert len(list((folder / "cells").iterdir())) == len(set(keys))


def test_only_deterministic_cells_have_a_solver_error(results: report.Report) -> None:
    for result in results.results:
        noisy = bool(result.request.options.get("lambda"))
        assert (result.solver_error is None) == noisy, result.request
        if result.solver_error:
            assert 0 <= result.solver_error.converged_to < result.solver_error.rms


def test_csv_holds_every_number_in_full(results: report.Report, folder: Path) -> None:
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = entries(results)
    assert len(rows) == len(found)
    for row in rows:
        entry = found[row["table"], row["sampler"], float(row["lambda"] or row["nfe"])]
        assert float(row["mean"]) == entry.mean
        assert (float(row["std"]) if row["std"] else None) == entry.std
        assert (float(row["solver_error"]) if row["solver_error"] else None) == entry.solver_error
        assert (float(row["nfe_made"]), row["metric"]) == (entry.nfe, "FD(lenet-mnist)")


def printed_numbers(grid: list[list[str]], table: Table) -> None:
    """Every number of a table is the JSON's, to the digits that are printed, with spread and evaluations."""
    by_label = {row[0]: row[1:] for row in grid}
    for label, row in table.rows.items():
        for cell, entry in zip(by_label[label], row, strict=True):
            assert (cell == "") == (entry is None)
            if entry:
                match = re.fullmatch(r"([\d.]+)(?: ± ([\d.]+))?(?: \(([\d.]+)\))?", cell)
                assert match, cell
                digits = len(match[1].partition(".")[2])
                assert float(match[1]) == round(entry.mean, digits)
                assert (match[2] is None) == (entry.standard_error is None)
                if entry.std is not None:  # over seeds
                    assert entry.standard_error == pytest.approx(entry.std / math.sqrt(entry.seeds))
                assert match[2] is None or float(match[2]) == round(entry.standard_error, digits)
                assert float(match[3] or entry.asked) == entry.nfe


def test_markdown_prints_them(results: report.Report, folder: Path) -> None:
    text = (folder / "table.md").read_text()
    parts = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    for part, table in zip(parts, results.tables, strict=True):
        distances = part.split("Solver error")[0]
        lines = [line for line in distances.splitlines() if line.startswith("| ") and "---" not in line]
        printed_numbers([[cell.strip() for cell in line.split("|")[1:-1]] for line in lines], table)
        assert part.splitlines()[0] == table.title
        assert "FD(lenet-mnist)@6 against mnist, 6 images per cell" in part
        assert "FID" not in part
    assert "±: the standard error of the mean over 3 seeds" in parts[0]
    assert "| Heun | " in parts[0]
    assert "(4)" in parts[0]  # NFE 5 with the denoising step: two steps of Heun take 3


def test_latex_prints_them(results: report.Report, folder: Path) -> None:
    text = (folder / "table.tex").read_text()
    assert text.count("\\begin{") == text.count("\\end{")
    assert text.count("{") == text.count("}")
    found = re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
    for body, table in zip(found[::2], results.tables, strict=True):  # every other one is of solver errors
        lines = body.replace("$\\pm$", "±").replace("$\\lambda$", "λ").splitlines()
        printed_numbers([[cell.strip() for cell in line.removesuffix("\\\\").split("&")] for line in lines], table)
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)[_%#](?!.*booktabs)", line), line


def test_a_real_budget_stands_at_what_was_spent(results: report.Report) -> None:
    (axes,) = figure.draw(page.chart(results.tables[0], "mean")).axes
    heun = next(line for line in axes.lines if line.get_label() == "Heun")
    assert list(heun.get_xdata()) == [4, 8]
    (axes,) = figure.draw(page.chart(results.tables[0], "solver_error")).axes
    assert [line.get_label() for line in axes.lines] == ["gDDIM order 0", "gDDIM order 2", "Heun"]


def test_plots_are_the_same_bytes_each_time(results: report.Report, folder: Path, tmp_path: Path) -> None:
    figure.save(figure.draw(page.chart(results.tables[0], "mean")), tmp_path / "again")
    for ending in ("png", "svg"):
        assert (tmp_path / f"again.{ending}").read_bytes() == (folder / f"fid_vs_nfe.{ending}").read_bytes()
    names = {path.name for path in folder.glob("*.svg")}
    assert names == {
        "fid_vs_nfe.svg",
        "fid_vs_nfe-k.svg",
        "fid_vs_nfe-lambda.svg",
        "error_vs_nfe.svg",
        "error_vs_nfe-k.svg",
        "error_vs_nfe-lambda.svg",
    }


def test_compare_pairs_cells_and_says_what_only_one_has(bench, gddim, tmp_path: Path) -> None:
    bench("--nfe", "4,5", "--num", "6", out="a")
    bench("--nfe", "5,6", "--num", "6", out="b")
    result = gddim("bench", "compare", tmp_path / "a", tmp_path / "b", "--json")
    pairs = {pair["nfe"]: pair for pair in json.loads(result.out)}
    assert (pairs[4]["in_a"], pairs[4]["in_b"], pairs[6]["in_a"]) == (True, False, False)
    assert (pairs[5]["difference"], pairs[5]["same"]) == (0.0, True)
    shown_there = gddim("bench", "compare", tmp_path / "a", tmp_path / "b")
    assert "absent" in shown_there.out
    assert f"1 cell in both, 1 only in {tmp_path / 'a'}, 1 only in {tmp_path / 'b'}" in shown_there.err


def test_compare_refuses_different_evaluators(bench, gddim, small: Path, tmp_path: Path) -> None:
    bench("--nfe", "4", "--num", "6", out="a")
    words = ("--sampler", "gddim", "--nfe", "4", "--num", "6", "--checkpoint", small, "--ref", "mnist:test")
    words = (*words, "--out", tmp_path / "b")
    assert gddim("bench", *words).status == 0
    result = gddim("bench", "compare", tmp_path / "a", tmp_path / "b")
    assert (result.status, result.out) == (2, "")
    assert "reference: mnist and mnist:test" in result.err
    assert gddim("bench", "compare", tmp_path / "a", tmp_path).status == 1


def test_the_readme_shows_what_the_default_plan_made() -> None:
    """`docs/bench/` is a copy of that run's files, and the README's table is its first."""
    root = Path(__file__).parents[2]
    made = msgspec.json.decode((root / "docs" / "bench" / "results.json").read_bytes(), type=report.Report)
    assert (made.source, made.complete) == ("the default plan", True)
    table = text.markdown(report.blocks(made.tables), made.notes)
    assert table == (root / "docs" / "bench" / "table.md").read_text()
    assert all(entry.standard_error for entry in made.tables[0].entries)
    shown_there = (root / "README.md").read_text().partition("<!-- bench -->\n")[2].partition("\n![")[0]
    assert table.startswith(shown_there)
