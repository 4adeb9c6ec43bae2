"""What an exercise is: how to draw its inputs, the right answer, and mistakes worth a word.

The exercises of a lesson stand in ``teachkit/show/lessons/<stem>.py`` as ``TASKS``, and as ``TRIALS``
those that are experiments.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from teachkit.show.quizzes import stems
from teachkit.show.trials import Trial

TRIES = 12  # random inputs per check, at least


class Task(NamedTuple):
    """How to draw inputs, the right answer, and mistakes worth a word of their own.

    ``mistakes`` maps a hint to a function of the same inputs that makes that mistake. ``kinds`` are
    the sorts of inputs that tell a mistake from the answer; ``draw`` is asked for each in turn, so
    that no check can miss one. ``pure``: the text asks to leave the inputs as they are. ``also``
    tries whatever else the text asks for and is given the function; it says what is missing.
    """

    draw: Callable[..., tuple[Any, ...]]
    answer: Callable[..., Any]
    mistakes: dict[str, Callable[..., Any]]
    kinds: Sequence[Any] = ()
    pure: bool = False
    also: Callable[[Callable[..., Any]], str] | None = None


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


def lesson_trials(stem: str) -> dict[str, Trial]:
    """The experiments among the exercises of one lesson, by number."""
    trials: dict[str, Trial] = getattr(import_module(f"teachkit.show.lessons.{stem}"), "TRIALS", {})
    return trials


def lesson_exercises(stem: str) -> list[str]:
    """The numbers of all exercises of one lesson.

    >>> lesson_exercises("start")
    ['00.1']
    """
    return sorted(lesson_tasks(stem) | lesson_trials(stem))


def all_tasks() -> dict[str, Task]:
    """The exercises of every lesson that has a quiz, by number."""
    return {name: task for stem in stems().values() for name, task in lesson_tasks(stem).items()}


def all_trials() -> dict[str, Trial]:
    """The experiments among the exercises of every lesson, by number."""
    return {name: t for stem in stems().values() for name, t in lesson_trials(stem).items()}


def exercise(name: Any) -> Task | Trial:
    """The exercise with this number; the error lists those of its lesson."""
    stem = stems().get(name[:2]) if isinstance(name, str) else None
    there = [stem] if stem else list(stems().values())
    found: dict[str, Task | Trial] = {}
    for each in there:
        found |= {**lesson_tasks(each), **lesson_trials(each)}
    if not isinstance(name, str) or name not in found:
        raise ValueError(f"no exercise {name!r}; there are {sorted(found)}")
    return found[name]


def cases(task: Task, rng: random.Random) -> list[tuple[Any, ...]]:
    """The inputs of one check: fresh ones, and of each kind at least one."""
    if not task.kinds:
        return [task.draw(rng) for _ in range(TRIES)]
    kinds = itertools.cycle(task.kinds)
    return [task.draw(rng, next(kinds)) for _ in range(max(TRIES, len(task.kinds)))]
