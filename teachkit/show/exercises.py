"""Check a learner's function against the real one, and say what differs.

The exercises of a lesson stand in ``teachkit/show/lessons/<stem>.py`` as ``TASKS``.
"""

import copy
import math
import random
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from torch import Tensor

from teachkit.core import door
from teachkit.show.quizzes import stems

TRIES = 12  # random inputs per check


class Task(NamedTuple):
    """How to draw inputs, the right answer, and mistakes worth a word of their own.

    ``mistakes`` maps a hint to a function of the same inputs that makes that mistake.
    """

    draw: Callable[[random.Random], tuple[Any, ...]]
    answer: Callable[..., Any]
    mistakes: dict[str, Callable[..., Any]]


def normal(rng: random.Random, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    dice = torch.Generator().manual_seed(rng.randrange(10**6))
    return torch.randn(shape, generator=dice, dtype=torch.float64)


def uniform(rng: random.Random, low: float, high: float, *shape: int) -> Tensor:
    """Numbers between low and high in float64."""
    numbers = [rng.uniform(low, high) for _ in range(math.prod(shape))]
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape)


def times(factor: float, answer: Callable[..., Any]) -> Callable[..., Any]:
    """The mistake that is off by a factor."""
    return lambda *inputs: factor * answer(*inputs)


