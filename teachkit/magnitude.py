"""Magnitude: rank weights by their size, decide how many each layer keeps, prune and retrain.

What is fast for millions of weights stands in ``core.ranking`` and ``engine.quotas``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks
from teachkit.core import checks, door
from teachkit.core.criteria import criterion, pruner
from teachkit.core.ranking import threshold
from teachkit.core.types import Batch, Data, Loss, Masks, Scores
from teachkit.engine.quotas import (
    RULES,
    at_least_single,
    empty_layers,
    lamp_share,
    quotas,
    warn_empty,
)
from teachkit.lab.curves import accuracy_curve
from teachkit.lab.rounds import Run, retrain

__all__ = ["RULES", "empty_layers", "quotas", "threshold", "warn_empty"]  # and what stands below

TenthAdam = partial(torch.optim.Adam, lr=1e-4)  # a tenth of the rate of training.Adam


@criterion("magnitude", passes=0, source="Han, Pool, Tran & Dally 2015")
def scores(model: nn.Module, batch: Batch | None = None, loss: Loss = cross_entropy) -> Scores:
    """|w| for every prunable weight: the smallest go first. Neither batch nor loss is looked at.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 2.0]]))
    >>> scores(layer)
    {'weight': tensor([[3., 2.]])}
    """
    return {name: w.detach().abs() for name, w in masks.prunable(model).items()}


def lamp_naive(w: Sequence[float]) -> list[float]:
    """w² / Σ v² over the weights v of the same tensor that are at least as large, w included.

    >>> [round(share, 3) for share in lamp_naive([-2.0, 1.0, 2.0])]
    [1.0, 0.111, 0.5]
    """
    order = sorted(range(len(w)), key=lambda i: -abs(w[i]))
    sums = dict(zip(order, accumulate(w[i] ** 2 for i in order), strict=True))
    return [w[i] ** 2 / sums[i] if w[i] else 0.0 for i in range(len(w))]


@criterion("LAMP", passes=0, source="Lee, Park, Mo, Ahn & Shin 2021")
def lamp_scores(model: nn.Module, batch: Batch | None = None, loss: Loss = cross_entropy) -> Scores:
    """:func:`lamp_naive` of every prunable weight, by one sort of each tensor.

    The largest weight of a tensor scores 1, so a global ranking empties no layer before it has
    reached one weight in each. Of equal weights the first counts as the larger; a zero scores 0.
    Source: Lee et al., Layer-adaptive sparsity for the Magnitude-based Pruning, 2021, equation 3.
    """
    return {name: lamp_share(w) for name, w in masks.prunable(model).items()}


def random_scores(model: nn.Module, generator: torch.Generator) -> Scores:
    """Uniform scores in [0, 1): the baseline that a criterion must beat.

    Do not seed the generator as the network was: the baseline would be half a magnitude pruning.
    """
    draw = partial(torch.rand, generator=generator, device=generator.device)
    return {
        name: draw(w.shape, dtype=at_least_single(w)).to(w.device)
        for name, w in masks.prunable(model).items()
    }


@criterion("random", passes=0, source="chance")
def random(model: nn.Module, batch: Batch | None = None, loss: Loss = cross_entropy) -> Scores:
    """Random scores, the same at each call."""
    return random_scores(model, checks.dice(None))


@pruner("magnitude without scores", passes=0, source="Han, Pool, Tran & Dally 2015")
def prune(
    model: nn.Module, batch: Batch | None, sparsity: float, *, loss: Loss = cross_entropy
) -> tuple[nn.Module, Masks]:
    """A new model without its smallest weights, and its masks; see :func:`keep_largest`."""
    kept = masks.keep_top(masks.prunable(model), sparsity, absolute=True)
    return masks.apply(model, kept), kept


def keep_largest(model: nn.Module, sparsity: float) -> Masks:
    """The masks that keep the largest |w| of the whole model, exactly the asked number.

    Equal to ``masks.keep_top(scores(model), sparsity)``, without a copy of the weights. A layer that
    comes out empty is named in a warning.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[2.0, -1.0, -3.0, 0.5]]))
    >>> keep_largest(layer, 0.5)
    {'weight': tensor([[ True, False,  True, False]])}
    """
    return warn_empty(masks.keep_top(masks.prunable(model), sparsity, absolute=True))


def quotas_naive(shapes: Sequence[Sequence[int]], keep: int, rule: str) -> list[float]:
    """Of a tensor with n weights keep min(n, ε · pull), with the ε that keeps ``keep`` in all: bisect on it.

    The pull is n ("uniform": the same density everywhere), or the sum of the tensor's sizes ("erk",
    Erdős–Rényi kernel: narrow layers keep more). :func:`quotas` gives whole numbers, and fast.
    Source: Mocanu et al., Nature Communications 2018; Evci et al., Rigging the Lottery, ICML 2020.

    >>> [round(kept, 3) for kept in quotas_naive([(10, 100), (2, 10)], 510, "erk")]
    [490.0, 20.0]
    """
    sizes = [checks.whole("a size of shapes", math.prod(shape)) for shape in shapes]
    pull = [sum(shape) for shape in shapes] if rule == "erk" else sizes
    low, high = 0.0, float(sum(sizes))
    for _ in range(200):
        middle = (low + high) / 2
        kept = [min(float(n), middle * p) for n, p in zip(sizes, pull, strict=True)]
        low, high = (low, middle) if sum(kept) > keep else (middle, high)
    return kept


def keep_by_rule(model: nn.Module, sparsity: float, rule: str = "global") -> Masks:
    """The masks of magnitude pruning: one ranking ("global"), or a quota by layer, see ``quotas``.

    >>> net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    >>> {name: int(mask.sum()) for name, mask in keep_by_rule(net, 0.5, "uniform").items()}
    {'0.weight': 12, '1.weight': 4}
    """
    if rule not in ("global", *RULES):
        raise ValueError(f"rule must be 'global' or one of {RULES}, got {rule!r}")
    if rule == "global":
        return masks.keep_top(scores(model), sparsity)
    return masks.keep_quota(scores(model), quotas(model, sparsity, rule))


def sensitivity(
    model: nn.Module, batch: Batch, sparsities: Sequence[float], **options: Any
) -> dict[str, list[float]]:
    """Accuracy after magnitude pruning of one tensor alone, for each tensor and each sparsity.

    Nothing is retrained. For the options see ``curves.accuracy_curve``. Source: Han et al., figure 6.
    """
    return {
        name: accuracy_curve(model, {name: score}, batch, sparsities, **options)
        for name, score in scores(model).items()
    }


def removed_share(quality: float) -> float:
    """The fraction that a threshold of quality × σ removes from Gaussian weights: erf(q / √2).

    P(|w| < qσ) for w normal with mean 0. It is 68 % at q = 1, and not proportional to q.

    >>> [round(removed_share(q), 3) for q in (0.5, 1, 2)]
    [0.383, 0.683, 0.954]
    """
    return math.erf(checks.number("quality", quality) / math.sqrt(2))


def han_mask(w: Tensor, quality: float) -> Tensor:
    """|w| > q σ for one tensor, σ the standard deviation of its nonzero weights.

    >>> han_mask(torch.tensor([3.0, -1.0, 0.0, -2.0]), 0.7)
    tensor([ True, False, False,  True])
    """
    alive = w[w != 0]
    sigma = float(alive.std(correction=0)) if alive.numel() else 0.0
    return w.abs() > quality * sigma


def han_masks(model: nn.Module, quality: float | Mapping[str, float]) -> Masks:
    """:func:`han_mask` of each tensor, by one quality or by name; one left out keeps its nonzero weights.

    A zero stays removed and does not count in σ, so a second round at the same quality removes more.
    Source: Han, Pool, Tran & Dally, Learning both Weights and Connections, NIPS 2015, section 3.
    """
    weights = masks.prunable(model)
    if not isinstance(quality, Mapping):
        quality = dict.fromkeys(weights, checks.number("quality", quality))
    by_name = checks.numbers("quality", quality, weights)
    return {name: han_mask(w.detach(), by_name.get(name, 0.0)) for name, w in weights.items()}


def by_layer(
    model: nn.Module, quality: float, factors: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The quality by tensor: times the tensor's factor, 1 where none is given.

    Without factors the last tensor has 0.6: each of its few weights decides about a class directly.

    >>> by_layer(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), 1.0)
    {'0.weight': 1.0, '1.weight': 0.6}
    """
    names = list(masks.prunable(model))
    if not names:
        raise ValueError("the model has no prunable weight")
    given = checks.numbers("factors", {names[-1]: 0.6} if factors is None else factors, names)
    return {name: checks.number("quality", quality) * given.get(name, 1.0) for name in names}


def han(
    model: nn.Module,
    data: Data,
    qualities: Sequence[float],
    *,
    factors: Mapping[str, float] | None = None,
    epochs: int = 6,
    optimizer: Callable[..., torch.optim.Optimizer] = TenthAdam,
    **options: Any,
) -> Run:
    """Prune by ``han_masks`` and retrain with the masks held, once for each quality.

    From the paper: the threshold, a tenth of the rate for the retraining, and that it is repeated.
    The course's own: σ is that of the survivors, the last tensor has a smaller quality, and dropout
    is not corrected, since the course's networks have none.

    For factors see ``by_layer``, for the options ``lab.rounds.retrain`` and ``lab.training.fit``.
    """

    def choose(net: nn.Module, batch: Batch, quality: float) -> Masks:
        return warn_empty(han_masks(net, by_layer(net, quality, factors)))

    return retrain(model, data, choose, qualities, epochs=epochs, optimizer=optimizer, **options)


door.hold(globals())
