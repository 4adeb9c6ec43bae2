"""Whether arrays of numbers are equal, and what explains the difference."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachkit.show.running import LARGE

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
DIFFER = "the values differ"
ORDER = "the numbers are right, but in another order"
Pairs = Sequence[tuple[Any, Any]]


def as_array(value: Any) -> np.ndarray:
    """A value as an array of truth values or real numbers."""
    if isinstance(value, Tensor):
        value = value.detach()
        value = (value if value.layout is torch.strided else value.to_dense()).cpu()
        value = (value.double() if value.is_floating_point() else value.resolve_conj()).numpy()
    elif isinstance(value, (list, tuple)):
        if len(value) > LARGE:
            raise OverflowError
        value = [
            as_array(part) if isinstance(part, (Tensor, list, tuple)) else part for part in value
        ]
    numbers = np.asarray(value)
    if numbers.dtype.kind == "O":  # fractions, decimals, numbers of sympy
        numbers = numbers.astype(float)
    if numbers.dtype.kind not in "biuf":
        raise TypeError("not numbers")
    return numbers


def precision(value: Any) -> float:
    """What rounding may change in a value, by the coarsest type in it."""
    if isinstance(value, (list, tuple)):
        return max(map(precision, value[:999]), default=RELATIVE)
    name = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if name in ("float", "float64") and _single(as_array(value)):
        name = "float32"
    return COARSE.get(name, RELATIVE)


def _single(a: np.ndarray) -> bool:
    """Whether numbers come from float32: it holds them all, and one of them needs most of its digits."""
    with np.errstate(all="ignore"):
        held = a == a.astype(np.float32)
        long = (np.frexp(a)[0] * 2**12 % 1 != 0) & (a % 1 != 0)
    return bool(held.all() and long.any())


def close(a: Any, b: Any, relative: float) -> bool:
    """Whether two arrays are equal up to rounding; in a coarse type beside the largest number."""
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0))
    least = ABSOLUTE * max(1, scale) if relative <= NEAR else relative * scale
    return bool(np.allclose(a, b, rtol=relative, atol=least))


def shape_difference(a: np.ndarray, b: np.ndarray) -> str:
    """How two shapes differ, and whether the numbers are right."""
    shapes = [str(array.shape) if array.shape else "a single number" for array in (a, b)]
    says = f"the shape differs: {shapes[0]} instead of {shapes[1]}"
    if a.size == b.size and close(a.ravel(), b.ravel(), NEAR):
        return f"{says}; the numbers are right"
    transposed = a.ndim == 2 and a.T.shape == b.shape and close(a.T, b, NEAR)
    return f"{says}; rows and columns are swapped" if transposed else says


def mask_difference(a: np.ndarray, b: np.ndarray) -> str:
    """How a mask differs from the right one; empty where it does not."""
    if a.dtype != bool:
        return "a mask must be boolean: True keeps"
    if (a == b).all():
        return ""
    if (a == ~b).all():
        return "the mask is inverted: True keeps, and a larger score stays"
    if a.sum() != b.sum():
        return f"it keeps {a.sum()} weights instead of exactly {b.sum()}"
    return "it keeps the right number, but not the right weights"


@np.errstate(invalid="ignore", over="ignore")  # no warning of ours beside a word on inf
def explained(pairs: Pairs, tolerance: float) -> str:
    """What explains every pair of arrays: nearly, transposed, sign, factor, offset, rounded."""
    a, b = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
    if not np.isfinite(a).all() and np.isfinite(b).all():
        return f"{DIFFER}: {'nan' if np.isnan(a).any() else 'inf'} is in it"

    def near(x: np.ndarray, y: np.ndarray) -> bool:
        return close(x, y, max(NEAR, tolerance))

    if near(a, b):  # before any other name: a symmetric matrix is nearly its transpose, too
        return _nearly(a, b)
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
    if all(near(np.sort(x, None), np.sort(y, None)) for x, y in pairs):
        return ORDER
    return _moved(a, b, near)


def _nearly(a: np.ndarray, b: np.ndarray) -> str:
    gap = np.abs(a - b).max()
    most = f"{'up to ' if a.size > 1 else ''}{gap:.1g}"
    says = f"nearly: it is off by {most}, more than rounding in float64 explains"
    return f"{says}; is a part of it float32?" if gap < 3e-7 * np.abs(b).max() else says


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
