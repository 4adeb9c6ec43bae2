"""Pruning is zeroing: masks, how many weights they keep, what they save, and the best one.

A mask has the shape of its weight and is boolean: True keeps. A larger score stays. What every
lesson needs of masks stands in ``teachkit.core.weights`` and ``teachkit.core.ranking``.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, product
from typing import NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy
from torch.nn.modules.conv import _ConvTransposeNd

from teachkit.core import bars, checks, door
from teachkit.core.layers import weighted
from teachkit.core.objective import objective
from teachkit.core.ranking import (
    complete,
    keep_n_of_m,
    keep_quota,
    keep_top,
    removed,
    sparsity,
    zeros_last,
)
from teachkit.core.recorder import Call, record_calls
from teachkit.core.selection import subsets
from teachkit.core.types import Batch, Loss, Masks, Scores
from teachkit.core.weights import apply, change, combine, keep_all, nonzero, prunable, split
from teachkit.engine.exchange import from_torch, to_torch

__all__ = [
    "BRUTE_FORCE_LIMIT", "Operations", "apply", "best_subset", "change", "combine", "complete", "from_torch",
    "keep_all", "keep_n_of_m", "keep_n_of_m_naive", "keep_quota", "keep_top", "keep_top_naive",
    "log10_subsets", "nonzero", "operations", "operations_naive", "prunable", "removed", "sparsity",
    "split", "subset_losses", "subset_losses_naive", "to_torch", "total", "zeros_last",
]  # fmt: skip
BRUTE_FORCE_LIMIT = 20  # weights; C(20, 10) = 184,756 networks, C(30, 15) = 155 million


def keep_top_naive(scores: Scores, sparsity: float) -> Masks:
    """Sort (score, position) of all weights in Python and keep the first n − round(sparsity · n).

    >>> keep_top_naive({"w": torch.tensor([1.0, 3.0, 3.0, 2.0])}, 0.5)
    {'w': tensor([False,  True,  True, False])}
    """
    flat = torch.cat([s.reshape(-1) for s in scores.values()])
    order = sorted(range(len(flat)), key=lambda i: (-float(flat[i]), i))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[order[: len(flat) - round(sparsity * len(flat))]] = True
    return split(mask, scores)


def keep_n_of_m_naive(scores: Tensor, n: int, m: int) -> Tensor:
    """Keep the n largest scores of every m neighbouring inputs, one group at a time.

    >>> keep_n_of_m_naive(torch.tensor([[4.0, 1.0, 2.0, 3.0]]), 2, 4)
    tensor([[ True, False, False,  True]])
    """
    checks.whole("n", n, 0, checks.whole("m", m, 1))
    mask = torch.zeros_like(scores, dtype=torch.bool)
    outputs, inputs, *kernel = map(range, scores.shape)
    for o, start, *place in product(outputs, inputs[::m], *kernel):
        group = sorted(range(start, start + m), key=lambda i: (-float(scores[o, i, *place]), i))
        for i in group[:n]:
            mask[o, i, *place] = True
    return mask


class Operations(NamedTuple):
    """Scalar multiplications and additions."""

    multiplications: int
    additions: int


def operations_naive(mask: Tensor, rows: int, bias: bool) -> Operations:
    """Walk through every output of every row of inputs and count the products of a masked layer.

    >>> operations_naive(torch.eye(2) > 0, rows=2, bias=False)
    Operations(multiplications=4, additions=0)
    """
    checks.whole("rows", rows)
    checks.masks({"mask": mask}, {"mask": mask})
    multiplications = additions = 0
    for _, kept in product(range(rows), mask.flatten(1).tolist()):
        multiplications += sum(kept)
        additions += max(sum(kept) - 1, 0) + (1 if bias and any(kept) else 0)
    return Operations(multiplications, additions)


def operations(model: nn.Module, x: Tensor, masks: Masks | None = None) -> dict[str, Operations]:
    """Count the scalar operations of each Linear and Conv layer on the batch x, zeros left out.

    An output with r kept weights takes r multiplications and r − 1 additions, one more with a
    bias, none with r = 0. Padding counts as input, as in most published counts; a layer that is
    called twice counts twice. Without masks every weight counts, zero or not.

    >>> two = nn.Linear(2, 2, bias=False)
    >>> operations(two, torch.ones(2, 2)), operations(two, torch.ones(2, 2), {"weight": torch.eye(2) > 0})
    ({'': Operations(multiplications=8, additions=4)}, {'': Operations(multiplications=4, additions=0)})
    """
    weights = prunable(checks.model(model, checks.finite("x", x)))
    kept = checks.masks(masks or {}, weights)
    by_weight = {id(weights[name]): mask for name, mask in kept.items()}  # tied layers share a mask
    rows: Counter[str] = Counter()  # how often each output of a layer is computed

    def count(call: Call) -> None:
        if isinstance(call.layer, _ConvTransposeNd):
            raise ValueError(
                f"layer {call.name!r} is a transposed convolution, which is not counted"
            )
        rows[call.name] += call.output.numel() // max(len(call.layer.weight), 1)  # type: ignore[arg-type]

    record_calls(model, x, count)
    return {
        name: _layer_operations(layer, by_weight.get(id(layer.weight)), rows[name])
        for name, layer in weighted(model)
        if name in rows
    }


def _layer_operations(layer: nn.Module, mask: Tensor | None, rows: int) -> Operations:
    """Operations of one layer, each of whose outputs is computed ``rows`` times."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    r = kept.flatten(1).sum(1)
    additions = (r - 1 + (layer.bias is not None)).clamp(min=0)
    return Operations(int(r.sum()) * rows, int(additions.sum()) * rows)


