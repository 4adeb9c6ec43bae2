"""Pruning schedules, the prune–retrain loop along one, and the sparsest network within a bound.

A schedule is a plain function from the step to the sparsity wanted there, which never falls.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from torch import nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.types import Criterion, Data, Loss
from teachkit.lab import rounds
from teachkit.lab.rounds import Run

Schedule = Callable[[float], float]


def constant(final: float) -> Schedule:
    """The same sparsity at every step.

    >>> constant(0.5)(0)
    0.5
    """
    checks.fraction("final", final)
    return lambda step: final


def one_shot(final: float, start: float = 0) -> Schedule:
    """Nothing before ``start``, everything from then on.

    >>> [one_shot(0.9, start=2)(t) for t in (0, 1, 2, 3)]
    [0.0, 0.0, 0.9, 0.9]
    """
    checks.fraction("final", final)
    checks.number("start", start)
    return lambda step: final if step >= start else 0.0


def linear(initial: float, final: float, start: float, end: float) -> Schedule:
    """The same amount in every step: s_i + (s_f − s_i) u, with u = (t − start) / (end − start) in [0, 1].

    >>> [linear(0, 0.8, 0, 4)(t) for t in (0, 1, 4, 9)]
    [0.0, 0.2, 0.8, 0.8]
    """
    return _between(initial, final, start, end, lambda u: u)


def cubic(initial: float, final: float, start: float, end: float) -> Schedule:
    """Much at first, little at the end: s_f + (s_i − s_f)(1 − u)³.

    Source: Zhu & Gupta, To prune, or not to prune, 2017, equation 1; their n Δt is end − start.

    >>> [round(cubic(0, 0.8, 0, 4)(t), 4) for t in (0, 1, 2, 4)]
    [0.0, 0.4625, 0.7, 0.8]
    """
    return _between(initial, final, start, end, lambda u: 1 - (1 - u) ** 3)


def exponential(initial: float, final: float, start: float, end: float) -> Schedule:
    """The same share of what is left in every step: 1 − (1 − s_i)((1 − s_f) / (1 − s_i))ᵘ, s_f < 1.

    The rule of iterative magnitude pruning, "remove 20 % of the remaining weights each round"
    (Frankle & Carbin 2019).

    >>> [round(exponential(0, 0.75, 0, 2)(t), 4) for t in (0, 1, 2)]
    [0.0, 0.5, 0.75]
    """
    if checks.fraction("final", final) == 1:
        raise ValueError(
            "an exponential schedule comes close to 1 but never reaches it, got final=1"
        )
    left = (1 - final) / (1 - initial) if checks.fraction("initial", initial) < 1 else 1.0
    whole = final - initial
    return _between(
        initial, final, start, end, lambda u: (1 - initial) * (1 - left**u) / whole if whole else u
    )


def delayed(schedule: Schedule, steps: float) -> Schedule:
    """The same schedule, ``steps`` later: a warm-up at its first value.

    >>> delayed(linear(0, 0.8, 0, 4), 2)(3)
    0.2
    """
    checks.number("steps", steps)
    return _read_at(schedule, lambda step: max(step - steps, 0))


def every(schedule: Schedule, steps: int) -> Schedule:
    """The same schedule, changing only at multiples of ``steps``, Zhu & Gupta's Δt if it starts at one.

    >>> [every(linear(0, 0.8, 0, 4), 2)(t) for t in (0, 1, 2, 3, 4)]
    [0.0, 0.0, 0.4, 0.4, 0.8]
    """
    checks.whole("steps", steps, 1)
    return _read_at(schedule, lambda step: step // steps * steps)


def _read_at(schedule: Schedule, clock: Callable[[float], float]) -> Schedule:
    if not callable(schedule):
        raise TypeError(f"schedule must be a function of the step, got {schedule!r}")
    return lambda step: schedule(clock(step))


def _between(
    initial: float, final: float, start: float, end: float, shape: Callable[[float], float]
) -> Schedule:
    """From initial to final between start and end, along a shape from 0 to 1."""
    low, high = checks.fraction("initial", initial), checks.fraction("final", final)
    if low > high:
        raise ValueError(f"a schedule must not fall, got initial={initial!r} and final={final!r}")
    if not 0 <= checks.number("start", start) < checks.number("end", end):
        raise ValueError(f"a schedule needs 0 <= start < end, got start={start!r} and end={end!r}")

    def schedule(step: float) -> float:
        u = min(max((step - start) / (end - start), 0.0), 1.0)
        return low if u == 0 else high if u == 1 else low + (high - low) * shape(u)

    return schedule


def gradual(
    model: nn.Module,
    data: Data,
    criterion: Criterion,
    schedule: Schedule,
    *,
    steps: int,
    epochs: int,
    scope: str = "global",
    loss: Loss = cross_entropy,
    **options: Any,
) -> Run:
    """Prune to schedule(1), train, prune to schedule(2), train, … to schedule(steps).

    Scores are computed anew before each cut, on the training data. What is removed stays removed.
    ``epochs`` are the passes over the training data in all, divided over the steps as evenly as whole
    numbers allow; the last and deepest steps take the remainder. The options are those of
    ``lab.rounds.retrain`` (seed, file, progress) and ``lab.training.fit`` (batch_size, optimizer, …).
    A schedule that falls is a ValueError, and a file of another run or a damaged one.
    """
    steps, epochs = checks.whole("steps", steps, 1), checks.whole("epochs", epochs)
    levels = [checks.fraction(f"schedule({t})", schedule(t)) for t in range(1, steps + 1)]
    for before, after in pairwise(levels):
        if after < before:
            raise ValueError(f"a schedule must not fall, got {before!r} and then {after!r}")
    passes = [(epochs + t) // steps for t in range(steps)]
    choose = rounds.by_criterion(criterion, loss, scope)
    return rounds.retrain(model, data, choose, levels, epochs=passes, loss=loss, **options)


class Search(NamedTuple):
    """The sparsest network found within the bound, and every run that was made to find it."""

    sparsity: float
    model: nn.Module
    accuracy: float
    runs: list[tuple[float, float]]


def within_bound(
    make: Callable[[float], nn.Module],
    accuracy: Callable[[nn.Module], float],
    floor: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    tolerance: float = 0.01,
) -> Search:
    """The largest sparsity whose network keeps an accuracy of at least ``floor``, by bisection.

    ``make`` goes from a sparsity to the pruned and retrained network. Measure the accuracy on data that
    you do not report on afterwards. The search starts at ``low``, and it is a ValueError if the bound
    does not hold there; log₂((high − low) / tolerance) + 1 runs are made. Bisection takes for granted
    that accuracy falls with sparsity, and near the bound the answer is one of several possible ones.
    """
    _check_search(low, high, floor, tolerance)
    runs: list[tuple[float, float]] = []

    def attempt(sparsity: float) -> Search:
        model = make(sparsity)
        runs.append((sparsity, checks.fraction("the accuracy", accuracy(model))))
        return Search(sparsity, model, runs[-1][1], runs)

    best = attempt(low)
    if best.accuracy < floor:
        raise ValueError(
            f"at sparsity {low:g} the accuracy is {best.accuracy:.4g}, below {floor:.4g}"
        )
    while high - best.sparsity > tolerance:
        middle = (best.sparsity + high) / 2
        if middle in (best.sparsity, high):  # two neighbouring numbers: no tolerance can part them
            break
        new = attempt(middle)
        best, high = (new, high) if new.accuracy >= floor else (best, middle)
    return best


def _check_search(low: float, high: float, floor: float, tolerance: float) -> None:
    for name, value in (("low", low), ("high", high), ("floor", floor)):
        checks.fraction(name, value)
    if low > high:
        raise ValueError(f"low must not exceed high, got low={low!r} and high={high!r}")
    if not checks.number("tolerance", tolerance) > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}")


door.hold(globals())
