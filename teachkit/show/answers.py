"""Whether a learner's answer is the right one, and in a few words how it differs."""

from numbers import Number
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from teachkit.show.arrays import (
    ABSOLUTE,
    DIFFER,
    FACTORS,
    ORDER,
    RELATIVE,
    Pairs,
    as_array,
    close,
    explained,
    mask_difference,
    precision,
    shape_difference,
)
from teachkit.show.running import large

WORDS = (str, set, frozenset)
PARTLY = (
    DIFFER,
    ORDER,
    "the sign is wrong for",
    "the sign of some",
)  # leave open how many are right


def same(given: Any, expected: Any) -> bool:
    """Equal in kind, shape and value (1e-8 relative for numbers, symbolically for sympy)."""
    return not difference(given, expected)


def like(given: Any, mistake: Any) -> bool:
    """Whether an answer is what a mistake gives, as nearly as an answer that is "nearly" right."""
    says = difference(given, mistake)
    return not says or says.startswith("nearly")


def difference(given: Any, expected: Any) -> str:
    """How an answer differs: type, shape, sign, factor, inverted mask; empty where it does not.

    Whatever is given, it is answered in words: what cannot be compared is said to be so. Numbers are
    judged by the precision of their own type.
    """
    try:
        if isinstance(expected, (sympy.Expr, sympy.MatrixBase)):
            return _symbolic_difference(given, expected)
        if isinstance(expected, WORDS) or isinstance(given, str) or given is None:
            return _word_difference(given, expected)
        return _array_difference(given, expected)
    except Exception as error:
        return f"the answer cannot be compared: {type(error).__name__}, {_kinds(given, expected)}"


def differences(pairs: Pairs) -> tuple[int, str]:
    """The first answer that is wrong, and a word on all of them; −1 if each is right.

    A sign or a factor is named only if it explains every answer.
    """
    says = [difference(given, expected) for given, expected in pairs]
    wrong = [i for i, word in enumerate(says) if word]
    first = next((i for i in wrong if not says[i].startswith("nearly")), wrong[0] if wrong else -1)
    if first < 0 or not all(map(_numbers, pairs)):
        return first, says[first] if wrong else ""
    arrays = [(as_array(given), as_array(expected)) for given, expected in pairs]
    tolerance = max(precision(given) for given, _ in pairs)
    word = explained([(a.astype(float), b.astype(float)) for a, b in arrays], tolerance)
    right = len(pairs) - len(wrong)
    if right and word.startswith(PARTLY):
        word += f" ({right} of {len(pairs)} inputs {'is' if right == 1 else 'are'} right)"
    return first, word


def _numbers(pair: tuple[Any, Any]) -> bool:
    """Whether both are numbers of the same shape: what differs are values."""
    try:
        a, b = map(as_array, pair)
    except Exception:  # whatever is given
        return False
    return a.shape == b.shape and a.dtype != bool != b.dtype


def _kinds(given: Any, expected: Any) -> str:
    wanted = "sympy expression" if isinstance(expected, sympy.Expr) else type(expected).__name__
    return f"{type(given).__name__} instead of {wanted}"


def _word_difference(given: Any, expected: Any) -> str:
    if isinstance(given, WORDS) and isinstance(expected, WORDS) and given == expected:
        return ""
    if isinstance(given, str) and isinstance(expected, str):
        plain = given.strip(" .!\n").lower() == expected.lower()
        return "the word is right; write it in small letters" if plain else "the answer differs"
    if isinstance(given, str) and not isinstance(expected, WORDS):
        return "the type differs: a text instead of a value; return it without quotes or f-string"
    alike = isinstance(given, (set, frozenset)) and isinstance(expected, (set, frozenset))
    return "the answer differs" if alike else f"the type differs: {_kinds(given, expected)}"


def _array_difference(given: Any, expected: Any) -> str:
    if type(given) is type(expected) is int and given == expected:  # of any size
        return ""
    try:
        a, b = as_array(given), as_array(expected)
    except OverflowError:
        return f"{DIFFER}: it is far too large"
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return _no_numbers(given, expected)
    if a.shape != b.shape:
        return shape_difference(a, b)
    if b.dtype == bool:
        return mask_difference(a, b)
    if a.dtype == bool:
        return f"the type differs: a truth value instead of {type(expected).__name__}"
    exact = type(given) is type(expected) is int
    if not exact and close(a, b, precision(given)):
        return ""
    return explained([(a.astype(float), b.astype(float))], precision(given))


def _no_numbers(given: Any, expected: Any) -> str:
    if isinstance(given, complex) or "complex" in str(getattr(given, "dtype", "")):
        return "the type differs: these are complex numbers, and real ones are asked"
    if isinstance(given, (list, tuple)) or type(given) is type(expected):
        inside = "something else than real numbers, or rows of different lengths"
        return f"the answer cannot be compared: the {type(given).__name__} holds {inside}"
    return f"the type differs: {_kinds(given, expected)}"


def _symbolic_difference(given: Any, expected: Any) -> str:
    matrix = isinstance(expected, sympy.MatrixBase)
    if (
        not matrix
        and expected.is_number
        and not isinstance(given, (*WORDS, sympy.Basic, sympy.MatrixBase))
    ):
        return _array_difference(given, float(expected))
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
        if large(value):
            return f"a {type(value).__name__} of more than a million numbers"
        text = " ".join(_text(value, digits).split())
        return text if len(text) <= 150 else f"{text[:148]} …"
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _text(value: Any, digits: int) -> str:
    if callable(value) and not isinstance(value, (sympy.Basic, sympy.MatrixBase)):
        return "a function"
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value.to(torch.float64) if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        rounded = value.dtype.kind == "f" and value.ndim
        value = (value.round(digits) if rounded else value).tolist()
    if type(value) in (list, tuple):
        parts = [
            repr(part) if isinstance(part, str) else _text(part, digits) for part in value[:99]
        ]
        inside = ", ".join(parts) + "," * (len(parts) == 1 and isinstance(value, tuple))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return f"{value:.{digits + 2}g}" if isinstance(value, float) else str(value)


def both(given: Any, expected: Any) -> tuple[str, str]:
    """Two values that differ, with so many digits that one sees it."""
    pairs = [(short(given, digits), short(expected, digits)) for digits in (4, 8, 14)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
