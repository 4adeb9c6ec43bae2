"""Optimal Brain Surgeon: remove a weight and let all others make up for it.

Near a minimum the loss rises by ½ δᵀHδ for a step δ of all weights. OBS removes the weight whose
removal costs least after the best step of all the others. The formulas come first, then the plain
surgeon made of them. ``surgeon`` is the fast one, ``prune`` runs it on a network, ``prune_layers`` on
each row of each layer; they come from the engine.

The formulas trust the inverse that they are given; ``inverse``, ``remove`` and all that is built on
them check their input.

Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.criteria import pruner
from teachkit.core.selection import subsets
from teachkit.core.types import Batch, Loss, Masks
from teachkit.engine.dense import DENSE_LIMIT, curvature
from teachkit.engine.inverse import inverse, symmetric, vector
from teachkit.engine.layerwise import (
    prune_layer,
    prune_layer_pass,
    prune_layers,
    refit,
    refit_layers,
    trace_layer,
)
from teachkit.engine.surgeon import Removal, Trace, surgeon
from teachkit.engine.surgery import prune

__all__ = [
    "Removal",
    "Trace",
    "curvature",
    "downdate",
    "exhaustive",
    "inverse",
    "prune",
    "prune_layer",
    "prune_layer_pass",
    "prune_layers",
    "refit",
    "refit_layers",
    "remove",
    "saliencies",
    "surgeon",
    "surgeon_naive",
    "trace_layer",
    "update",
]


def saliencies(weights: Tensor, inverse: Tensor) -> Tensor:
    """L_q = w_q² / (2 [H⁻¹]_qq): the rise of the loss when weight q goes and the others adapt, (..., n).

    A weight that is gone already (row and column q of the inverse are zero) has an infinite one.
    Source: Hassibi & Stork 1992, equation 5.

    >>> saliencies(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]])).tolist()
    [0.5, 0.25]
    """
    _square(weights, inverse)
    d = inverse.diagonal(dim1=-2, dim2=-1)
    if (d < 0).any():
        raise ValueError(f"the inverse has a negative diagonal entry, {float(d.min()):.3g}")
    return torch.where(d > 0, weights**2 / (2 * d), torch.inf)


def update(weights: Tensor, inverse: Tensor, q: int) -> Tensor:
    """δ = −(w_q / [H⁻¹]_qq) H⁻¹ e_q: the step that removes weight q at the least cost, (..., n).

    Its entry q is exactly −w_q. Source: Hassibi & Stork 1992, equation 5.

    >>> update(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), 1).tolist()
    [0.5, -1.0]
    """
    _square(weights, inverse)
    p = _column(inverse, q)
    return -weights[..., q, None] * (p / p[..., q, None])


def downdate(inverse: Tensor, q: int) -> Tensor:
    """The inverse of H without row and column q, as an (n, n) matrix with zeros there.

    P − p pᵀ / p_q with the column p = P e_q: n² operations instead of n³ for a new inverse.

    >>> downdate(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), 1).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    p = _column(inverse, q)
    smaller = inverse - torch.outer(p, p / p[q])
    smaller[q, :] = smaller[:, q] = 0.0
    return smaller


def surgeon_naive(H: Tensor, weights: Tensor, k: int) -> Removal:
    """Remove k weights, the one with the least saliency first: the formulas in a loop, O(k n²).

    >>> surgeon_naive(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([1.0, 1.0]), 1).order
    tensor([1])
    """
    w, P, order, rises = vector(weights, H), inverse(H), [], []
    checks.whole("k", k, 0, len(w))
    for _ in range(k):
        cost, q = saliencies(w, P).min(0)
        w, P = w + update(w, P, int(q)), downdate(P, int(q))
        order.append(int(q))
        rises.append(float(cost))
    at = torch.tensor(order, dtype=torch.int64, device=w.device)
    return Removal(w, at, torch.tensor(rises, device=w.device))


def remove(
    weights: Tensor, inverse: Tensor, positions: Sequence[int] | Tensor
) -> tuple[Tensor, float]:
    """Remove several weights S at once: δ = −P[:, S] P[S, S]⁻¹ w_S, with P = H⁻¹.

    Returned are the weights afterwards (n,), exactly zero at S, and the predicted rise
    ½ w_Sᵀ P[S, S]⁻¹ w_S. S are whole numbers without repeats; P is positive definite but for the
    rows and columns of weights that are gone, which are zero.

    >>> remove(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), [0, 1])[0].tolist()
    [0.0, 0.0]
    """
    P = symmetric("inverse", inverse).double()
    w, S = vector(weights, P), _positions(positions, len(weights))
    forces = torch.cholesky_solve(w[S, None], _factor(P, S))[:, 0]
    after = w - P[:, S] @ forces
    after[S] = 0.0
    return after.to(weights.dtype), float(0.5 * w[S] @ forces)


