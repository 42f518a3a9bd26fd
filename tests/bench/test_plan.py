"""Plans: which cells they make, and how bad ones are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gddim_cli.bench.plan import Planner, read_plan
from gddim_cli.bench.plan_file import reader

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
"""


def cells(text: str, tmp_path: Path, **options: str) -> list[dict]:
    """The cells of a plan, as dicts of what it says."""
    import msgspec

    path = tmp_path / "plan.yaml"
    path.write_text(text)
    problems: list[str] = []
    over = reader(problems).options(options)
    found = [cell for cell, _ in Planner(read_plan(path, None, over, problems), over, problems).expand()]
    assert problems == []
    given = [{**cell.request.flat(), "num": cell.num} for cell in found]
    return [{key: msgspec.to_builtins(value) for key, value in one.items() if value is not None} for one in given]


def test_every_problem_is_reported_at_once_with_its_place(
    gddim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    path, out = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(BAD)
    result = gddim("bench", path, "--out", out)
    assert (result.status, result.out, out.exists()) == (2, "", False)
    *lines, last = result.err.splitlines()
    assert last == f"gddim: {path}: {len(lines)} problems, nothing was run"
    expected = {
        "$.sedes": "there is no setting 'sedes'; did you mean 'seeds'?",
        "$.num": "'many': expected a whole number",
        "$.order": "stochastic gDDIM has order 0; leave out --lambda 0.3 or --order",
        "$.rows[1].order": "unsupported by em; an option of gddim",
        "$.rows[2].sampler[1]": "there is no sampler 'emm'; did you mean 'em'?",
        "$.rows[3].nfe": "1 is too few",
        "$.rows[4].nfe": "the list is empty",
        "$.rows[6].sampler": "sscs: supports CLD only, not vp",
        "$.rows[7].diffusion": "there is no diffusion 'cdl'; did you mean 'cld'?",
        "$.rows[8]": "sampler gddim, order 2, nfe 10, seed 0 is also a cell of $.rows[0]",
        "$.rows[9].ref": "gddim download stats-cifar10",
        "$.rows[10].nfe[1]": "7 is listed twice",
        "$.rows[11].checkpoint": "there is no checkpoint 'mnits'; did you mean 'mnist'?",
        "$.rows[12]": "a row is a mapping of settings, not 'heun'",
        "$.rows[13].k": "'Q': expected one of R, L",
        "$.rows[13].lambda": "-1: expected a number from 0 to 10",
        "$.rows[14].device": "a setting of the whole plan, not of a row",
        "$.rows[14].t_end": "2 is not between",
        "$.rows[10].checkpoint": "gddim download cld-cifar10",
        "$.rows[10].ref": "gddim download stats-cifar10-tf",
    }
    for place, text in expected.items():
        assert any(line.startswith(f"{place}: ") and text in line for line in lines), (place, text, lines)
    assert len(lines) == len(set(lines))
    numbers = [int(found[1]) if (found := re.match(r"\$\.rows\[(\d+)\]", line)) else -1 for line in lines]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--nfe", "10,x"], "--nfe: 'x': expected a whole number"),
        (["--nfe", ","], "--nfe: the list is empty"),
        (["--sampler", "em", "--order", "1"], "--order: unsupported by em; an option of gddim"),
        (["--sampler", "heun", "--nfe", "1"], "\n--nfe: 1 is too few"),
        (["--seeds", "0,0"], "--seeds: 0 is listed twice"),
        (["--ref", "mnsit"], "did you mean 'mnist'?"),
        (["--table", "4"], "--table: 4: expected a whole number from 1 to 3"),
        (["--num", "1"], "--num: 1: expected a whole number of at least 2 and at most 10000000"),
        (["--nfe", "1:30"], "--nfe: '1:30': expected a whole number"),
        (["--nfe", "0x10"], "--nfe: '0x10': expected a whole number"),
        (["--nfe", "9" * 5000], "expected a whole number"),
        (["--seeds", str(2**64)], f"expected a whole number of at least 0 and at most {2**64 - 1}"),
        (["--metric", "fid,prdc:k=20", "--num", "9"], "--metric: prdc:k=20: needs at least 21 images; there are 9"),
        (["--metric", "fdi"], "--metric: there is no metric 'fdi'; did you mean 'fid'?"),
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
        ("- 1\n", "$: a mapping of settings is needed", 2),
        ("", "$: a mapping of settings is needed", 2),
        ("[" * 1200 + "]" * 1200, "nested more than", 1),
        ("nfe: !!python/object/apply:os.system [true]\nref: mnist\n", "is not allowed", 1),
        ("nfe: !!timestamp x\n", "is not allowed", 1),
        ("nfe: !!int abc\n", "not valid YAML", 1),
        ("nfe: 10\nsampler: gddim\nsampler: em\n", "duplicate key 'sampler' in lines 2 and 3", 1),
        ("[a, b]: 1\n", "not valid YAML", 1),
        ("a: &a [1, 1]\nnfe: [*a, *a]\n", "aliases (*name) are not supported", 1),
        ("# " + "x" * 2_000_000, "at most 1 MB are read", 1),
    ):
        path.write_text(text)
        result = gddim("bench", path, "--out", tmp_path / "out")
        assert (result.status, named in result.err) == (status, True), result.err
        assert max(map(len, result.err.splitlines())) < 1000
    assert "cannot be read" in gddim("bench", tmp_path / "none.yaml").err


