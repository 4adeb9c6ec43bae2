"""Schedules: plain functions from a step to the sparsity wanted there, which never fall."""

from collections.abc import Callable

from teachkit.core import checks

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
    """The same amount in every step: s_i + (s_f − s_i) u, with u = (t − start) / (end − start).

    Before ``start`` the sparsity is ``initial``, after ``end`` it is ``final``.

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
    """The same share of what is left in every step: 1 − (1 − s_i)((1 − s_f) / (1 − s_i))ᵘ.

    The rule of iterative magnitude pruning, "remove 20 % of the remaining weights each round"
    (Frankle & Carbin 2019).

    Raises:
        ValueError: final is 1: no share smaller than all leads there.

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
    if not callable(schedule):
        raise TypeError(f"schedule must be a function of the step, got {schedule!r}")
    return lambda step: schedule(max(step - steps, 0))


def every(schedule: Schedule, steps: int) -> Schedule:
    """The same schedule, changing only at multiples of ``steps``.

    That is Zhu & Gupta's Δt where the schedule starts at such a multiple.

    >>> [every(linear(0, 0.8, 0, 4), 2)(t) for t in (0, 1, 2, 3, 4)]
    [0.0, 0.0, 0.4, 0.4, 0.8]
    """
    checks.whole("steps", steps, 1)
    if not callable(schedule):
        raise TypeError(f"schedule must be a function of the step, got {schedule!r}")
    return lambda step: schedule(step // steps * steps)


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
