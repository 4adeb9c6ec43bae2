"""Greedy removal with compensation: of the weights of a network, of a layer's rows, of whole units.

All three are one algorithm. There are B problems side by side, each with an inverse P = H⁻¹ (n, n),
its own or one for all, and weights W (r, n) that share it: r = 1 where single weights go, r = the
number of outputs where a unit goes with its whole outgoing column. A removal takes the column j of
the least cost ‖w_j‖² / P_jj, moves the others by −w_j P_j: / P_jj, and takes P_:j P_j: / P_jj from
the inverse (Hassibi & Stork, NIPS 1992; for rows Frantar & Alistarh, NeurIPS 2022, algorithm 1).

A removal changes all n² entries of P. But the next choice needs P's diagonal only, and the next step
one row. With u_j = P_j: / √P_jj, P after k removals is P − Σ u uᵀ: a Cholesky decomposition whose
pivots the weights choose. So a block of removals leaves P alone, carries the diagonal along, and makes
the rows that it needs from P and the u's. Then one product of matrices brings P up to date, for the
columns left alone. 32 problems together in blocks of 128 fill the processor's cache and no more.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.engine.inverse import damped, inverse, vector

BLOCK = 128  # removals between two updates of the whole inverse
TOGETHER = 32  # rows of a layer that are traced side by side
STORE = 2**25  # entries of their inverses, 268 MB: wide layers take fewer rows together
DRIFT = 1e-6  # relative residual of the inverse beyond which it is computed anew


class Removal(NamedTuple):
    """Weights after k removals (n,), the positions in order (k,), the rise of the loss of each (k,)."""

    weights: Tensor
    order: Tensor
    increases: Tensor


class Trace(NamedTuple):
    """In which order each row loses its weights, and what each removal adds to ‖Xw′ − Xw‖².

    ``order`` (out, in) holds input numbers, first removed first; ``losses`` (out, in) is float64.
    """

    order: Tensor
    losses: Tensor


class Elimination:
    """B problems that lose columns, a block at a time.

    They start from the inverses P (B, n, n), or one for all (n, n), and the weights W (B, r, n), which
    are never written to; ``store`` is room to work in, at least (B + 1, n · n). Of the m columns left
    ``left`` (B, m) holds the numbers that they had at first, ``P`` and ``W`` inverses and weights.
    """

    def __init__(self, P: Tensor, W: Tensor, store: Tensor | None = None) -> None:
        B, _, n = W.shape
        self.P, self.W = P.expand(B, n, n), W
        self.left = torch.arange(n, device=W.device).expand(B, n)
        self._store = W.new_empty(B + 1, n * n) if store is None else store

    def remove(
        self, steps: int, *, protected: int = 0, outgoing: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Remove so many columns from each problem: their numbers in order, and what each cost, (B, k).

        k is less than ``steps`` where rounding has made a diagonal entry negative. ``protected`` and
        ``outgoing`` are those of :func:`units`.
        """
        q, costs, U, W = self._block(steps, protected, outgoing)
        order = self.left.gather(1, q)
        alive = torch.ones_like(self.left, dtype=torch.bool).scatter_(1, q, False)
        at = alive.nonzero()[:, 1].reshape(len(W), U.shape[2] - U.shape[1])
        self.left, self.W, U = self.left.gather(1, at), _columns(W, at), _columns(U, at)
        self.P = self._compact(at).baddbmm_(U.mT, U, alpha=-1)
        return order, costs

    def _block(
        self, steps: int, protected: int, outgoing: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which columns go (B, k), at what cost, the u's (B, k, m), and the weights after that.

        P is only read. The weights of what has gone are infinite: never the cheapest again.
        """
        B, _, m = self.W.shape
        W, D = self.W.clone(), self.P.diagonal(dim1=1, dim2=2)[:, None].clone()
        U, row = W.new_empty(B, steps, m), torch.arange(B, device=W.device)[:, None]
        # One problem alone goes without the dimension B: a slice gives views, which is quicker.
        P, w, d, us = (A if B > 1 else A[0] for A in (self.P, W, D, U))
        less = torch.baddbmm if B > 1 else torch.addmm
        free, price = w[..., : m - protected], d[..., : m - protected]  # views: they follow
        size, wT, dT = torch.ones_like(price), w.mT, d.mT
        costs = [size[..., 0]]  # a first that does not count: also none can be stacked
        gone = [costs[0].long()]
        for k in range(steps):
            if outgoing:  # a sum over one row only would cost a call
                size = free.square() if W.shape[1] == 1 else free.square().sum(-2, keepdim=True)
            cost, best = (size / price).min(-1)
            q = (row, best) if B > 1 else slice(int(best), int(best) + 1)
            u, before = P[q], us[..., :k, :]
            if k:
                u = less(u, before.mT[q], before, alpha=-1)
            pivot = u.mT[q]
            if not float(pivot.min() if B > 1 else pivot) > 0:
                break
            u = torch.mul(u, scale := pivot.rsqrt(), out=us[..., k : k + 1, :])
            w.addcmul_((wT[q] * scale).mT, u, value=-1)
            d.addcmul_(u, u, value=-1)
            wT[q] = torch.inf
            dT[q] = 1.0
            if not outgoing:
                size.mT[q] = torch.inf
            gone.append(best)
            costs.append(cost)
        order, cost = (torch.stack(parts).flatten(1)[1:].T for parts in (gone, costs))
        return order, cost, U[:, : len(gone) - 1], W

    def _compact(self, at: Tensor) -> Tensor:
        """The rows and columns ``at`` (B, m) of each inverse, in the store that may hold it now."""
        B, m = at.shape
        small = self._store[:B, : m * m].view(B, m, m)
        half = self._store[-1, : m * self.P.shape[2]].view(m, self.P.shape[2])
        for P, columns, made in zip(self.P, at, small, strict=True):
            torch.index_select(P, 0, columns, out=half)
            torch.gather(half, 1, columns.expand(m, m), out=made)
        return small


def surgeon(
    H: Tensor, weights: Tensor, k: int, *, damping: float = 0.0, block: int = BLOCK
) -> Removal:
    """Remove k weights, the one with the least saliency first, each time with the best update.

    The same as ``saliencies``, ``update`` and ``downdate`` k times, in float64. The inverse is
    computed anew where rounding has spoiled it, and one Newton step ends it all.

    Args:
        H: the curvature, symmetric, (n, n).
        weights: (n,), at a minimum of the loss.
        k: how many go, 0 to n.
        damping: see :func:`inverse`.
        block: removals between two updates of the whole inverse.

    >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> surgeon(H, torch.tensor([1.0, 1.0]), 1)
    Removal(weights=tensor([1.5000, 0.0000]), order=tensor([1]), increases=tensor([0.2500]))

    """
    A, w = damped(H, damping), vector(weights, H)
    checks.whole("k", k, 0, len(w))
    checks.whole("block", block, 1)
    problem = Elimination(inverse(H, damping=damping), w[None, None])
    order, costs, exact = problem.left[0, :0], w[:0], _residual(A, problem)
    while len(order) < k:
        steps = min(block, k - len(order))
        gone, cost = problem.remove(steps)
        order, costs = torch.cat([order, gone[0]]), torch.cat([costs, cost[0]])
        if len(gone[0]) < steps or not _residual(A, problem) <= max(DRIFT, 10 * exact):
            problem = _renewed(A, w, order, problem)
            exact = _residual(A, problem)
    return Removal(_polished(A, w, problem).to(weights.dtype), order, (costs / 2).to(weights.dtype))


def units(
    inverse: Tensor, weights: Tensor, count: int, *, protected: int = 0, outgoing: bool = True
) -> Tensor:
    """The columns of W (r, n) in the order in which they go, (count,).

    The last ``protected`` columns never go (a bias). The cost is ‖w_j‖² / [H⁻¹]_jj; unless ``outgoing``
    it is 1 / [H⁻¹]_jj, what is left of column j's inputs after regressing them on all others.

    >>> units(torch.eye(3), torch.tensor([[2.0, 1.0, 0.0]]), 2, protected=1).tolist()
    [1, 0]
    """
    return _all(Elimination(inverse, weights[None]), count, protected, outgoing)[0][0]


def rows(inverse: Tensor, W: Tensor) -> Trace:
    """The order in which each row of W (out, n) loses all its weights; at first they share one H⁻¹.

    >>> rows(torch.eye(2), torch.tensor([[3.0, 1.0], [1.0, 2.0]])).order.tolist()
    [[1, 0], [0, 1]]
    """
    n = W.shape[1]
    many = min(max(STORE // max(n, 1) ** 2, 1), TOGETHER, max(len(W), 1))
    store = W.new_empty(many + 1, n * n)
    parts = [Elimination(inverse, part[:, None], store) for part in torch.split(W, many)]
    return Trace(*map(torch.cat, zip(*(_all(part, n) for part in parts), strict=True)))


def _all(
    problem: Elimination, count: int, protected: int = 0, outgoing: bool = True
) -> tuple[Tensor, Tensor]:
    """Block after block of removals: the columns in order, and what each cost, (B, count)."""
    blocks = [(problem.left[:, :0], problem.W[:, 0, :0])]
    for start in range(0, count, BLOCK):
        steps = min(BLOCK, count - start)
        blocks.append(problem.remove(steps, protected=protected, outgoing=outgoing))
        if blocks[-1][0].shape[1] < steps:
            raise ValueError("rounding made a cost negative; give more damping")
    order, costs = zip(*blocks, strict=True)
    return torch.cat(order, 1), torch.cat(costs, 1)


def _columns(A: Tensor, at: Tensor) -> Tensor:
    """The columns ``at`` (B, m) of each matrix, (B, r, m)."""
    return A.gather(2, at[:, None].expand(-1, A.shape[1], -1))


def _residual(H: Tensor, problem: Elimination) -> float:
    """How far HP is from the identity over what is left: ‖H P v − v‖ / ‖v‖ for one vector v."""
    P, left = problem.P[0], problem.left[0]
    v = 1.0 - 2.0 * (torch.arange(len(P), device=P.device) % 2).to(P)
    whole = P.new_zeros(len(H)).index_put_((left,), P @ v)
    return float(((H @ whole)[left] - v).norm() / max(1.0, len(v) ** 0.5))


def _renewed(H: Tensor, w: Tensor, gone: Tensor, problem: Elimination) -> Elimination:
    """The same problem with inverse and weights computed anew."""
    left = problem.left[0]
    P = inverse(H[left][:, left])
    renewed = Elimination(P, (w[left] + P @ (H[left][:, gone] @ w[gone]))[None, None])
    renewed.left = problem.left
    return renewed


def _polished(H: Tensor, w: Tensor, problem: Elimination) -> Tensor:
    """All n weights, after one Newton step to the minimum over those left: rounding goes."""
    left, end = problem.left[0], torch.zeros_like(w)
    moved = end.index_put((left,), problem.W[0, 0]) - w
    return end.index_put((left,), problem.W[0, 0] - problem.P[0] @ (H @ moved)[left])
