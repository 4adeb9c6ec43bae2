"""Greedy removal with compensation: of the weights of a network, of a layer's rows, of whole units.

All three are one algorithm. There are B problems side by side, each with an inverse P = H⁻¹ (n, n),
its own or one for all, and weights W (r, n) that share it: r = 1 where single weights go, r = the
number of outputs where a unit goes with its whole outgoing column. A removal takes the column j of
the least cost ‖w_j‖² / P_jj, moves the others by −w_j P_j: / P_jj, and takes P_:j P_j: / P_jj from
the inverse (Hassibi & Stork, NIPS 1992; for rows Frantar & Alistarh, NeurIPS 2022, algorithm 1).

As it is written, a removal changes all n² entries of P. But the next choice needs P's diagonal
only, and the next step one row of it. With u_j = P_j: / √P_jj, P after k removals is P − Σ u uᵀ: a
Cholesky decomposition of P whose pivots the weights choose. So a block of removals leaves P alone,
carries the diagonal along, and makes the rows that it needs from P and the u's before it. At the
end of the block one product of matrices brings P up to date, for the columns that are left alone:
those that went are cut out, and the problem has become smaller. The arithmetic is that of the
textbook, but nearly all of it runs at the speed of a product of matrices.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128  # removals between two updates of the whole inverse


class State(NamedTuple):
    """B problems of m columns: ``P`` (B, m, m), ``W`` (B, r, m), ``left`` (B, m) their numbers."""

    P: Tensor
    W: Tensor
    left: Tensor


def start(P: Tensor, W: Tensor) -> State:
    """Nothing is removed yet; P (n, n) or (B, n, n), W (B, r, n)."""
    B, _, n = W.shape
    return State(P.expand(B, n, n), W, torch.arange(n, device=W.device).expand(B, n))


def removals(
    state: State, steps: int, *, protected: int = 0, outgoing: bool = True
) -> tuple[State, Tensor, Tensor]:
    """A block of removals: the problems afterwards, the columns in order, and what each cost, (B, k).

    k is less than ``steps`` where rounding has made a diagonal entry negative.
    """
    chosen, costs, U, W = _block(state, steps, state.W.shape[2] - protected, outgoing)
    B, k, m = U.shape
    order = state.left.gather(1, chosen)
    alive = torch.ones_like(state.left, dtype=torch.bool).scatter_(1, chosen, False)
    at = alive.nonzero()[:, 1].reshape(B, m - k)
    U = U.gather(2, at[:, None].expand(B, k, m - k))
    P = _compact(state.P, at).baddbmm_(U.mT, U, alpha=-1)
    W = W.gather(2, at[:, None].expand(B, W.shape[1], m - k))
    return State(P, W, state.left.gather(1, at)), order, costs


def units(
    inverse: Tensor, weights: Tensor, count: int, *, protected: int = 0, outgoing: bool = True
) -> Tensor:
    """The columns of W (r, n) in the order in which they go, (count,).

    Args:
        inverse: H⁻¹, (n, n).
        weights: W, (r, n); a row for each number that is made of the n columns.
        count: how many go.
        protected: so many of the last columns never go (a bias).
        outgoing: the cost is ‖w_j‖² / [H⁻¹]_jj; if False 1 / [H⁻¹]_jj, what is left of column j's
            inputs after regressing them on all others.

    >>> units(torch.eye(3), torch.tensor([[2.0, 1.0, 0.0]]), 2, protected=1).tolist()
    [1, 0]

    """
    state, order = start(inverse, weights[None]), [torch.arange(0, device=weights.device)]
    while (done := sum(map(len, order))) < count:
        steps = min(BLOCK, count - done)
        state, chosen, _ = removals(state, steps, protected=protected, outgoing=outgoing)
        if not chosen.shape[1]:
            raise ValueError("rounding made a cost negative; give more damping")
        order.append(chosen[0])
    return torch.cat(order)


def _block(
    state: State, steps: int, removable: int, outgoing: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Up to ``steps`` removals: which (B, k), at what cost, the u's (B, k, m), the weights after.

    The inverse is only read. The weights of what went are infinite: never the cheapest again.
    """
    P, W = state.P, state.W.clone()
    d = P.diagonal(dim1=1, dim2=2).clone()
    U = W.new_empty(len(W), steps, W.shape[2])
    row, size = torch.arange(len(W), device=W.device), torch.ones_like(d)
    chosen, costs = [state.left[:, 0]][:0], [d[:, 0]][:0]
    for j in range(steps):
        size = W.square().sum(1) if outgoing else size
        cost, q = (size[:, :removable] / d[:, :removable]).min(1)
        pivot = d[row, q]
        if not (pivot > 0).all():
            break
        u = P[row, q]
        if j:
            u = torch.baddbmm(u[:, None], U[row, :j, q][:, None], U[:, :j], alpha=-1)[:, 0]
        u = torch.mul(u, pivot.rsqrt()[:, None], out=U[:, j])
        W.sub_((W[row, :, q] * pivot.rsqrt()[:, None])[:, :, None] * u[:, None])
        d.addcmul_(u, u, value=-1)
        W[row, :, q], size[row, q], d[row, q] = torch.inf, torch.inf, 1.0
        chosen.append(q)
        costs.append(cost)
    k = len(chosen)
    empty = state.left[:, :0], d[:, :0]
    which = (torch.stack(chosen, 1), torch.stack(costs, 1)) if k else empty
    return *which, U[:, :k], W


def _compact(P: Tensor, at: Tensor) -> Tensor:
    """The rows and columns ``at`` (B, m) of each matrix."""
    return torch.stack([p[i][:, i] for p, i in zip(P, at, strict=True)])