def total(operations: Mapping[str, Operations]) -> Operations:
    """The sum over the layers."""
    counts = operations.values()
    return Operations(sum(o.multiplications for o in counts), sum(o.additions for o in counts))


def log10_subsets(n: int, k: int) -> float:
    """log₁₀ C(n, k), the number of masks that keep k of n weights, as a power of ten.

    By log-gamma in as many digits as n has and 25 more, so that nothing cancels.

    >>> round(log10_subsets(10**12, 10**9))
    3434077257
    """
    checks.whole("n", n, 0)
    checks.whole("k", k, 0, n)
    with mpmath.workdps(2 * len(str(n)) + 25):
        log = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        return float(log / mpmath.log(10))


def subset_losses_naive(
    model: nn.Module, batch: Batch, k: int, loss: Loss = cross_entropy
) -> list[float]:
    """The loss of every network that keeps k weights: prune a copy, evaluate it, take the next."""
    weights, losses = prunable(model), []
    n = sum(w.numel() for w in weights.values())
    for kept in combinations(range(n), k):
        mask = torch.tensor([i in kept for i in range(n)], device=batch[0].device)
        value, params = objective(apply(model, split(mask, weights)), batch, loss)
        losses.append(float(value(params)))
    return losses


def subset_losses(
    model: nn.Module, batch: Batch, k: int, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """The loss of every network that keeps k of the model's n prunable weights, retraining none.

    Choices (C(n, k), n), boolean, True keeps, over all weights in the order of ``prunable``,
    flattened; and their losses (C(n, k),). 1024 networks run at a time; ValueError for more than 20
    weights says how many they would be.
    """
    weights = {name: w.detach() for name, w in prunable(model).items()}
    choices = _choices(sum(w.numel() for w in weights.values()), k).to(batch[0].device)
    value, _ = objective(model, batch, loss)

    def masked(choice: dict[str, Tensor]) -> Tensor:
        return value({name: w * choice[name] for name, w in weights.items()})

    parts = bars.bar(torch.split(choices, 1024), "networks, in parts of 1024")
    return choices, torch.cat([vmap(masked)(split(part, weights)) for part in parts])


def best_subset(
    model: nn.Module, batch: Batch, k: int, loss: Loss = cross_entropy
) -> tuple[Masks, float]:
    """The masks that keep k weights at the least loss, and that loss, by trying all of them.

    Solves min over T_k of L(θ ⊙ M), where T_k holds the masks with k ones: what every pruning
    criterion approximates. At most 20 weights.
    """
    choices, losses = subset_losses(model, batch, k, loss)
    best = int(losses.argmin())
    return split(choices[best], prunable(model)), float(losses[best])


def _choices(n: int, k: int) -> Tensor:
    """All ways to keep k of n weights, (C(n, k), n), if they can be tried."""
    if not n:
        raise ValueError("the model has no prunable weight")
    checks.whole("k", k, 0, n)
    if n > BRUTE_FORCE_LIMIT:
        raise ValueError(
            f"brute force is for at most {BRUTE_FORCE_LIMIT} weights; this model has {n}, "
            f"and keeping {k} of them takes 10^{log10_subsets(n, k):.1f} networks"
        )
    kept = subsets(n, k)
    choices = np.zeros((len(kept), n), bool)
    np.put_along_axis(choices, kept, True, axis=1)
    return torch.from_numpy(choices)


door.hold(globals())
