"""Tables and plots of made-up cells: what may stand at one place, beside what, under which name."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from matplotlib.colors import to_hex

from gddim_cli.bench import compare as comparing
from gddim_cli.bench import page, published, report, tables
from gddim_cli.bench.cell import Cell
from gddim_cli.bench.results import BenchPlan, Result
from gddim_cli.pages import figure, text
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runs.request_labels import labels
from gddim_cli.runs.solver_error import SolverError
from gddim_cli.runtime.json_files import short_hash

from .conftest import stand_in

OPTIONS = {
    "gddim": {"order": 2, "lambda": 0.0, "corrector": False},
    "em": {"lambda": 1.0},
    "rk45": {"rtol": None, "atol": None},
}


def request_of(sampler: str = "gddim", nfe: int = 50, seed: int = 0, **other: object) -> SamplingRequest:
    """A resolved request of the paper's CLD, with other settings or options of its sampler."""
    options = {**OPTIONS.get(sampler, {})} | {
        key: other.pop(key) for key in set(other) & {*OPTIONS["gddim"], "rtol", "atol"}
    }
    own = published.own_settings("cld-cifar10")
    for key in ("corrector", "rtol", "atol"):
        del own[key]
    settings = {**own, "checkpoint": "cld-cifar10", "checkpoint_sha256": "0" * 64, **other}
    return SamplingRequest(sampler=sampler, nfe=nfe, seed=seed, options=options, **settings)


def shown(sampler: str, nfe: int, seed: int, value: float | None, **other: object) -> tables.Pair:
    """A made-up cell of the paper's Table 1."""
    num, protocol = other.pop("num", 5000), other.pop("protocol", "gddim-paper")
    row, error, made = other.pop("row", "table1.R"), other.pop("error", None), other.pop("made", float(nfe))
    evaluator = {"metric": "FID", "reference": "cifar10-tf", "protocol": protocol, **other.pop("evaluator", {})}
    request = request_of(sampler, nfe, seed, **other)
    solver = SolverError(rms=error, images=2, reference={}, converged_to=0.0) if error else None
    key = short_hash(request, num, evaluator)
    result = Result(key, key, request, num, evaluator, nfe, value=value, nfe=made, solver_error=solver)
    given = SamplingRequest(checkpoint=request.checkpoint, nfe=nfe)
    return Cell(request=given, protocol=protocol, published=row, key=key), result


def test_the_cells_of_an_entry_differ_in_nothing_but_the_seed() -> None:
    """Whatever else differs is another row, and rows have names of their own."""
    plain = [shown("gddim", nfe, seed, 4.0) for nfe in (20, 50) for seed in (0, 1)]
    noisy = [shown("gddim", 50, 0, 4.0, order=0, **{"lambda": lam}) for lam in (0.0, 0.3)]
    others: list[dict] = [
        {"checkpoint_sha256": "1" * 64}, {"order": 0}, {"corrector": True}, {"t_start": 0.9}, {"sampler": "em", "k": "L"},
        {"sampler": "em", "k": "R"}, {"sampler": "heun", "k": "L"}, {"sampler": "rk45", "rtol": 1e-3},
        {"sampler": "rk45", "rtol": 1e-3, "batch_size": 8}, {"diffusion_sha256": "2" * 64}, {"parameters": {"beta_0": 1.0}},
    ]  # fmt: skip
    for cells, axis in ((plain, "nfe"), (noisy, "lambda")):
        # In a table over lambda all cells have a lambda.
        odd = [other for other in others if axis == "nfe" or other.get("sampler", "em") == "em"]
        odd = [shown(**{"sampler": "gddim", "nfe": 50, "seed": 0, "value": 5.0, **other}) for other in odd]
        pairs = {cell.key: (cell, result) for cell, result in [*cells, *odd]}
        (table,) = tables.tables(list(pairs.values()))
        assert table.axis == axis
        for entry in table.entries:
            found = [pairs[key][1].request.flat() for key in entry.keys]
            differ = {name for one in found for name in one if one[name] != found[0][name]}
            assert differ <= {"seed"}, differ
        assert sum(len(entry.keys) for entry in table.entries) == len(pairs)
        names = list(table.rows)
        assert len(set(names)) == len(names)
        assert not any("0" * 64 in name or "1" * 64 in name or "2" * 64 in name for name in names)


