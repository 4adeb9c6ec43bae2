"""Whether a learner's answer is the right one, and in a few words how it differs."""

import math
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from teachkit.show.running import LARGE, large

RELATIVE, ABSOLUTE = 1e-8, 1e-12  # what rounding in float64 may change, everywhere
NEAR = 1e-5  # what a coarse step may change: nearly right, or nearly a known mistake
# What rounding may change in a coarser type, of the largest number: the inputs may have been rounded.
COARSE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
FACTORS = (
    (2, "it is too large by a factor of 2"),
    (0.5, "it is half of what is asked: a factor of ½ too much"),
    (100, "this is in per cent; a fraction is asked"),
    (math.log(10), "it is too large by a factor of ln 10: which logarithm?"),
)
WORDS = (str, set, frozenset)
DIFFER = "the values differ"
Pairs = Sequence[tuple[Any, Any]]


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
    arrays = [(_array(given), _array(expected)) for given, expected in pairs]
    tolerance = max(_tolerance(given) for given, _ in pairs)
    word = _explained([(a.astype(float), b.astype(float)) for a, b in arrays], tolerance)
    right = len(pairs) - len(wrong)
    if right and len(pairs) > 1:
        word += f" ({right} of {len(pairs)} inputs are right)"
    return first, word


def _numbers(pair: tuple[Any, Any]) -> bool:
    """Whether both are numbers of the same shape: what differs are values."""
    try:
        a, b = map(_array, pair)
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
    alike = isinstance(given, (set, frozenset)) and isinstance(expected, (set, frozenset))
    return "the answer differs" if alike else f"the type differs: {_kinds(given, expected)}"


def _array_difference(given: Any, expected: Any) -> str:
    if type(given) is type(expected) is int and given == expected:  # of any size
        return ""
    try:
        a, b = _array(given), _array(expected)
    except OverflowError:
        return f"{DIFFER}: it is far too large"
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return _no_numbers(given, expected)
    if a.shape != b.shape:
        return _shape_difference(a, b)
    if b.dtype == bool:
        return _mask_difference(a, b)
    if a.dtype == bool:
        return f"the type differs: a truth value instead of {type(expected).__name__}"
    exact = type(given) is type(expected) is int
    if not exact and _close(a, b, _tolerance(given)):
        return ""
    return _explained([(a.astype(float), b.astype(float))], _tolerance(given))


def _no_numbers(given: Any, expected: Any) -> str:
    if isinstance(given, complex) or "complex" in str(getattr(given, "dtype", "")):
        return "the type differs: these are complex numbers, and real ones are asked"
    if isinstance(given, (list, tuple)) or type(given) is type(expected):
        inside = "something else than real numbers, or rows of different lengths"
        return f"the answer cannot be compared: the {type(given).__name__} holds {inside}"
    return f"the type differs: {_kinds(given, expected)}"


def _array(value: Any) -> np.ndarray:
    """A value as an array of truth values or real numbers."""
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value if value.layout is torch.strided else value.to_dense()).cpu()
        value = (value.double() if value.is_floating_point() else value.resolve_conj()).numpy()
    elif isinstance(value, (list, tuple)):
        if len(value) > LARGE:
            raise OverflowError
        value = [
            _array(part) if isinstance(part, (Tensor, list, tuple)) else part for part in value
        ]
    array = np.asarray(value)
    if array.dtype.kind == "O":  # fractions, decimals, numbers of sympy
        array = array.astype(float)
    if array.dtype.kind not in "biuf":
        raise TypeError("not numbers")
    return array


def _tolerance(value: Any) -> float:
    """What rounding may change in a value, by the coarsest type in it."""
    if isinstance(value, (list, tuple)):
        return max(map(_tolerance, value[:999]), default=RELATIVE)
    name = str(getattr(value, "dtype", "")).removeprefix("torch.")
    return COARSE.get(name, RELATIVE)


def _close(a: Any, b: Any, relative: float) -> bool:
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0))
    least = ABSOLUTE * max(1, scale) if relative <= NEAR else relative * scale
    return bool(np.allclose(a, b, rtol=relative, atol=least))


def _shape_difference(a: np.ndarray, b: np.ndarray) -> str:
    shapes = [str(array.shape) if array.shape else "a single number" for array in (a, b)]
    says = f"the shape differs: {shapes[0]} instead of {shapes[1]}"
    if a.size == b.size and _close(a.ravel(), b.ravel(), NEAR):
        return f"{says}; the numbers are right"
    transposed = a.ndim == 2 and a.T.shape == b.shape and _close(a.T, b, NEAR)
    return f"{says}; rows and columns are swapped" if transposed else says


def _explained(pairs: Pairs, tolerance: float) -> str:
    """What explains every pair of arrays: nearly, transposed, sign, factor, offset, rounded."""
    a, b = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
    if not np.isfinite(a).all() and np.isfinite(b).all():
        return f"{DIFFER}: {'nan' if np.isnan(a).any() else 'inf'} is in it"

    def near(x: np.ndarray, y: np.ndarray) -> bool:
        return _close(x, y, max(NEAR, tolerance))

    if near(a, b):  # before any other name: a symmetric matrix is nearly its transpose, too
        return f"nearly: it is off by {np.abs(a - b).max():.1g}, more than rounding explains"
    if all(x.ndim == 2 and x.shape == x.T.shape and near(x.T, y) for x, y in pairs):
        return "it is transposed: rows and columns are swapped"
    if not a.any():
        return f"{DIFFER}: it is 0 everywhere"
    if near(a, -b):
        return "the sign is wrong"
    if near(np.abs(a), np.abs(b)):
        single = all(x.size == 1 for x, _ in pairs) and len(pairs) > 1
        return f"the sign {'is wrong for some inputs' if single else 'of some entries is wrong'}"
    for factor, says in FACTORS:
        if near(a, factor * b):
            return says
    return _moved(a, b, near)


def _moved(a: np.ndarray, b: np.ndarray, near: Callable[[Any, Any], bool]) -> str:
    """What is off by one number everywhere, or rounded; else by how much it differs."""
    if a.size > 1 and near(a - b, np.full_like(b, (a - b).mean())):
        return f"it is off by the same amount everywhere: {(a - b).mean():.2g}"
    largest = np.abs(b).argmax()
    factor = a[largest] / b[largest] if b[largest] else 0.0
    if a.size > 1 and factor and near(a, factor * b):
        return f"it is off by the same factor everywhere: {factor:.6g}"
    if any(near(a, b.round(digits)) for digits in range(7)):
        return "it is rounded; return the number itself"
    if near(a, np.trunc(b)):
        return "it is cut off to whole numbers; return the number itself"
    share = np.abs(a - b).max() / max(np.abs(b).max(), ABSOLUTE)
    return f"{DIFFER}, by {100 * share:.1g} % at most" if share < 0.03 else DIFFER


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
        value = (value.round(digits) if value.dtype.kind == "f" else value).tolist()
    return f"{value:.{digits + 2}g}" if isinstance(value, float) else str(value)


def both(given: Any, expected: Any) -> tuple[str, str]:
    """Two values that differ, with so many digits that one sees it."""
    pairs = [(short(given, digits), short(expected, digits)) for digits in (4, 8, 14)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
