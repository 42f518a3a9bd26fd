"""Formats a grid of texts, whose first line is the header, as a Markdown or LaTeX table."""

from __future__ import annotations

Grid = list[list[str]]

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "λ": r"$\lambda$", "η": r"$\eta$",
    ">": "$>$", "<": "$<$", "…": r"\dots{}", "—": "---",
}  # fmt: skip
"""Characters that must be escaped in LaTeX, with their replacements."""


def markdown_grid(grid: Grid) -> str:
    """A Markdown table; all columns except the first are right-aligned."""
    head, *body = ([text.replace("|", "\\|") for text in line] for line in grid)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_grid(grid: Grid, caption: str) -> str:
    """A LaTeX table, for documents that use the package booktabs."""
    head, *body = (" & ".join(map(escape, line)) + " \\\\\n" for line in grid)
    lines = f"\\toprule\n{head}\\midrule\n{''.join(body)}\\bottomrule\n"
    tabular = f"\\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}\n{lines}\\end{{tabular}}\n"
    return f"\\begin{{table}}\n\\centering\n\\caption{{{escape(caption)}}}\n{tabular}\\end{{table}}\n"


def escape(text: str) -> str:
    """Text escaped for LaTeX."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)
