"""A column of a table as text: numbers with the same number of decimals, and which of them are best.

What a cell may hold: a number, a tensor or array of one element, an ``Interval``, a list of numbers
(one per seed), a word, yes or no (a bool), or nothing (None).
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from sympy import Basic

from teachkit.core import checks, door
from teachkit.core.contract import quoted
from teachkit.lab.curves import Interval

Best = Literal["max", "min"]
SMALL, LARGE = 1e-3, 1e7  # outside, with a power of ten
MISSING = "missing"
MOST = 17  # digits that a number has


class Numbers(NamedTuple):
    """The numbers of one cell: one, a mean with its interval, or one per seed."""

    values: tuple[float, ...]
    kind: Literal["number", "interval", "list"]
    whole: bool = False


Cell = str | Numbers | None


class How(NamedTuple):
    """How the numbers of a column are written."""

    digits: int = 3
    decimals: int | None = None
    signed: bool = False


def cell(where: str, value: Any) -> Cell:
    """What a value is; a TypeError that says where it stands if it is nothing that a table shows."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Interval):
        return Numbers(tuple(_number(where, part)[0] for part in value), "interval")
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{where} is an empty list; a list holds one number per seed")
        found = [_number(where, part) for part in value]
        return Numbers(tuple(v for v, _ in found), "list", all(whole for _, whole in found))
    if isinstance(value, Basic) and not value.is_number:
        return str(value)
    if isinstance(_plain(value), bool):
        return "yes" if value else "no"
    number, whole = _number(where, value)
    return Numbers((number,), "number", whole)


def _plain(value: Any) -> Any:
    """What a tensor or an array of one element holds; None where there are more."""
    if hasattr(value, "item") and hasattr(value, "shape"):
        return value.item() if math.prod(value.shape) == 1 else None
    return value


def _number(where: str, value: Any) -> tuple[float, bool]:
    plain = _plain(value)
    if isinstance(plain, Basic) and plain.is_real:
        plain = int(plain) if plain.is_Integer else float(plain)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        must = "a number, an Interval, a list of numbers, a word, a bool or None"
        raise TypeError(f"{where} must be {must}, got {quoted(value)}")
    return float(plain), isinstance(plain, Integral)


def written(cells: Sequence[Cell], how: How) -> list[list[str]]:
    """The parts of each cell as text: words and numbers one part, an interval three, a list several."""
    numbers = [c for c in cells if isinstance(c, Numbers)]
    finite = [abs(v) for c in numbers for v in c.values if math.isfinite(v)]
    largest = max(finite, default=0.0)
    if numbers and all(c.whole for c in numbers):
        form = ",.0f"
    elif how.decimals is None and (0 < largest < SMALL or largest >= LARGE):
        form = f".{how.digits - 1}e"
    else:
        form = f",.{_decimals(largest, how)}f"
    sign = "+" if how.signed else ""
    return [_parts(c, sign, form) for c in cells]


def names(cells: Sequence[Cell]) -> list[Cell]:
    """A first column: single numbers name their rows, as short as they can be."""
    single = [isinstance(c, Numbers) and c.kind == "number" for c in cells]
    pairs = zip(cells, single, strict=True)
    return [_shortest(c.values[0]) if one else c for c, one in pairs]  # type: ignore[union-attr]


def _shortest(value: float) -> str:
    """A number with no more digits than it has; one of float32 has fewer than its float64."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return f"{float(str(single)) if float(single) == value else value:.15g}"


def _decimals(largest: float, how: How) -> int:
    """As many as the largest number needs for its significant digits."""
    if how.decimals is not None:
        return how.decimals
    size = math.floor(math.log10(float(f"{largest:.{how.digits - 1}e}"))) if largest else 0
    return max(0, how.digits - 1 - size)


def _parts(c: Cell, sign: str, form: str) -> list[str]:
    if c is None:
        return [MISSING]
    return [c] if isinstance(c, str) else [_text(v, sign, form) for v in c.values]


def _text(value: float, sign: str, form: str) -> str:
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    text = f"{value:{sign}{form}}"
    nothing = not text.strip("+-0.,")  # no minus before a zero
    return text.replace("-", "+" if sign else "") if nothing else text


def joined(c: Cell, parts: list[str], widths: Sequence[int] = (0, 0, 0)) -> str:
    """The text of a cell, one way everywhere: 0.92 (0.89 to 0.95); parts are padded to the widths."""
    if isinstance(c, Numbers) and c.kind == "interval":
        mean, low, high = (part.rjust(w) for part, w in zip(parts, widths, strict=True))
        return f"{mean} ({low} to {high})"
    width = max(map(len, parts)) if len(parts) > 1 else 0
    return "  ".join(part.rjust(width) for part in parts)


def best(where: str, cells: Sequence[Cell], texts: Sequence[str], want: Best) -> list[bool]:
    """Which cells hold the best value, or one that cannot be told from it.

    That is: whose interval overlaps that of the best, or which is written the same.
    """
    found = [_span(c) for c in cells]
    if any(isinstance(c, str) or (isinstance(c, Numbers) and c.kind == "list") for c in cells):
        raise ValueError(f"{where} holds words or lists: it has no best value")
    sign = 1 if want == "max" else -1
    there = [i for i, span in enumerate(found) if span]
    if not there:
        return [False] * len(cells)
    top = max(there, key=lambda i: sign * found[i][0])  # type: ignore[index]
    _, low, high = found[top]  # type: ignore[misc]
    return [
        span is not None and (texts[i] == texts[top] or (span[1] <= high and span[2] >= low))
        for i, span in enumerate(found)
    ]


def _span(c: Cell) -> tuple[float, float, float] | None:
    """Value, low and high of a cell; None without a number."""
    if not isinstance(c, Numbers) or any(math.isnan(v) for v in c.values):
        return None
    values = c.values * 3 if c.kind == "number" else c.values
    return values[0], values[1], values[2]


def how_of(digits: int, decimals: int | None, signed: bool) -> How:
    """The settings of a column, checked."""
    checks.whole("digits", digits, 1, MOST)
    if decimals is not None:
        checks.whole("decimals", decimals, 0, MOST)
    return How(digits, decimals, signed)


door.hold(globals())