def exhaustive(H: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All sets of k weights and what removing each costs after the best update of the others.

    The yardstick for :func:`surgeon`: ½ w_Sᵀ P[S, S]⁻¹ w_S with P = H⁻¹ for every set S. Sets
    (C(n, k), k) with k from 1 to n ≤ 20, and costs (C(n, k),); the best is ``sets[costs.argmin()]``.

    >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> exhaustive(H, torch.tensor([1.0, 1.0]), 1)[1]
    tensor([0.5000, 0.2500])
    """
    w, n = vector(weights, H), checks.whole("the number of weights", len(H), 1, 20)
    P = inverse(H)
    sets = torch.from_numpy(subsets(n, checks.whole("k", k, 1, n))).to(H.device)
    costs = [
        0.5 * (w[S] * torch.linalg.solve(P[S[:, :, None], S[:, None, :]], w[S])).sum(1)
        for S in torch.split(sets, 10_000)
    ]
    return sets, torch.cat(costs).to(weights.dtype)


def _factor(P: Tensor, S: Tensor) -> Tensor:
    """The Cholesky factor of P[S, S], where all of P is the inverse of a positive definite matrix."""
    alive = P.diagonal() != 0
    rounding = 1e-10 * P.abs().max() * torch.eye(len(P), dtype=P.dtype, device=P.device)
    _, failed = torch.linalg.cholesky_ex((P + rounding)[alive][:, alive])
    L: Tensor
    L, gone = torch.linalg.cholesky_ex(P[S][:, S])
    if int(failed) or int(gone):
        low = float(torch.linalg.eigvalsh(P[S][:, S] if int(gone) else P)[0])
        what = (
            f"at the positions {S.tolist()}" if int(gone) else "as the inverse of a minimum's H is"
        )
        raise ValueError(
            f"inverse must be positive definite {what}; its smallest eigenvalue is {low:.3g}"
        )
    return L


def _square(weights: Tensor, inverse: Tensor) -> None:
    n = weights.shape[-1:]
    if inverse.shape[-2:] != (*n, *n) or inverse.shape[:-2] not in ((), weights.shape[:-1]):
        shapes = f"{tuple(weights.shape)} and {tuple(inverse.shape)}"
        raise ValueError(f"weights (..., n) need an inverse (..., n, n), got {shapes}")


def _column(inverse: Tensor, q: int) -> Tensor:
    """H⁻¹ e_q, of a weight that is still there."""
    checks.whole("q", q, 0, inverse.shape[-1] - 1)
    if not (inverse[..., q, q] > 0).all():
        lowest = float(inverse[..., q, q].min())
        raise ValueError(f"inverse[{q}, {q}] is {lowest:.3g}: weight {q} is gone already")
    return inverse[..., q]


def _positions(positions: Sequence[int] | Tensor, n: int) -> Tensor:
    """Positions as a vector of different whole numbers from 0 to n − 1."""
    S = torch.as_tensor(positions)
    if S.numel() and (S.dtype == torch.bool or S.is_floating_point()):
        raise TypeError(f"positions must be whole numbers, got {S.dtype}")
    S = S.long().reshape(-1)
    if len(S) and not 0 <= int(S.min()) <= int(S.max()) < n:
        raise ValueError(f"positions must lie from 0 to {n - 1}, got {S.tolist()}")
    if len(set(S.tolist())) < len(S):
        raise ValueError(f"positions must differ, got {S.tolist()}")
    return S


def _by_layers(
    model: nn.Module, batch: Batch, sparsity: float, *, loss: Loss = cross_entropy, **ways: Any
) -> tuple[nn.Module, Masks]:
    """:func:`prune_layers`, which knows of no loss."""
    return prune_layers(model, batch, sparsity, **ways)


# None looks at a label: Gauss-Newton, which `prune` takes unless asked, needs none with cross-entropy.
_enter = partial(pruner, needs=("data", "second order"))
_enter("OBS", passes=200, source="Hassibi & Stork 1992", limit=DENSE_LIMIT)(prune)
_LAYERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("OBS by layers", "Frantar & Alistarh 2022", "global", {"scope": "global"}),
    ("OBS by layers, each", "Frantar & Alistarh 2022", "layer", {}),
    ("OBS in one pass", "Frantar & Alistarh 2023", "layer", {"method": "pass"}),
)
for _name, _source, _scope, _ways in _LAYERS:
    _enter(_name, passes=1, source=_source, scope=_scope)(partial(_by_layers, **_ways))


door.hold(globals())