def test_published_numbers_are_the_papers_and_only_its_own_cells_have_them() -> None:
    def number(row: str, cell: dict, request: SamplingRequest) -> published.Number | None:
        given = SamplingRequest(checkpoint=cell["checkpoint"])
        return published.number(Cell(request=given, protocol=cell["protocol"], published=row), request)

    cell = {"checkpoint": "cld-cifar10", "protocol": "gddim-paper"}
    ours, em = request_of(), request_of("em")
    vp = published.own_settings("vp-cifar10")
    own = {key: vp[key] for key in ("t_start", "t_end", "time_grid", "denoise", "k", "diffusion", "parameters")}
    ddpm = msgspec.structs.replace(em, **own)
    assert number("table1.R", cell, ours) == 2.26
    assert number("table1.L", cell, request_of(nfe=20, k="L", denoise=False)) == 368
    assert number("table2.em", cell, request_of("em", **{"lambda": 0.3})) == 137
    assert number("table3.cld.em", cell, request_of("em", nfe=10)) == ">100"
    assert number("table3.ddpm.em", {**cell, "checkpoint": "vp-cifar10"}, ddpm) == 31.2
    assert number("table3.ddpm.em", cell, em) is None
    assert number("table1.R", {**cell, "checkpoint": "mnist"}, ours) is None
    assert number("table1.R", {**cell, "protocol": "edm"}, ours) is None
    others = {"nfe": 25, "k": "L", "order": 0, "denoise": False, "lambda": 0.3, "corrector": True}
    others |= {"time_grid": 1.0, "t_end": 1e-2, "quantize": "round", "parameters": {"beta_0": 1.0}, "diffusion": "vp"}
    for name, value in others.items():  # what an option may have put in place of the row's own
        assert number("table1.R", cell, request_of(**{name: value})) is None, name
    assert number("table1.R", cell, em) is None
    assert number("table1.L", cell, request_of(nfe=20, denoise=False)) is None
    assert number("table2.em", cell, request_of("em", nfe=20, **{"lambda": 0.3})) is None
    assert number("table2.gddim", cell, request_of("em", denoise=False, **{"lambda": 0.3})) is None
    assert number("table3.cld.em", cell, request_of(nfe=10)) is None


def test_options_that_change_a_preset_row_take_its_numbers_away(
    gddim, small: Path, tmp_path: Path, monkeypatch
) -> None:
    def printed(*words: object) -> tuple[list[tuple], list[str]]:
        found = gddim("bench", *words, "--num", "4", "--print-plan", "--json", "--out", tmp_path)
        plan = msgspec.convert(json.loads(found.out)["plan"], BenchPlan)
        requests = {result.key: result.request for result in plan.results}
        rows = [(cell, requests[cell.key]) for cell in plan.cells]
        return [(r.nfe, r.options["lambda"], published.number(cell, r)) for cell, r in rows], plan.notes

    stand_in(small, monkeypatch)
    assert printed("--table", 1, "--k", "R", "--nfe", "20,25") == (
        [(20, 0, None), (25, 0, None), (20, 0, 3.9), (25, 0, None)],
        [],
    )
    found, notes = printed("--table", 1, "--order", 0)
    assert {value for *_, value in found} == {None}
    assert any("published numbers" in note for note in notes)
    assert {value for *_, value in printed("--table", 2, "--nfe", 20)[0]} == {None}
    found, notes = printed("--table", 2, "--sampler", "em", "--lambda", "0,0.3")
    assert (found, notes) == ([(50, 0, None), (50, 0.3, None), (50, 0, 346), (50, 0.3, 137)], [])


def test_the_published_number_stands_beside_with_the_difference() -> None:
    cells = [shown("gddim", 20, seed, 4.0 + seed) for seed in (0, 1)] + [shown("gddim", 50, 0, 2.5)]
    cells += [shown("em", nfe, 0, 120.0, row="table3.cld.em") for nfe in (20, 50)]
    (table,) = tables.tables(cells)
    assert table.grid() == [
        ["sampler", "NFE 20", "NFE 50"],
        ["gDDIM order 2", "4.50 ± 0.50", "2.50"],
        ["published", "3.9", "2.26"],
        ["difference", "+0.60", "+0.24"],
        ["Euler-Maruyama", "120.0", "120.0"],
        ["published", ">100", "57.72"],
        ["difference", "", "+62.3"],
    ]
    assert any("50 000 images; with 5000 images" in note for note in table.notes())


