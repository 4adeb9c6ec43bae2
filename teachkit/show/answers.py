"""Whether a learner's answer is the right one, and in a few words how it differs."""

import math
import textwrap
from numbers import Number
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 1e-8, 1e-12  # what rounding in float64 may change, everywhere
NEAR = 1e-5  # what single precision or a coarse step may change: nearly right, or nearly a known mistake
FACTORS = (
    (2, "it is too large by a factor of 2"),
    (0.5, "a factor of ½ too much"),
    (100, "this is in per cent; a fraction is asked"),
    (math.log(10), "it is too large by a factor of ln 10: which logarithm?"),
)
WORDS = (str, set, frozenset)


def same(given: Any, expected: Any) -> bool:
    """Equal in kind, shape and value (1e-8 relative for numbers, symbolically for sympy)."""
    return not difference(given, expected)


def difference(given: Any, expected: Any) -> str:
    """How an answer differs: type, shape, sign, factor, inverted mask; empty where it does not.

    Whatever is given, it is answered in words: what cannot be compared is said to be so.
    """
    try:
        if isinstance(expected, (sympy.Expr, sympy.MatrixBase)):
            return _symbolic_difference(given, expected)
        if isinstance(expected, WORDS) or isinstance(given, str) or given is None:
            return _word_difference(given, expected)
        return _array_difference(given, expected)
    except Exception as error:
        return f"the answer cannot be compared: {type(error).__name__}, {_kinds(given, expected)}"


def _kinds(given: Any, expected: Any) -> str:
    return f"{type(given).__name__} instead of {type(expected).__name__}"


def _word_difference(given: Any, expected: Any) -> str:
    if isinstance(given, WORDS) and isinstance(expected, WORDS) and given == expected:
        return ""
    if isinstance(given, str) and isinstance(expected, str):
        plain = given.strip(" .!\n").lower() == expected.lower()
        return "the word is right; write it in small letters" if plain else "the answer differs"
    return "the type differs" if type(given) is not type(expected) else "the answer differs"


def _array_difference(given: Any, expected: Any) -> str:
    if type(given) is type(expected) is int and given == expected:  # of any size
        return ""
    try:
        a, b = _array(given), _array(expected)
    except (TypeError, ValueError, RuntimeError):
        return f"the type differs: {_kinds(given, expected)}"
    if a.shape != b.shape:
        return f"the shape differs: {a.shape} instead of {b.shape}"
    if b.dtype == bool:
        return _mask_difference(a, b)
    exact = a.dtype == bool or type(given) is type(expected) is int
    if not exact and _close(a, b):
        return ""
    return _numeric_difference(a.astype(float), b.astype(float))


def _array(value: Any) -> np.ndarray:
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError("not numbers")
    return array


def _close(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE))


def _near(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=NEAR, atol=ABSOLUTE))


def _numeric_difference(a: np.ndarray, b: np.ndarray) -> str:
    if _near(a, b):  # before any other name: a symmetric matrix is nearly its transpose, too
        return f"nearly: it is off by {np.abs(a - b).max():.1g}, more than rounding explains"
    if a.ndim == 2 and a.shape == a.T.shape and _near(a.T, b):
        return "it is transposed: rows and columns are swapped"
    if _near(a, -b):
        return "the sign is wrong"
    if _near(np.abs(a), np.abs(b)):
        return "the sign of some entries is wrong"
    for factor, says in FACTORS:
        if _near(a, factor * b):
            return says
    if a.size > 1 and np.ptp(a - b) < 1e-9:
        return "it is off by the same amount everywhere"
    if any(_close(a, b.round(digits)) for digits in range(1, 7)):
        return "it is rounded; return the number itself"
    return "the values differ"


def _mask_difference(a: np.ndarray, b: np.ndarray) -> str:
    if a.dtype != bool:
        return "a mask must be boolean: True keeps"
    if (a == b).all():
        return ""
    if (a == ~b).all():
        return "the mask is inverted: True keeps, and a larger score stays"
    if a.sum() != b.sum():
        return f"it keeps {a.sum()} weights instead of exactly {b.sum()}"
    return "it keeps the right number, but not the right weights"


def _symbolic_difference(given: Any, expected: Any) -> str:
    matrix = isinstance(expected, sympy.MatrixBase)
    if not isinstance(given, (sympy.Basic, sympy.MatrixBase, Number)):  # a text would be run
        return f"the type differs: {_kinds(given, expected)}"
    if matrix and not isinstance(given, sympy.MatrixBase):
        return f"the type differs: a matrix of shape {expected.shape} is wanted"
    if isinstance(given, sympy.MatrixBase) and (not matrix or given.shape != expected.shape):
        wanted = expected.shape if matrix else "one expression"
        return f"the shape differs: {given.shape} instead of {wanted}"
    left = getattr(given, "free_symbols", set()) - expected.free_symbols
    if left and not expected.free_symbols:
        return f"{', '.join(sorted(map(str, left)))} is still in it: put in the number with .subs"
    half = sympy.Rational(1, 2)
    for factor, says in (
        (1, ""),
        (-1, "the sign is wrong"),
        (2, FACTORS[0][1]),
        (half, FACTORS[1][1]),
    ):
        if _same_symbols(given, factor * expected):
            return says
    return "the expressions differ"


def _same_symbols(given: Any, expected: Any) -> bool:
    gaps, wanted = sympy.Matrix([given - expected]), sympy.Matrix([expected])
    return all(map(_vanishes, gaps, wanted))


def _vanishes(gap: sympy.Expr, beside: sympy.Expr) -> bool:
    """A number vanishes beside another; anything else symbolically, if it is zero at a place."""
    if gap.has(sympy.nan, sympy.zoo):
        return False
    if not gap.free_symbols:
        size = abs(sympy.N(beside)) if not beside.free_symbols else 0
        return bool(abs(sympy.N(gap)) < ABSOLUTE + RELATIVE * size)
    symbols = sorted(gap.free_symbols, key=str)
    here = sympy.N(gap.subs({s: sympy.Rational(7 + i, 5) for i, s in enumerate(symbols)}))
    if here.is_number and here.is_finite and abs(here) > 1e-6:  # quick, and says most of them
        return False
    return bool(sympy.expand(gap) == 0 or sympy.simplify(gap) == 0)


def short(value: Any, digits: int = 4) -> str:
    """A value in at most 150 characters, its floats with some digits; what has no text, by kind."""
    try:
        return textwrap.shorten(_text(value, digits), 150, placeholder=" …")
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _text(value: Any, digits: int) -> str:
    if callable(value) and not isinstance(value, (sympy.Basic, sympy.MatrixBase)):
        return "a function"
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value.to(torch.float64) if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        value = (value.round(digits) if value.dtype.kind == "f" else value).tolist()
    return f"{value:.{digits + 2}g}" if isinstance(value, float) else str(value)


def both(given: Any, expected: Any) -> tuple[str, str]:
    """Two values that differ, with so many digits that one sees it."""
    pairs = [(short(given, digits), short(expected, digits)) for digits in (4, 8, 14)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
