"""Grids as Markdown and LaTeX, and numbers as tables print them."""

from __future__ import annotations

from gddim_cli.runtime.grids import latex_grid, markdown_grid
from gddim_cli.runtime.text import counted, figure, printed, signed

GRID = [["a|b", "NFE 10"], ["λ = 1 & more", "3.1"]]


def test_markdown() -> None:
    assert markdown_grid(GRID) == "| a\\|b | NFE 10 |\n| --- | ---: |\n| λ = 1 & more | 3.1 |\n"


def test_latex() -> None:
    text = latex_grid(GRID, "50 %")
    assert text.splitlines()[2:] == [
        r"\caption{50 \%}", r"\begin{tabular}{lr}", r"\toprule", r"a|b & NFE 10 \\", r"\midrule",
        r"$\lambda$ = 1 \& more & 3.1 \\", r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip


def test_numbers() -> None:
    assert [figure(value) for value in (1234.5, 123.45, 12.345, 0.12345, 0.012345)] == [
        "1234", "123.5", "12.35", "0.123", "0.0123",
    ]  # fmt: skip
    assert [signed(-1.234, 12.0), signed(1.0, None), printed(">100"), printed(2.5), printed(None)] == [
        "-1.23", "", ">100", "2.5", "",
    ]  # fmt: skip
    assert [counted(1, "cell"), counted(2, "cell")] == ["1 cell", "2 cells"]
