"""What each word of a plan may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gddim_cli.bench.published import known
from gddim_cli.diffusions.parameters import number
from gddim_cli.errors import nearest
from gddim_cli.evaluation.protocols import MODES, PROTOCOLS
from gddim_cli.numerics.noise import LARGEST_SEED
from gddim_cli.samplers.registry import METHODS


def whole(lowest: int, highest: float = math.inf) -> Callable[[Any], int]:
    """A check for whole numbers in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            upper = f" to {highest}" if highest < math.inf else " up"
            raise ValueError(f"{value!r} is not a whole number from {lowest}{upper}")
        return value

    return check


def real(value: Any) -> float:
    value = number(value)  # YAML takes 1e-3 for a word
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise ValueError(f"{value!r} is not a name")
    return str(value)


def title(value: Any) -> str:
    """A name in one line."""
    return " ".join(text(value).split())


def truth(value: Any) -> bool:
    if value is not True and value is not False:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def one_of(*known: str) -> Callable[[Any], str]:
    """A check for one of a few names."""

    def check(value: Any) -> str:
        if value not in known:
            raise ValueError(f"there is no {value!r}; {nearest(str(value), known)}")
        return str(value)

    return check


def power(value: Any) -> float:
    named = {"linear": 1.0, "quadratic": 2.0}
    if isinstance(value, str) and value in named:
        return named[value]
    found = real(value)
    if found <= 0:
        raise ValueError(f"{value!r} is neither linear, quadratic nor a positive number (the power)")
    return found


def row_of_paper(value: Any) -> str:
    if not isinstance(value, str) or not known(value):
        raise ValueError(f"{value!r} is no row of the paper's tables; table1.R and table3.cld.em are")
    return value


@dataclass(frozen=True)
class Word:
    """What a word means.

    Attributes:
        check: a value as it is used; raises ValueError for one that cannot be.
        many: whether a list of values multiplies the cells.
        cell: whether it belongs to cells, and so may stand in a row; else to the plan as a whole.
    """

    check: Callable[[Any], Any]
    many: bool = True
    cell: bool = True


WORDS: dict[str, Word] = {
    "checkpoint": Word(text),
    "diffusion": Word(text),
    "sampler": Word(one_of(*METHODS)),
    "order": Word(whole(0, 3)),
    "lambda": Word(real),
    "eta": Word(real),
    "corrector": Word(truth),
    "rtol": Word(real),
    "atol": Word(real),
    "k": Word(one_of("R", "L")),
    "denoise": Word(truth),
    "time_grid": Word(power),
    "t_end": Word(real),
    "quantize": Word(one_of("floor", "round")),
    "dtype": Word(one_of("float32", "float64", "bfloat16", "float16")),
    "nfe": Word(whole(1, 100_000)),
    "num": Word(whole(2, 10_000_000)),
    "ref": Word(text),
    "protocol": Word(one_of(*PROTOCOLS)),
    "mode": Word(one_of(*MODES)),
    "inception": Word(text),
    "seeds": Word(whole(0, LARGEST_SEED)),
    "table": Word(title, many=False),
    "published": Word(row_of_paper, many=False),
    "solver_error": Word(truth, many=False, cell=False),
    "solver_error_images": Word(whole(1, 10_000), many=False, cell=False),
    "keep_images": Word(truth, many=False, cell=False),
    "batch_size": Word(whole(1, 100_000), many=False, cell=False),
    "device": Word(text, many=False, cell=False),
    "out": Word(text, many=False, cell=False),
}
