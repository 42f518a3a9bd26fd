"""Tables and plots of made-up cells: what may stand at one place, beside what, under which name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest
from matplotlib.colors import to_hex

from gddim_cli.bench import compare as comparing
from gddim_cli.bench import figures, plot, published, report, sheets
from gddim_cli.bench.folder import Result, SolverError
from gddim_cli.bench.labels import labels
from gddim_cli.bench.sheets import Shown

from .conftest import stand_in


def shown(sampler: str, nfe: int, seed: int, distance: float | None, **other: object) -> Shown:
    """A made-up cell of the paper's Table 1."""
    settings = {
        "checkpoint": "cld-cifar10", "checkpoint_sha256": "0" * 64, "diffusion": {"name": "cld"}, "sampler": sampler,
        "nfe": nfe, "k": "R", "denoise": True, "t_end": 1e-3, "grid_power": 2.0, "quantize": "floor", "seed": seed,
        "dtype": "float32", "order": 2, "lambda": 0.0, "eta": None, "corrector": False, "rtol": None, "atol": None,
    }  # fmt: skip
    settings |= {"t_start": 1.0, "diffusion": published.own_settings("cld-cifar10")["diffusion"]}
    num, protocol = other.pop("num", 5000), other.pop("protocol", "gddim-paper")
    row, error = other.pop("row", "table1.R"), other.pop("error", None)
    settings |= other
    judge = {"metric": "FID", "reference": "cifar10-tf", "protocol": protocol}
    result = Result(
        key=f"{sampler}{nfe}{seed}{num}", settings=settings, num=num, judge=judge, distance=distance, nfe=float(nfe)
    )
    cell = {"checkpoint": settings["checkpoint"], "protocol": protocol, "nfe": nfe, "lambda": settings["lambda"]}
    printed = published.number(row, cell, settings)
    solver = SolverError(rms=error, images=2, reference={}, converged_to=0.0) if error else None
    difference = distance - printed if distance is not None and isinstance(printed, float) else None
    return Shown(table="", cell=cell, result=result, solver_error=solver, published=printed, difference=difference)


def test_the_cells_of_an_entry_differ_in_nothing_but_the_seed() -> None:
    """Whatever else differs is another row, and rows have names of their own."""
    plain = [shown("gddim", nfe, seed, 4.0) for nfe in (20, 50) for seed in (0, 1)]
    noisy = [shown("gddim", 50, 0, 4.0, order=0, **{"lambda": lam}) for lam in (0.0, 0.3)]
    others: list[dict] = [
        {"checkpoint_sha256": "1" * 64}, {"order": 0}, {"corrector": True}, {"t_start": 0.9}, {"sampler": "em", "k": "L"},
        {"sampler": "em", "k": "R"}, {"sampler": "heun", "k": "L"}, {"sampler": "rk45", "rtol": 1e-3},
        {"sampler": "rk45", "rtol": 1e-3, "batch_size": 8}, {"diffusion": {"name": "cld", "file_sha256": "2" * 64}},
    ]  # fmt: skip
    odd = [shown(**{"sampler": "gddim", "nfe": 50, "seed": 0, "distance": 5.0, **other}) for other in others]
    for cells, axis in ((plain + odd, "NFE"), (noisy + odd, "lambda")):
        settings = {id(cell.result): cell.result.settings for cell in cells}
        assert len(settings) == len(cells)
        for number, cell in enumerate(cells):
            cell.result.key = str(number)
        (sheet,) = sheets.sheets(cells)
        assert sheet.axis == axis
        for row in sheet.rows:
            for keys in row.keys:
                found = [cells[int(key)].result.settings for key in keys]
                differ = {name for one in found for name in one if one[name] != found[0][name]}
                assert differ <= {"seed"}, (row.label, differ)
        names = [row.label for row in sheet.rows]
        assert len(set(names)) == len(names)
        assert not any("0" * 64 in name or "1" * 64 in name or "2" * 64 in name for name in names)