def test_different_protocols_never_share_a_table_or_a_plot() -> None:
    cells = [shown("gddim", 20, 0, 4.0), shown("gddim", 50, 0, 3.0), shown("gddim", 20, 0, 5.0, num=1000)]
    cells += [shown("gddim", 20, 0, 6.0, protocol="edm"), shown("gddim", 20, 0, 7.0, quantize="round")]
    found = tables.tables(cells)
    assert [[entry.mean for entry in table.entries] for table in found] == [
        [4.0, 3.0],
        [5.0],
        [6.0],
        [7.0],
    ]
    assert report.stems(found) == ["fid_vs_nfe", "fid_vs_nfe-2", "fid_vs_nfe-3", "fid_vs_nfe-4"]


def test_tables_that_differ_in_one_thing_say_it() -> None:
    a, b = ({"reference_sha256": letter * 64} for letter in "ab")
    cells = [
        shown("gddim", 20, 0, 6.0, evaluator=b),
        shown("gddim", 20, 0, 7.0, evaluator=b, quantize="round"),
        shown("gddim", 20, 0, 5.0, num=9),
        shown("gddim", 20, 0, 6.0, evaluator=a),
    ]
    headings = [table.heading for table in tables.tables(cells)]
    assert len(set(headings)) == len(headings) == 4
    assert headings[0].endswith("reference sha256 bbbbbbbbbbbb, quantize floor")
    assert headings[1].endswith("reference sha256 bbbbbbbbbbbb, quantize round")
    assert headings[2].endswith("9 images per cell")


def spent(made: float, asked: int = 10, **other: object) -> tables.Pair:
    """A cell of RK45 that made so many evaluations."""
    return shown("rk45", asked, 0, 97.0, error=0.5, row=None, made=made, **other)


def report_of(pairs: list[tables.Pair]) -> report.Report:
    made = tables.tables(pairs)
    results = [result for _, result in pairs]
    return report.Report(gddim="", source="", complete=True, notes=[], tables=made, results=results)


def test_evaluations_made_stand_in_both_tables() -> None:
    cells = [spent(8), spent(18.25, 20), spent(1003, 1000), spent(99.96, 100), spent(98.7, 102)]
    (table,) = tables.tables(cells)
    brackets = ["(8)", "(18.2)", "(1003)", "", "(98.7)"]
    columns = [10, 20, 1000, 100, 102]
    for grid, plain in ((table.grid(), "97.00"), (table.error_grid(), "0.50")):
        found = dict(zip(table.columns, grid[1][1:], strict=True))
        assert [found[column] for column in columns] == [f"{plain} {text}".strip() for text in brackets]


def test_what_rk45_cannot_make_is_no_number_of_its_budget() -> None:
    """Tuned, it stands nowhere but in the JSON; with a tolerance of one's own it stands at what it took."""
    (table,) = tables.tables([spent(21), spent(22, 20), spent(51, 50), spent(104, 100)])
    line = ["RK45", "—", "—", "97.00 (51)", "97.00 (104)"]
    assert table.grid()[1] == line
    assert table.error_grid()[1] == ["RK45", "—", "—", "0.50 (51)", "0.50 (104)"]
    note = "—: RK45 exceeds the budget by more than 5 % (21 evaluations for NFE 10, 22 evaluations for NFE 20)."
    assert note in table.notes()
    first = table.entries[0]
    assert (first.mean, first.nfe, first.overspent) == (97.0, 21.0, True)
    found = report_of([spent(21)])
    assert "97.0" not in text.markdown(report.blocks(found.tables), found.notes)
    assert ",97.0," in text.csv_text(report.csv_lines(found))
    for name in ("mean", "solver_error"):
        assert [list(line.get_xdata()) for line in figure.draw(page.chart(table, name)).axes[0].lines] == [[51, 104]]
    (table,) = tables.tables([spent(57, rtol=1e-3, atol=1e-3)])
    assert table.grid()[1][1] == "97.00 (57)"


def test_a_spread_is_never_rounded_to_nothing() -> None:
    (table,) = tables.tables([shown("gddim", 20, seed, 1500 + 0.1 * seed) for seed in (0, 1)])
    assert table.grid()[1][1] == "1500 ± 0.0500"


