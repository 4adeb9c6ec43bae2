"""Lesson 08: what its explorers and figures draw, and its exercises."""

import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from teachkit import masks, schedule
from teachkit.show import plots, styles
from teachkit.show.exercises import Task
from teachkit.show.pictures import Picture


def schedule_curve(shape: str, final: float, warm_up: int, end: int, every: int) -> Picture:
    """The sparsity of a schedule over 20 steps, and how much of it is gone halfway."""
    make = {"linear": schedule.linear, "cubic": schedule.cubic, "exponential": schedule.exponential}
    rule = schedule.every(schedule.delayed(make[shape](0, final, 0, end), warm_up), every)
    steps = np.arange(21)
    figure, (axes,) = plots.canvas()
    levels = [rule(int(t)) for t in steps]
    axes.step(steps, levels, where="post", label=shape, **styles.look(shape).line)
    axes.plot(steps, levels, markersize=4, **styles.look(shape).point)
    half = levels[warm_up + end // 2] / final
    says = f"{100 * half:.0f} % of all removals are done {warm_up + end // 2} steps in"
    alt = (
        f"The {shape} schedule to {final:g} with a warm-up of {warm_up} steps, {end} steps long, "
        f"changing every {every}: {says}."
    )
    axes.set(ylim=(-0.02, 1.02), xticks=range(0, 21, 4))
    return plots.finish(figure, alt, "step", "sparsity", says)


def rounds(share: float, sparsity: float) -> float:
    """How often a share of the rest goes until this sparsity is reached."""
    return math.log(1 - sparsity) / math.log(1 - share)


def cubic_at(rng: random.Random, kind: tuple[str, bool]) -> tuple[int, float, float, int, int]:
    """A step before, early in, halfway through or after, initial and final sparsity, start, end."""
    when, dense = kind
    start, length = rng.randrange(2, 6), rng.randrange(4, 9)
    after = {
        "before": -rng.randrange(1, start + 1),
        "start": 0,
        "early": 1,
        "half": length // 2,
        "end": length,
        "after": length + rng.randrange(1, 9),
    }[when]
    low = 0.0 if dense else round(rng.uniform(0.1, 0.4), 2)
    return start + after, low, round(rng.uniform(0.6, 0.95), 2), start, start + length


def counted(rng: random.Random) -> tuple[int, Callable[[float], float], int]:
    """A number of weights, a schedule, a number of steps."""
    steps = rng.randrange(4, 8)
    make = rng.choice([schedule.linear, schedule.cubic])
    return rng.choice([1000, 6464]), make(0.0, rng.uniform(0.8, 0.95), 0, steps), steps


def with_dead(rng: random.Random, kind: tuple[list[int], int]) -> tuple[Tensor, Tensor, int]:
    """Scores, a mask from before, and how many shall stay; ``kind`` says which ranks are dead.

    The k-th largest score that is alive is negative: it ranks below a dead one that is set to 0.
    """
    ranks, k = kind
    scores = torch.tensor(rng.sample(range(1, 9), 8), dtype=torch.float64) - rng.uniform(6.1, 6.9)
    alive = torch.ones(8, dtype=torch.bool)
    alive[scores.argsort(descending=True)[ranks]] = False
    return scores, alive, k


def cubic(t: float, low: float, high: float, start: int, end: int) -> float:
    """Zhu and Gupta's formula between start and end, without the ends held."""
    return high + (low - high) * (1 - (t - start) / (end - start)) ** 3


def removed(n: int, rule: Callable[[float], float], steps: int) -> list[int]:
    """How many go in each step."""
    gone = [masks.removed(n, rule(t)) for t in range(steps + 1)]
    return [b - a for a, b in itertools.pairwise(gone)]


def largest(scores: Tensor, allowed: Tensor, k: int) -> Tensor:
    """The k largest scores among the allowed ones."""
    return masks.keep_top({"w": scores}, 1 - k / len(scores), within={"w": allowed})["w"]


TASKS = {
    "08.1": Task(
        draw=lambda _, kind: kind,
        kinds=[*itertools.product((0.1, 0.2, 0.3), (0.55, 0.85, 0.93)), (0.5, 0.75)],
        answer=lambda p, s: math.ceil(rounds(p, s)),
        mistakes={
            "each round removes a share of what is left, not of all weights": lambda p, s: (
                math.ceil(s / p)
            ),
            "this many rounds fall just short: round up": lambda p, s: math.floor(rounds(p, s)),
            "a number of rounds is whole: round up": rounds,
            "round up, not to the nearest": lambda p, s: round(rounds(p, s)),
            "where the rounds come out whole, no further one is needed": lambda p, s: (
                math.floor(rounds(p, s)) + 1
            ),
        },
    ),
    "08.2": Task(
        draw=cubic_at,
        kinds=list(
            itertools.product(("before", "start", "early", "half", "end", "after"), (True, False))
        ),
        answer=lambda t, low, high, start, end: schedule.cubic(low, high, start, end)(t),
        mistakes={
            "before start and after end the sparsity stays where it is": cubic,
            "this is the linear schedule; the power 3 is missing": (
                lambda t, low, high, start, end: schedule.linear(low, high, start, end)(t)
            ),
            "this starts slowly and ends fast: the cube belongs to 1 − u": (
                lambda t, low, high, start, end: (
                    low + (high - low) * min(max((t - start) / (end - start), 0), 1) ** 3
                )
            ),
            "high and low have changed places": lambda t, low, high, start, end: (
                low + high - schedule.cubic(low, high, start, end)(t)
            ),
            "the schedule begins at low, not at 0": lambda t, low, high, start, end: schedule.cubic(
                0, high, start, end
            )(t),
        },
    ),
    "08.3": Task(
        draw=counted,
        answer=removed,
        mistakes={
            "these are the totals; the question is how many go in each step": lambda n, rule, steps: [
                masks.removed(n, rule(t)) for t in range(1, steps + 1)
            ],
            "a schedule gives the sparsity after the step, not the share to remove in it": (
                lambda n, rule, steps: [round(n * rule(t)) for t in range(steps)]
            ),
            "round the totals, not the differences": lambda n, rule, steps: [
                round(n * (rule(t) - rule(t - 1))) for t in range(1, steps + 1)
            ],
            "round, do not cut off": lambda n, rule, steps: [
                int(n * rule(t)) - int(n * rule(t - 1)) for t in range(1, steps + 1)
            ],
        },
    ),
    "08.4": Task(
        draw=with_dead,
        kinds=list(itertools.product(([0], [1], [0, 1]), (2, 3, 4))),
        answer=largest,
        mistakes={
            "a weight that was removed before came back": lambda scores, alive, k: largest(
                scores, torch.ones_like(alive), k
            ),
            "this keeps the smallest scores": lambda scores, alive, k: largest(-scores, alive, k),
            "this keeps all that were alive": lambda scores, alive, k: alive,
            "the k largest of all, of which some are dead: too few stay": (
                lambda scores, alive, k: largest(scores, torch.ones_like(alive), k) & alive
            ),
        },
    ),
}