def test_published_numbers_are_the_papers_and_only_its_own_cells_have_them() -> None:
    cell = {"checkpoint": "cld-cifar10", "protocol": "gddim-paper"}
    ours = {**published.own_settings("cld-cifar10"), "sampler": "gddim", "order": 2, "lambda": 0.0, "nfe": 50}
    em = {**ours, "sampler": "em", "order": None, "lambda": 1.0}
    vp = {**em, **published.own_settings("vp-cifar10")}
    assert published.number("table1.R", cell, ours) == 2.26
    assert published.number("table1.L", cell, {**ours, "nfe": 20, "k": "L", "denoise": False}) == 368
    assert published.number("table2.em", cell, {**em, "lambda": 0.3}) == 137
    assert published.number("table3.cld.em", cell, {**em, "nfe": 10}) == ">100"
    assert published.number("table3.ddpm.em", {**cell, "checkpoint": "vp-cifar10"}, vp) == 31.2
    assert published.number("table3.ddpm.em", cell, em) is None
    assert published.number("table1.R", {**cell, "checkpoint": "mnist"}, ours) is None
    assert published.number("table1.R", {**cell, "protocol": "edm"}, ours) is None
    others = {"nfe": 25, "k": "L", "order": 0, "denoise": False, "sampler": "em", "lambda": 0.3, "corrector": True}
    others |= {"grid_power": 1.0, "t_end": 1e-2, "quantize": "round", "diffusion": {"name": "cld", "beta_0": 1.0}}
    for name, value in others.items():  # what an option may have put in place of the row's own
        assert published.number("table1.R", cell, {**ours, name: value}) is None, name
    assert published.number("table1.L", cell, {**ours, "nfe": 20, "denoise": False}) is None
    assert published.number("table2.em", cell, {**em, "lambda": 0.3, "nfe": 20}) is None
    assert published.number("table2.gddim", cell, {**em, "lambda": 0.3, "denoise": False}) is None
    assert published.number("table3.cld.em", cell, {**ours, "nfe": 10}) is None


def test_options_that_change_a_preset_row_take_its_numbers_away(
    gddim, small: Path, tmp_path: Path, monkeypatch
) -> None:
    def printed(*words: object) -> tuple[list[tuple], list[str]]:
        plan = json.loads(gddim("bench", *words, "--num", "4", "--print-plan", "--json", "--out", tmp_path).out)["plan"]
        found = {cell["key"]: cell["settings"] for cell in plan["cells"]}
        rows = [(one["published"], one["cell"], found[one["key"]]) for one in plan["placed"]]
        return [(s["nfe"], s["lambda"], published.number(row, cell, s)) for row, cell, s in rows], plan["notes"]

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
    cells += [shown("em", nfe, 0, 120.0, row="table3.cld.em", order=None, **{"lambda": 1.0}) for nfe in (20, 50)]
    (sheet,) = sheets.sheets(cells)
    assert figures.distances(sheet) == [
        ["sampler", "NFE 20", "NFE 50"],
        ["gDDIM order 2", "4.50 ± 0.71", "2.50"],
        ["published", "3.9", "2.26"],
        ["difference", "+0.60", "+0.24"],
        ["Euler-Maruyama", "120.0", "120.0"],
        ["published", ">100", "57.72"],
        ["difference", "", "+62.3"],
    ]
    assert any("50 000 images; of 5000 images" in note for note in figures.notes(sheet))


def test_different_protocols_never_share_a_table_or_a_plot() -> None:
    cells = [shown("gddim", 20, 0, 4.0), shown("gddim", 50, 0, 3.0), shown("gddim", 20, 0, 5.0, num=1000)]
    cells += [shown("gddim", 20, 0, 6.0, protocol="edm"), shown("gddim", 20, 0, 7.0, quantize="round")]
    found = sheets.sheets(cells)
    assert [[entry.mean for row in sheet.rows for entry in row.entries] for sheet in found] == [
        [4.0, 3.0],
        [5.0],
        [6.0],
        [7.0],
    ]
    assert report.slugs(found) == ["", "-2", "-3", "-4"]