ODD = """\
sampler: gddim
ref: mnist
protocol: bar
mode: foo
device: cuda:77
table: [a, b]
nfe: 012
num: 2024-01-13
corrector: yes
t_end: 1:30
order: NINES
time_grid: [[1]]
k: {R: L}
1: 2
rtol: null
rows:
  - {sampler: heun, nfe: 1}
  - {sampler: rk45, rtol: 1e-3, nfe: [20, 30]}
  - {sampler: em, nfe: 5, diffusion: nope.py}
"""


def test_values_of_other_kinds_are_reported_with_all_else(gddim, tmp_path: Path) -> None:
    """Leading zeros, dates, yes and numbers to the base of 60 are no numbers and no truths."""
    path = tmp_path / "plan.yaml"
    path.write_text(ODD.replace("NINES", "9" * 5000))
    result = gddim("bench", path, "--out", tmp_path / "out")
    assert result.status == 2, result.err
    expected = {
        "$.protocol": "there is no 'bar'", "$.mode": "there is no 'foo'", "$.device": "cuda",
        "$.table": "one value is needed", "$.nfe": "'012': expected a whole number", "$.num": "expected a whole number",
        "$.corrector": "'yes': expected true or false", "$.t_end": "'1:30': expected a number", "$.order": "expected a whole",
        "$.time_grid[0]": "[1]: expected", "$.k": "expected one of R, L", "$.1": "there is no setting 1",
        "$.rtol": "the list is empty", "$.rows[0].nfe": "1 is too few",
        "$.rows[1].nfe[1]": "with rtol or atol, rk45 chooses its own NFE", "$.rows[2].diffusion": "nope.py: no such file",
    }  # fmt: skip
    lines = result.err.splitlines()
    for place, text in expected.items():
        assert any(line.startswith(f"{place}: ") and text in line for line in lines), (place, text, result.err)
    assert max(map(len, lines)) < 500


def test_options_are_no_yaml(tmp_path: Path) -> None:
    problems: list[str] = []
    found = reader(problems).options({"nfe": "010,1e1", "lambda": ".3,1", "solver_error": False})
    assert [value for value, _ in found["nfe"]] == [10]
    assert [value for value, _ in found["lambda"]] == [0.3, 1.0]
    assert found["solver_error"] == [(False, "--solver-error")]
    assert problems == ["--nfe: 10.0: expected a whole number from 1 to 100000"]


