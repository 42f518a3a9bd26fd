"""Plans: what their words make, and how bad ones are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gddim_cli.bench.plan import read_plan
from gddim_cli.bench.words import from_options

BAD = """\
checkpoint: mnist
ref: mnist
nfe: [10, 20]
sedes: [0, 1]
order: 2
num: many
rows:
  - {sampler: gddim}
  - {sampler: em, order: 1}
  - {sampler: [gddim, emm]}
  - {sampler: heun, nfe: 1}
  - {sampler: gddim, nfe: []}
  - {sampler: gddim, lambda: 0.3}
  - {sampler: sscs, diffusion: vp}
  - {sampler: sscs, diffusion: cdl}
  - {sampler: gddim, order: [0, 2]}
  - {sampler: rk45, ref: cifar10}
  - {checkpoint: cld-cifar10, ref: cifar10-tf, nfe: [7, 7]}
  - {checkpoint: mnits, nfe: 5}
  - heun
  - {sampler: em, k: Q, lambda: -1}
  - {sampler: ddim, t_end: 2, diffusion: vp, device: cpu}
sampler: gddim
sampler: em
"""


def cells(text: str, tmp_path: Path, **options: str) -> list[dict]:
    """The cells of a plan, as dicts of what was said."""
    import msgspec

    path = tmp_path / "plan.yaml"
    path.write_text(text)
    problems: list[str] = []
    plan, _ = read_plan(path, None, from_options(options, problems), problems)
    assert plan.problems == []
    return [msgspec.to_builtins(wanted.cell) for wanted in plan.wanted]


def test_every_problem_is_told_at_once_with_its_line(gddim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    path, out = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(BAD)
    result = gddim("bench", path, "--out", out)
    assert (result.status, result.out, out.exists()) == (2, "", False)
    *lines, last = result.err.splitlines()
    assert last == f"gddim: {path}: {len(lines)} problems, nothing was run"
    wanted = {
        4: "there is no 'sedes' here; did you mean 'seeds'?",
        5: "--order: stochastic gDDIM is of order 0; leave out --lambda 0.3 or --order",
        6: "num: 'many' is not a whole number",
        9: "order: em has none; leave it out",
        10: "sampler: there is no 'emm'; did you mean 'em'?",
        11: "--nfe: 1 is too few",
        12: "nfe: the list is empty",
        14: "--sampler sscs: it splits CLD's equation, not that of vp",
        15: "there is no diffusion 'cdl'; did you mean 'cld'?",
        16: f"sampler gddim, order 2, nfe 10, seed 0 is a cell of {path}:8 too",
        17: "gddim download stats-cifar10",
        18: "nfe: 7 stands twice",
        19: "there is no checkpoint 'mnits'; did you mean 'mnist'?",
        20: "a row is a mapping of words, not 'heun'",
        21: "k: there is no 'Q'; known: R, L",
        22: "there is no 'device' here",
        24: "'sampler' is said before",
    }
    for number, text in wanted.items():
        assert any(line.startswith(f"{path}:{number}: ") and text in line for line in lines), (number, text)
    for text in (
        "gddim download cld-cifar10",
        "gddim download stats-cifar10-tf",
        "--t-end: 2 is not between",
        "-1 is not a number",
    ):
        assert any(text in line for line in lines), text
    numbers = [int(line.removeprefix(f"{path}:").split(":")[0]) for line in lines]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--nfe", "10,x"], "--nfe: nfe: 'x' is not a whole number"),
        (["--nfe", ","], "--nfe: nfe: the list is empty"),
        (["--sampler", "em", "--order", "1"], "--order: order: em has none"),
        (["--sampler", "heun", "--nfe", "1"], "\n--nfe: 1 is too few"),
        (["--seeds", "0,0"], "--seeds: seeds: 0 stands twice"),
        (["--ref", "mnsit"], "did you mean 'mnist'?"),
        (["--table", "4"], "4 is not 1, 2 or 3"),
        (["--num", "1"], "--num: num: 1 is not a whole number from 2 to 10000000"),
        (["--nfe", "1:30"], "--nfe: nfe: '1:30' is not a whole number"),
        (["--nfe", "0x10"], "--nfe: nfe: '0x10' is not a whole number"),
        (["--nfe", "9" * 5000], "is not a whole number"),
        (["--seeds", str(2**64)], f"is not a whole number from 0 to {2**64 - 1}"),
        (["--diffusion", "nope.py"], "--diffusion: nope.py: no such file"),
    ],
)
def test_bad_options_are_refused(gddim, tmp_path: Path, words: list[str], named: str) -> None:
    result = gddim("bench", *words, "--out", tmp_path / "out")
    assert result.status == 2, result.err
    assert named in f"\n{result.err}"
    assert not (tmp_path / "out").exists()


def test_yaml_that_is_none_or_no_mapping(gddim, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    for text, named, status in (
        ("nfe: [10", "not valid YAML", 1),
        ("- 1\n", "a mapping of words is needed", 2),
        ("", "is needed", 2),
    ):
        path.write_text(text)
        result = gddim("bench", path, "--out", tmp_path / "out")
        assert (result.status, named in result.err) == (status, True), result.err
    path.write_text("[" * 1200 + "]" * 1200)
    assert "too deep" in gddim("bench", path, "--out", tmp_path / "out").err
    path.write_text("nfe: !!python/object/apply:os.system [true]\nref: mnist\n")
    assert "is not a whole number" in gddim("bench", path, "--out", tmp_path / "out").err
    assert "cannot be read" in gddim("bench", tmp_path / "none.yaml").err


ODD = """\
sampler: gddim
ref: mnist
protocol: bar
mode: foo
device: cuda:77
table: 2024-13-45
nfe: !!int abc
num: !!float x
corrector: !!bool maybe
t_end: !!timestamp x
order: NINES
time_grid: [[1]]
[a, b]: 1
rows:
  - {sampler: heun, nfe: 1}
  - {sampler: rk45, rtol: 1e-3, nfe: [20, 30]}
  - {sampler: em, nfe: 5, diffusion: nope.py}