def test_tables_that_differ_in_one_thing_say_it() -> None:
    cells = [
        shown("gddim", 20, 0, 6.0),
        shown("gddim", 20, 0, 7.0, quantize="round"),
        shown("gddim", 20, 0, 5.0, num=9),
    ]
    cells.append(msgspec.structs.replace(cells[0], result=msgspec.structs.replace(cells[0].result)))
    cells[-1].result.judge = {**cells[0].result.judge, "reference_sha256": "a" * 64}
    cells[0].result.judge = {**cells[0].result.judge, "reference_sha256": "b" * 64}
    cells[1].result.judge = cells[0].result.judge
    headings = [sheet.heading for sheet in sheets.sheets(cells)]
    assert len(set(headings)) == len(headings) == 4
    assert headings[0].endswith("reference sha256 bbbbbbbbbbbb, quantize floor")
    assert headings[1].endswith("reference sha256 bbbbbbbbbbbb, quantize round")
    assert headings[2].endswith("9 images a cell")


def spent(made: float, asked: int = 10, **other: object) -> Shown:
    """A cell of RK45 that made so many evaluations."""
    cell = shown("rk45", asked, 0, 97.0, error=0.5, order=None, row=None, **{"lambda": None, **other})
    cell.result.nfe = made
    return cell


def results_of(cells: list[Shown]) -> report.Results:
    return report.Results(
        gddim="",
        source="",
        complete=True,
        notes=[],
        spread="",
        solver_error="",
        tables=sheets.sheets(cells),
        cells=cells,
    )


def test_evaluations_made_stand_in_both_tables() -> None:
    cells = [spent(8), spent(18.25, 20), spent(1003, 1000), spent(99.96, 100), spent(98.7, 102)]
    (sheet,) = sheets.sheets(cells)
    brackets = ["(8)", "(18.2)", "(1003)", "", "(98.7)"]
    columns = [10, 20, 1000, 100, 102]
    for grid, plain in ((figures.distances(sheet), "97.00"), (figures.errors(sheet), "0.50")):
        found = dict(zip(sheet.columns, grid[1][1:], strict=True))
        assert [found[column] for column in columns] == [f"{plain} {text}".strip() for text in brackets]


def test_what_rk45_cannot_make_is_no_number_of_its_budget() -> None:
    """Tuned, it stands nowhere but in the JSON; with a tolerance of one's own it stands at what it took."""
    (sheet,) = sheets.sheets([spent(21), spent(22, 20), spent(51, 50), spent(104, 100)])
    line = ["RK45", "—", "—", "97.00 (51)", "97.00 (104)"]
    assert figures.distances(sheet)[1] == line
    assert figures.errors(sheet)[1] == ["RK45", "—", "—", "0.50 (51)", "0.50 (104)"]
    note = "—: RK45 cannot make so few evaluations here (21 for NFE 10, 22 for NFE 20)."
    assert note in figures.notes(sheet)
    first = sheet.rows[0].entries[0]
    assert (first.mean, first.nfe, first.overspent) == (97.0, 21.0, True)
    assert "97.0" not in report.markdown(results_of([spent(21)]))
    assert ",97.0," in report.table_csv(results_of([spent(21)]))
    for draw in (plot.distances, plot.errors):
        assert [list(line.get_xdata()) for line in draw(sheet).axes[0].lines] == [[51, 104]]
    (sheet,) = sheets.sheets([spent(57, rtol=1e-3, atol=1e-3)])
    assert figures.distances(sheet)[1][1] == "97.00 (57)"


def test_a_spread_is_never_rounded_to_nothing() -> None:
    (sheet,) = sheets.sheets([shown("gddim", 20, seed, 1500 + 0.1 * seed) for seed in (0, 1)])
    assert figures.distances(sheet)[1][1] == "1500 ± 0.0707"