def test_every_setting_of_sampling_takes_a_list(tmp_path: Path) -> None:
    found = cells(
        "ref: mnist\nnfe: 10\n", tmp_path, diffusion="vp,ve", corrector="true,false", time_grid="linear,quadratic"
    )
    assert len(found) == 8
    assert {(c["diffusion"], c.get("corrector", False), c["time_grid"]) for c in found} == {
        (name, corrector, power) for name in ("vp", "ve") for corrector in (True, False) for power in (1.0, 2.0)
    }
    assert [cell["eta"] for cell in cells("nfe: 4\nsampler: ddim\n", tmp_path, eta="0.5,1")] == [0.5, 1.0]


def test_the_default_plan_with_its_own_checkpoint_is_the_default_plan(gddim, tmp_path: Path) -> None:
    """Options that only repeat what the plan says change nothing."""
    words = ("--num", "4", "--print-plan", "--json", "--out", tmp_path / "out")
    plain, named = (json.loads(gddim("bench", *own, *words).out)["plan"] for own in ((), ("--checkpoint", "mnist")))
    assert plain == named
    assert (len(plain["cells"]), plain["solver_error"]) == (15, 16)


def test_rows_in_which_k_has_no_effect_are_one(gddim, tmp_path: Path) -> None:
    words = ("--num", "4", "--nfe", "6", "--k", "R,L", "--print-plan", "--json", "--out", tmp_path / "out")
    for own, count, note in (
        (("--diffusion", "vp"), 1, "K has no effect in vp; R and L give one row."),
        (("--sampler", "em"), 1, "K has no effect on em; R and L give one row."),
        (("--diffusion", "cld"), 2, None),
    ):
        plan = json.loads(gddim("bench", *own, *words).out)["plan"]
        assert len(plan["cells"]) == count
        assert plan["notes"] == [note] * (note is not None)


def test_one_reference_is_one_cell_wherever_it_lies(gddim, small: Path, tmp_path: Path, monkeypatch) -> None:
    from gddim_cli.hub.store import bundled_folder

    (tmp_path / "st.npz").write_bytes((bundled_folder() / "stats-mnist-test.npz").read_bytes())
    monkeypatch.chdir(tmp_path)
    words = (
        "--checkpoint",
        small,
        "--sampler",
        "gddim",
        "--nfe",
        "4",
        "--num",
        "4",
        "--print-plan",
        "--json",
        "--out",
        "out",
    )
    found = [gddim("bench", *words, "--ref", ref) for ref in ("st.npz", tmp_path / "st.npz")]
    keys = [[cell["key"] for cell in json.loads(result.out)["plan"]["cells"]] for result in found]
    assert keys[0] == keys[1]


def test_one_setting_written_in_two_ways_is_one_cell(gddim, small: Path, tmp_path: Path) -> None:
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
    for late, early in ((1, 0), (3, 2)):
        assert re.search(rf"^\$\.rows\[{late}\]: .* is also a cell of \$\.rows\[{early}\]", result.err, re.MULTILINE), (
            result.err
        )


def test_a_product_leaves_out_options_that_a_sampler_does_not_have(tmp_path: Path) -> None:
    text = "ref: mnist\nnfe: [10, 20]\nsampler: [gddim, em, rk45]\norder: [0, 1, 2]\nk: [R, L]\nseeds: [0, 1]\n"
    found = cells(text, tmp_path)
    by_sampler = {name: [cell for cell in found if cell["sampler"] == name] for name in ("gddim", "em", "rk45")}
    assert {name: len(of) for name, of in by_sampler.items()} == {"gddim": 24, "em": 4, "rk45": 4}
    assert all("order" not in cell and "k" not in cell for cell in by_sampler["em"])


