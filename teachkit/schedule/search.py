"""The sparsest network whose accuracy stays within a bound."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from teachkit.core import checks


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

    Each run costs what ``make`` costs; log₂((high − low) / tolerance) + 1 runs are made. Bisection
    takes for granted that accuracy falls with sparsity. Runs are noisy, so near the bound the answer
    is one of several that are possible; ``runs`` shows all.

    Args:
        make: from the sparsity to the pruned and retrained network.
        accuracy: measures a network. Measure on data that you do not report on afterwards.
        floor: the least accuracy, e.g. that of the dense network less the drop you accept.
        low: a sparsity at which the bound is expected to hold; it is tried first.
        high: the largest sparsity to consider.
        tolerance: how close to the true answer the search must come.

    Raises:
        ValueError: the bound does not even hold at ``low``.

    """
    for name, value in (("low", low), ("high", high), ("floor", floor)):
        checks.fraction(name, value)
    if low > high:
        raise ValueError(f"low must not exceed high, got low={low!r} and high={high!r}")
    if not checks.number("tolerance", tolerance) > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}")
    best = make(low)
    reached = checks.fraction("the accuracy", accuracy(best))
    runs = [(low, reached)]
    if reached < floor:
        raise ValueError(f"at sparsity {low:g} the accuracy is {reached:.4g}, below {floor:.4g}")
    at = low
    while high - at > tolerance:
        middle = (at + high) / 2
        if middle in (at, high):  # two neighbouring numbers: no tolerance can part them
            break
        model = make(middle)
        runs.append((middle, checks.fraction("the accuracy", accuracy(model))))
        if runs[-1][1] >= floor:
            at, best, reached = middle, model, runs[-1][1]
        else:
            high = middle
    return Search(at, best, reached, runs)
