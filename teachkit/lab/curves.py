"""How accuracy falls as a network is pruned, and how sure a mean over seeds is."""

from collections.abc import Sequence
from typing import NamedTuple

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door, ranking, weights
from teachkit.core.types import Batch, Loss, Scores
from teachkit.lab.evaluation import evaluate


class Interval(NamedTuple):
    """A mean over runs and its confidence interval; numbers or arrays of one shape."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def accuracy_curve(
    model: nn.Module,
    scores: Scores,
    batch: Batch,
    sparsities: Sequence[float],
    scope: str = "global",
    loss: Loss = cross_entropy,
    threshold: float = 0.5,
) -> list[float]:
    """Accuracy after removing the weights with the lowest scores, one-shot, for each sparsity.

    The arguments are those of ``masks.keep_top`` and ``evaluation.evaluate``.
    """
    kept = (ranking.keep_top(scores, sparsity, scope) for sparsity in sparsities)
    pruned = (weights.apply(model, mask) for mask in kept)
    return [evaluate(net, batch, loss, threshold=threshold).accuracy for net in pruned]


def interval(runs: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean over the first axis and its Student interval, mean ± t · s / √n.

    ``runs`` is (n, ...) with n of at least 2 independent runs, e.g. seeds; ``confidence`` is the
    probability that the interval holds the true mean, for normal runs.

    >>> [round(float(value), 3) for value in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(runs, float)
    if values.ndim == 0 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs at least 2 finite runs, got {runs!r}")
    mean = values.mean(0)
    half = student(confidence, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation in [−1, 1]: Pearson's correlation of the ranks, ties averaged.

    >>> round(spearman([1.0, 2.0, 2.0, 9.0], [0.1, 0.3, 0.2, 0.4]), 3)
    0.949
    """
    ranks = []
    for values in (np.asarray(a, float).reshape(-1), np.asarray(b, float).reshape(-1)):
        if len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"a rank correlation needs at least 2 finite values, got {values!r}")
        _, group, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((count.cumsum() - (count - 1) / 2)[group])
    x, y = ranks
    if len(x) != len(y):
        lengths = f"{len(x)} and {len(y)}"
        raise ValueError(f"a rank correlation needs two rows of one length, got {lengths}")
    return float(np.asarray(np.corrcoef(x, y))[0, 1])


def student(confidence: float, freedom: int) -> float:
    """The t that a Student variable stays within ±t of with this probability.

    >>> round(student(0.95, 4), 3)
    2.776
    """
    checks.whole("freedom", freedom, 1)
    if not 0 < checks.fraction("confidence", confidence) < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")

    def excess(u: mpmath.mpf) -> mpmath.mpf:
        """P(|T| > t) with u = ν / (ν + t²), minus what it should be."""
        return mpmath.betainc(freedom / 2, 0.5, 0, u, regularized=True) - (1 - confidence)

    u = mpmath.findroot(excess, (0, 1), solver="ridder", tol=1e-12)
    return float(mpmath.sqrt(freedom * (1 - u) / u))


door.hold(globals())
