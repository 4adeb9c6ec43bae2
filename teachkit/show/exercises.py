"""Check a learner's function against the real one, and say what differs.

The exercises of a lesson stand in ``teachkit/show/lessons/<stem>.py`` as ``TASKS``.
"""

import copy
import itertools
import math
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from teachkit.core import door
from teachkit.show.answers import both, difference, same, short
from teachkit.show.quizzes import stems

TRIES = 12  # random inputs per check, at least


class Task(NamedTuple):
    """How to draw inputs, the right answer, and mistakes worth a word of their own.

    ``mistakes`` maps a hint to a function of the same inputs that makes that mistake. ``kinds`` are
    the sorts of inputs that tell a mistake from the answer; ``draw`` is asked for each in turn, so
    that no check can miss one. ``pure``: the text asks to leave the inputs as they are.
    """

    draw: Callable[..., tuple[Any, ...]]
    answer: Callable[..., Any]
    mistakes: dict[str, Callable[..., Any]]
    kinds: Sequence[Any] = ()
    pure: bool = False


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


def cases(task: Task, rng: random.Random) -> list[tuple[Any, ...]]:
    """The inputs of one check: fresh ones, and of each kind at least one."""
    if not task.kinds:
        return [task.draw(rng) for _ in range(TRIES)]
    kinds = itertools.cycle(task.kinds)
    return [task.draw(rng, next(kinds)) for _ in range(max(TRIES, len(task.kinds)))]


def verdict(name: str, function: Callable[..., Any], seed: int | None = None) -> str:
    """What :func:`check` prints after the number; inputs are fresh unless a seed is given."""
    task, rng = _task(name), random.Random(seed)  # noqa: S311 -- test inputs, no secrets
    if not callable(function):
        raise TypeError(f"check needs your function itself, got {type(function).__name__}")
    given, results = cases(task, rng), []
    for inputs in given:
        mine = copy.deepcopy(inputs)  # it may write into its inputs
        try:
            results.append(function(*mine))
        except (Exception, SystemExit) as error:
            return f"your function raised {type(error).__name__}: {error}\n{_show(inputs)}"
        if task.pure and not _unchanged(mine, inputs):
            return (
                f"not yet: your function changes what it is given; work on a copy\n{_show(inputs)}"
            )
    if all(result is None or result is ... for result in results):
        return "not attempted yet. Replace the ... by your code and run both cells again."
    return _judged(task, given, results)


def _judged(task: Task, given: list[tuple[Any, ...]], results: list[Any]) -> str:
    expected = [task.answer(*inputs) for inputs in given]
    for inputs, yours, wanted in zip(given, results, expected, strict=True):
        if says := difference(yours, wanted):
            hint = _known_mistake(task, given, results) or says
            shown, right = both(yours, wanted)
            return f"not yet: {hint}\n{_show(inputs)}\nyours: {shown}\nwanted: {right}"
    return "correct."


def _unchanged(after: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    pairs = zip(after, before, strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(b, Tensor))


def _known_mistake(task: Task, cases: list[tuple[Any, ...]], results: list[Any]) -> str:
    """The hint of the first listed mistake that explains every result."""
    for hint, mistake in task.mistakes.items():
        if all(same(r, mistake(*inputs)) for r, inputs in zip(results, cases, strict=True)):
            return hint
    return ""


def _show(inputs: tuple[Any, ...]) -> str:
    return "input: " + ", ".join(short(value) for value in inputs)