def test_arrows_at_one_place_stand_beside_each_other() -> None:
    cells = [shown(name, nfe, 0, 120.0, row=f"table3.cld.{name}") for name in ("em", "rk45") for nfe in (10, 20)]
    (table,) = tables.tables(cells)
    arrows = [
        line for line in figure.draw(page.chart(table, "mean")).axes[0].lines if "arrow" in str(line.get_marker())
    ]
    assert len({float(x) for line in arrows for x in line.get_xdata()}) == 4


def test_the_plot_has_a_line_a_sampler_a_band_over_seeds_and_hollow_published_points() -> None:
    cells = [shown("gddim", nfe, seed, 4.0 + seed) for nfe in (20, 50) for seed in (0, 1)]
    cells += [shown("em", nfe, 0, 120.0, row="table3.cld.em") for nfe in (20, 50)]
    (table,) = tables.tables(cells)
    (axes,) = figure.draw(page.chart(table, "mean")).axes
    full = {line.get_label(): line for line in axes.lines if line.get_linestyle() != "None"}
    assert list(full) == ["gDDIM order 2", "Euler-Maruyama"]
    assert [list(full["gDDIM order 2"].get_xdata()), list(full["gDDIM order 2"].get_ydata())] == [[20, 50], [4.5, 4.5]]
    assert (axes.get_yscale(), axes.get_xscale()) == ("log", "log")
    (band,) = axes.collections
    heights = {round(float(y), 6) for y in band.get_paths()[0].vertices[:, 1]}
    assert heights == {4.0, 5.0}  # one standard error, sqrt(0.5) / sqrt(2)
    hollow = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert all(line.get_markerfacecolor() == "none" for line in hollow)
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [
        ([20, 50], [3.9, 2.26]), ([50], [57.72]), ([20], [100.0]),
    ]  # fmt: skip
    assert to_hex(hollow[0].get_color()) == to_hex(full["gDDIM order 2"].get_color())
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "hollow: published"


def test_labels_say_what_differs_and_no_more() -> None:
    base = request_of(nfe=10)
    cases = [base, request_of(order=0, **{"lambda": 0.3}), request_of(denoise=False), request_of("em")]
    assert labels(cases, "nfe") == [
        "gDDIM order 2", "gDDIM λ = 0.3", "gDDIM order 2, no denoising step", "Euler-Maruyama",
    ]  # fmt: skip
    vp = request_of(diffusion="vp", parameters={"beta_0": 0.1})
    assert labels([base, vp], "nfe") == ["cld: gDDIM order 2", "vp: gDDIM order 2"]
    assert labels([base, request_of(checkpoint="mine")], "nfe") == [
        "cld-cifar10: gDDIM order 2",
        "mine: gDDIM order 2",
    ]


def test_compare_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkpoints in one run are told apart by name; one in each run is compared whatever its name."""
    runs = {
        "two": [
            shown("gddim", 20, 0, 4.0, checkpoint="a"),
            shown("gddim", 20, 0, 5.0, checkpoint="b", checkpoint_sha256="1" * 64),
        ],
        "one": [shown("gddim", 20, 0, 6.0, checkpoint="a", checkpoint_sha256="2" * 64)],
        "other": [shown("gddim", 20, 0, 7.0, checkpoint="c")],
        "types": [shown("gddim", 20, 0, 4.0), shown("gddim", 20, 0, 5.0, dtype="float16")],
    }  # fmt: skip
    monkeypatch.setattr(comparing, "read", lambda path: report_of(runs[path.name]))

    def pairs(first: str, second: str) -> list[tuple]:
        return [(pair["a"], pair["b"]) for pair in comparing.compare(Path(first), Path(second))]

    assert pairs("two", "two") == [(4.0, 4.0), (5.0, 5.0)]
    assert pairs("two", "one") == [(4.0, 6.0), (5.0, None)]
    assert pairs("one", "other") == [(6.0, 7.0)]
    assert pairs("types", "types") == [(4.0, 4.0), (5.0, 5.0)]
    names = [pair["sampler"] for pair in comparing.compare(Path("two"), Path("two"))]
    assert names == ["a: gDDIM order 2", "b: gDDIM order 2"]