def curved(rng: random.Random) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A function with a Hessian that is not constant, a place and a direction, (3,) each."""
    A = normal(rng, 3, 3)
    at, v = normal(rng, 2, 3)
    return (lambda p: (A @ p).pow(3).sum() + p.prod()), at, v


def full_hessian(f: Callable[[Tensor], Tensor], at: Tensor) -> Any:
    """The Hessian of f at a place."""
    return torch.func.jacrev(torch.func.grad(f))(at)


def lesson_tasks(stem: str) -> dict[str, Task]:
    """The exercises of one lesson by number, from its file in ``teachkit/show/lessons``.

    >>> sorted(lesson_tasks("start"))
    ['00.1']
    """
    tasks: dict[str, Task] = import_module(f"teachkit.show.lessons.{stem}").TASKS
    return tasks


def all_tasks() -> dict[str, Task]:
    """The exercises of every lesson that has a quiz, by number."""
    return {name: task for stem in stems().values() for name, task in lesson_tasks(stem).items()}


def _task(name: str) -> Task:
    stem = stems().get(name[:2])
    tasks = lesson_tasks(stem) if stem else {}
    if name not in tasks:
        raise ValueError(f"no exercise {name!r}; there are {sorted(all_tasks())}")
    return tasks[name]


@door.guard
def check(name: str, function: Callable[..., Any]) -> None:
    """Print whether a learner's function does what exercise ``name``, e.g. "01.2", asks.

    An untouched stub counts as not attempted; of a wrong answer it says what differs.
    """
    print(f"{name}: {verdict(name, function)}")


def verdict(name: str, function: Callable[..., Any], seed: int | None = None) -> str:
    """What :func:`check` prints after the number; inputs are fresh unless a seed is given."""
    task, rng = _task(name), random.Random(seed)  # noqa: S311 -- test inputs, no secrets
    if not callable(function):
        raise TypeError(f"check needs your function itself, got {type(function).__name__}")
    cases = [task.draw(rng) for _ in range(TRIES)]
    results = []
    for inputs in cases:
        try:
            results.append(function(*copy.deepcopy(inputs)))  # it may write into its inputs
        except Exception as error:
            return f"your function raised {type(error).__name__}: {error}\n{_show(inputs)}"
    if all(result is None or result is ... for result in results):
        return "not attempted yet. Replace the ... by your code and run both cells again."
    expected = [task.answer(*inputs) for inputs in cases]
    if all(map(same, results, expected)):
        return "correct."
    inputs, yours, wanted = next(
        case for case in zip(cases, results, expected, strict=True) if not same(*case[1:])
    )
    says = _known_mistake(task, cases, results) or difference(yours, wanted)
    return f"not yet: {says}\n{_show(inputs)}\nyours: {_short(yours)}\nwanted: {_short(wanted)}"


def _known_mistake(task: Task, cases: list[tuple[Any, ...]], results: list[Any]) -> str:
    """The hint of the first listed mistake that explains every result."""
    for hint, mistake in task.mistakes.items():
        if all(same(r, mistake(*inputs)) for r, inputs in zip(results, cases, strict=True)):
            return hint
    return ""


def same(given: Any, expected: Any) -> bool:
    """Equal in kind, shape and value (1e-8 relative for numbers, symbolically for sympy)."""
    return not difference(given, expected)


def difference(given: Any, expected: Any) -> str:
    """How an answer differs: type, shape, sign, factor, inverted mask; empty where it does not."""
    if isinstance(expected, (sympy.Expr, sympy.MatrixBase)):
        return _symbolic_difference(given, expected)
    words = (str, set, frozenset)
    if isinstance(expected, words) or isinstance(given, str) or given is None:
        if isinstance(given, words) and isinstance(expected, words) and given == expected:
            return ""
        return "the type differs" if type(given) is not type(expected) else "the answer differs"
    if type(given) is type(expected) is int and given == expected:  # of any size
        return ""
    try:
        a, b = _array(given), _array(expected)
    except (TypeError, ValueError, RuntimeError):
        return f"the type differs: {type(given).__name__} instead of {type(expected).__name__}"
    if a.shape != b.shape:
        return f"the shape differs: {a.shape} instead of {b.shape}"
    if b.dtype == bool:
        return _mask_difference(a, b)
    exact = a.dtype == bool or type(given) is type(expected) is int
    if not exact and np.allclose(a, b, rtol=1e-8, atol=1e-12):
        return ""
    if a.ndim == 2 and a.shape == a.T.shape and np.allclose(a.T, b):
        return "it is transposed: rows and columns are swapped"
    return _numeric_difference(a.astype(float), b.astype(float))


def _numeric_difference(a: np.ndarray, b: np.ndarray) -> str:
    if np.allclose(a, -b):
        return "the sign is wrong"
    if np.allclose(np.abs(a), np.abs(b)):
        return "the sign of some entries is wrong"
    for factor, says in (
        (2, "it is too large by a factor of 2"),
        (0.5, "a factor of ½ too much"),
        (math.log(10), "it is too large by a factor of ln 10: which logarithm?"),
    ):
        if np.allclose(a, factor * b):
            return says
    if a.size > 1 and np.ptp(a - b) < 1e-9:
        return "it is off by the same amount everywhere"
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


def _same_symbols(given: Any, expected: Any) -> bool:
    try:
        gap = sympy.sympify(given) - expected
    except (TypeError, ValueError, AttributeError, sympy.SympifyError):
        return False
    if isinstance(expected, sympy.MatrixBase) != isinstance(gap, sympy.MatrixBase):
        return False
    entries = list(gap) if isinstance(gap, sympy.MatrixBase) else [gap]
    return all(map(_vanishes, entries))


def _vanishes(entry: sympy.Expr) -> bool:
    """A number is compared to 12 digits; anything else symbolically, if it is zero at a place."""
    if entry.has(sympy.nan, sympy.zoo):
        return False
    if not entry.free_symbols:
        return bool(abs(sympy.N(entry)) < 1e-12)
    symbols = sorted(entry.free_symbols, key=str)
    here = sympy.N(entry.subs({s: sympy.Rational(7 + i, 5) for i, s in enumerate(symbols)}))
    if here.is_number and here.is_finite and abs(here) > 1e-6:  # quick, and says most of them
        return False
    return bool(sympy.expand(entry) == 0 or sympy.simplify(entry) == 0)


def _symbolic_difference(given: Any, expected: Any) -> str:
    wants_matrix = isinstance(expected, sympy.MatrixBase)
    if wants_matrix and not isinstance(given, sympy.MatrixBase):
        return f"the type differs: a matrix of shape {expected.shape} is wanted"
    if wants_matrix and given.shape != expected.shape:
        return f"the shape differs: {given.shape} instead of {expected.shape}"
    for factor, says in (
        (1, ""),
        (-1, "the sign is wrong"),
        (2, "it is too large by a factor of 2"),
        (sympy.Rational(1, 2), "a factor of ½ too much"),
    ):
        if _same_symbols(given, factor * expected):
            return says
    return "the expressions differ"


def _array(value: Any) -> np.ndarray:
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError("not numbers")
    return array


def _show(inputs: tuple[Any, ...]) -> str:
    return "input: " + ", ".join(_short(value) for value in inputs)


def _short(value: Any) -> str:
    if callable(value) and not isinstance(value, (sympy.Basic, sympy.MatrixBase)):
        return "a function"
    if isinstance(value, Tensor):
        array = value.detach().numpy()
        value = (array.round(4) if array.dtype.kind == "f" else array).tolist()
    if isinstance(value, float):
        value = f"{value:.6g}"
    return textwrap.shorten(str(value), 150, placeholder=" …")