def test_arrows_at_one_place_stand_beside_each_other() -> None:
    paper = {"order": None, "lambda": 1.0}
    cells = [shown("em", nfe, 0, 120.0, row="table3.cld.em", **paper) for nfe in (10, 20)]
    paper = {"order": None, "lambda": None}
    cells += [shown("rk45", nfe, 0, 120.0, row="table3.cld.rk45", **paper) for nfe in (10, 20)]
    (sheet,) = sheets.sheets(cells)
    arrows = [line for line in plot.distances(sheet).axes[0].lines if "arrow" in str(line.get_marker())]
    assert len({float(x) for line in arrows for x in line.get_xdata()}) == 4


def test_the_plot_has_a_line_a_sampler_a_band_over_seeds_and_hollow_published_points() -> None:
    cells = [shown("gddim", nfe, seed, 4.0 + seed) for nfe in (20, 50) for seed in (0, 1)]
    cells += [shown("em", nfe, 0, 120.0, row="table3.cld.em", order=None, **{"lambda": 1.0}) for nfe in (20, 50)]
    (sheet,) = sheets.sheets(cells)
    (axes,) = plot.distances(sheet).axes
    full = {line.get_label(): line for line in axes.lines if line.get_linestyle() != "None"}
    assert list(full) == ["gDDIM order 2", "Euler-Maruyama"]
    assert [list(full["gDDIM order 2"].get_xdata()), list(full["gDDIM order 2"].get_ydata())] == [[20, 50], [4.5, 4.5]]
    assert (axes.get_yscale(), axes.get_xscale()) == ("log", "log")
    (band,) = axes.collections
    heights = {round(float(y), 6) for y in band.get_paths()[0].vertices[:, 1]}
    assert heights == {round(4.5 - math.sqrt(0.5), 6), round(4.5 + math.sqrt(0.5), 6)}
    hollow = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert all(line.get_markerfacecolor() == "none" for line in hollow)
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [
        ([20, 50], [3.9, 2.26]), ([50], [57.72]), ([20], [100.0]),
    ]  # fmt: skip
    assert to_hex(hollow[0].get_color()) == to_hex(full["gDDIM order 2"].get_color())
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "hollow: published"


def test_labels_say_what_differs_and_no_more() -> None:
    base = shown("gddim", 10, 0, 1.0).result.settings
    cases = [
        base,
        {**base, "order": 0, "lambda": 0.3},
        {**base, "denoise": False},
        {**base, "sampler": "em", "order": None, "lambda": 1.0},
    ]
    assert labels(cases, "NFE") == [
        "gDDIM order 2", "gDDIM λ = 0.3", "gDDIM order 2, no denoising step", "Euler-Maruyama",
    ]  # fmt: skip
    vp = {**base, "diffusion": {"name": "vp", "beta_0": 0.1}}
    assert labels([base, vp], "NFE") == ["cld: gDDIM order 2", "vp: gDDIM order 2"]
    assert labels([base, {**base, "checkpoint": "mine"}], "NFE") == [
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
    monkeypatch.setattr(comparing, "read", lambda path: results_of(runs[path.name]))

    def pairs(first: str, second: str) -> list[tuple]:
        return [(pair.a, pair.b) for pair in comparing.compare(Path(first), Path(second))]

    assert pairs("two", "two") == [(4.0, 4.0), (5.0, 5.0)]
    assert pairs("two", "one") == [(4.0, 6.0), (5.0, None)]
    assert pairs("one", "other") == [(6.0, 7.0)]
    assert pairs("types", "types") == [(4.0, 4.0), (5.0, 5.0)]
    names = [pair.sampler for pair in comparing.compare(Path("two"), Path("two"))]
    assert names == ["a: gDDIM order 2", "b: gDDIM order 2"]