"""


def test_values_that_yaml_cannot_make_are_told_with_all_else(gddim, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(ODD.replace("NINES", "9" * 5000))
    result = gddim("bench", path, "--out", tmp_path / "out")
    assert result.status == 2, result.err
    wanted = {
        3: "protocol: there is no 'bar'", 4: "mode: there is no 'foo'", 5: "--device", 6: "table: ('timestamp', '2024-13-45')",
        7: "nfe: ('int', 'abc')", 8: "num: ('float', 'x')", 9: "corrector: ('bool', 'maybe')", 10: "t_end: ('timestamp', 'x')",
        11: "order: ('int', '9999", 12: "time_grid: [1] is not a number", 13: "a word is needed before the colon",
        15: "--nfe: 1 is too few", 16: "nfe: rk45 with rtol or atol spends what these take", 17: "nope.py: no such file",
    }  # fmt: skip
    for number, text in wanted.items():
        assert any(line.startswith(f"{path}:{number}: ") and text in line for line in result.err.splitlines()), (
            number,
            result.err,
        )
    assert max(map(len, result.err.splitlines())) < 500


def test_options_are_no_yaml(tmp_path: Path) -> None:
    problems: list[str] = []
    found = from_options({"nfe": "010,1e1", "lambda": ".3,1", "solver_error": "false"}, problems)
    assert [one.value for one in found["nfe"]] == [10]
    assert [one.value for one in found["lambda"]] == [0.3, 1.0]
    assert found["solver_error"][0].value is False
    assert problems == ["--nfe: nfe: 10.0 is not a whole number from 1 to 100000"]


def test_one_reference_is_one_cell_wherever_it_lies(gddim, small: Path, tmp_path: Path, monkeypatch) -> None:
    from gddim_cli.hub.store import bundled_folder

    (tmp_path / "st.npz").write_bytes((bundled_folder() / "stats-mnist-test.npz").read_bytes())
    monkeypatch.chdir(tmp_path)
    words = ("--checkpoint", small, "--nfe", "4", "--num", "4", "--print-plan", "--json", "--out", "out")
    found = [gddim("bench", *words, "--ref", ref) for ref in ("st.npz", tmp_path / "st.npz")]
    keys = [[cell["key"] for cell in json.loads(result.out)["cells"]] for result in found]
    assert keys[0] == keys[1]


def test_one_setting_in_other_words_is_one_cell(gddim, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    rows = (
        "{sampler: rk45, rtol: 1e-3}",
        "{sampler: rk45, rtol: 1e-3, atol: 1e-3}",
        "{sampler: em, k: R}",
        "{sampler: em, k: L}",
    )
    text = f"checkpoint: {small}\nref: mnist\nnfe: 20\nnum: 4\nrows:\n"
    path.write_text(text + "".join(f"  - {row}\n" for row in rows))
    result = gddim("bench", path, "--print-plan", "--out", tmp_path / "out")
    for late, early in ((7, 6), (9, 8)):
        assert re.search(rf"{path}:{late}: .* is a cell of {path}:{early} too", result.err), result.err


def test_a_product_leaves_out_what_a_sampler_has_not(tmp_path: Path) -> None:
    text = "ref: mnist\nnfe: [10, 20]\nsampler: [gddim, em, rk45]\norder: [0, 1, 2]\nk: [R, L]\nseeds: [0, 1]\n"
    found = cells(text, tmp_path)
    by_sampler = {name: [cell for cell in found if cell["sampler"] == name] for name in ("gddim", "em", "rk45")}
    assert {name: len(of) for name, of in by_sampler.items()} == {"gddim": 24, "em": 4, "rk45": 4}
    assert all("order" not in cell and "k" not in cell for cell in by_sampler["em"])


def test_rows_add_to_the_words_above_and_options_replace_both(tmp_path: Path) -> None:
    text = "ref: mnist\nnfe: 10\nnum: 7\nrows:\n  - {sampler: gddim, order: 1}\n  - {sampler: heun, nfe: 20}\n"
    assert [(c["sampler"], c["nfe"], c.get("order"), c["num"]) for c in cells(text, tmp_path)] == [
        ("gddim", 10, 1, 7), ("heun", 20, None, 7),
    ]  # fmt: skip
    found = cells(text, tmp_path, nfe="5,6", num="9")
    assert [(c["sampler"], c["nfe"], c["num"]) for c in found] == [
        ("gddim", 5, 9), ("gddim", 6, 9), ("heun", 5, 9), ("heun", 6, 9),
    ]  # fmt: skip


def test_print_plan_runs_nothing(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddim_cli.bench.runner.Runner.run", lambda _: pytest.fail("it ran"))
    words = ("--sampler", "gddim,heun", "--nfe", "6,9", "--num", "5", "--seeds", "0,3", "--print-plan")
    result = bench(*words)
    assert result.status == 0, result.err
    assert f"8 cells, 40 images, {2 * 5 * (6 + 9 + 6 + 8)} evaluations" in result.err  # Heun spends 8 of 9
    assert "about" in result.err
    assert not (tmp_path / "out").exists()
    plan = json.loads(bench(*words, "--json").out)
    assert plan["evaluations"] == 2 * 5 * (6 + 9 + 6 + 8)
    assert plan["seconds"] > 0
    assert len(plan["cells"]) == 8


def test_the_papers_tables_by_their_words(gddim, tmp_path: Path) -> None:
    """On another checkpoint the tables keep their shape, lose the published numbers, and say so."""
    words = (
        "--checkpoint",
        "mnist",
        "--ref",
        "mnist",
        "--num",
        "4",
        "--print-plan",
        "--json",
        "--out",
        tmp_path / "out",
    )
    result = gddim("bench", "--table", "1", *words)
    found = [
        (c["cell"]["k"], c["cell"].get("denoise"), c["cell"]["order"], c["cell"]["nfe"])
        for c in json.loads(result.out)["cells"]
    ]
    assert found == [("L", False, 2, n) for n in (20, 30, 40, 50)] + [("R", None, 2, n) for n in (20, 30, 40, 50)]
    assert any("published numbers" in note for note in json.loads(result.out)["plan"]["notes"])
    result = gddim("bench", "--table", "2", *words)
    found = [(c["cell"]["sampler"], c["cell"]["lambda"]) for c in json.loads(result.out)["cells"]]
    assert found == [(s, lam) for s in ("gddim", "em") for lam in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)]
    result = gddim("bench", "--table", "3", *words, "--nfe", "10,20")
    found = {(c["cell"]["diffusion"], c["cell"]["sampler"]) for c in json.loads(result.out)["cells"]}
    assert found == {
        ("vp", "em"),
        ("vp", "rk45"),
        ("vp", "heun"),
        ("vp", "gddim"),
        ("cld", "em"),
        ("cld", "rk45"),
        ("cld", "gddim"),
    }
    notes = json.loads(result.out)["plan"]["notes"]
    assert sum("a denoiser takes one noise level" in note for note in notes) == 3


def test_a_table_without_its_checkpoint_names_all_that_is_missing(gddim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    result = gddim("bench", "--table", "3", "--out", tmp_path / "out")
    assert result.status == 2
    for name in ("vp-cifar10", "bdm-cifar10", "cld-cifar10", "stats-cifar10-tf", "inception"):
        assert result.err.count(f"gddim download {name}") == 1