def test_rows_add_to_the_settings_above_and_options_replace_both(tmp_path: Path) -> None:
    text = "ref: mnist\nnfe: 10\nnum: 7\nrows:\n  - {sampler: gddim, order: 1}\n  - {sampler: heun, nfe: 20}\n"
    assert [(c["sampler"], c["nfe"], c.get("order"), c["num"]) for c in cells(text, tmp_path)] == [
        ("gddim", 10, 1, 7), ("heun", 20, None, 7),
    ]  # fmt: skip
    found = cells(text, tmp_path, nfe="5,6", num="9")
    assert [(c["sampler"], c["nfe"], c["num"]) for c in found] == [
        ("gddim", 5, 9), ("gddim", 6, 9), ("heun", 5, 9), ("heun", 6, 9),
    ]  # fmt: skip


def test_print_plan_runs_nothing(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddim_cli.bench.run.Runner.run", lambda _: pytest.fail("it ran"))
    words = ("--sampler", "gddim,heun", "--nfe", "6,9", "--num", "5", "--seeds", "0,3", "--print-plan")
    result = bench(*words)
    assert result.status == 0, result.err
    assert f"8 cells, 40 images, {2 * 5 * (6 + 9 + 6 + 8)} evaluations" in result.err  # Heun spends 8 of 9
    assert "about" in result.err
    assert not (tmp_path / "out").exists()
    plan = json.loads(bench(*words, "--json").out)
    assert plan["evaluations"] == 2 * 5 * (6 + 9 + 6 + 8)
    assert plan["seconds"] > 0
    assert len(plan["plan"]["cells"]) == 8


def test_the_papers_tables(gddim, tmp_path: Path) -> None:
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

    def plan(*own: object) -> tuple[list[dict], list[str]]:
        found = json.loads(gddim("bench", *own, *words).out)["plan"]
        return [{**cell["request"], **cell["request"]["options"]} for cell in found["cells"]], found["notes"]

    found, notes = plan("--table", "1")
    assert [(c["k"], c["denoise"], c["order"], c["nfe"]) for c in found] == [
        *[("L", False, 2, n) for n in (20, 30, 40, 50)],
        *[("R", None, 2, n) for n in (20, 30, 40, 50)],
    ]
    assert any("published numbers" in note for note in notes)
    found, _ = plan("--table", "2")
    noises = {"gddim": 0.0, "em": 1.0}  # what is a sampler's default is not written out
    assert [(c["sampler"], c.get("lambda", noises[c["sampler"]])) for c in found] == [
        (sampler, lam) for sampler in ("gddim", "em") for lam in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
    ]
    found, notes = plan("--table", "3", "--nfe", "10,20")
    assert {(c["diffusion"], c["sampler"]) for c in found} == {
        ("vp", "em"),
        ("vp", "rk45"),
        ("vp", "heun"),
        ("vp", "gddim"),
        ("cld", "em"),
        ("cld", "rk45"),
        ("cld", "gddim"),
    }
    assert sum("a denoiser takes one noise level" in note for note in notes) == 3


def test_a_table_without_its_checkpoint_names_all_that_is_missing(gddim, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "empty"))
    result = gddim("bench", "--table", "3", "--out", tmp_path / "out")
    assert result.status == 2
    for name in ("vp-cifar10", "bdm-cifar10", "cld-cifar10", "stats-cifar10-tf", "inception"):
        assert result.err.count(f"gddim download {name}") == 1


def test_an_unknown_preset_and_two_plans_at_once_are_usage_errors(gddim, tmp_path: Path) -> None:
    words = {
        ("--preset", "nonsense"): "gddim: --preset: 'nonsense': expected one of few\n",
        ("--preset", "few", "--table", 1): "gddim: --table and --preset are different plans; give one of them\n",
        (
            tmp_path / "plan.yaml",
            "--preset",
            "few",
        ): "gddim: a plan file and --preset are different plans; give one of them\n",
    }
    for given, message in words.items():
        result = gddim("bench", *given, "--out", tmp_path / "out")
        assert (result.status, result.err) == (2, message)
