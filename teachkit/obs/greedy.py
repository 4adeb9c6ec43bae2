"""The surgeon at work: many removals in a row, fast and in double precision."""

from typing import NamedTuple

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.obs.formulas import damped, inverse, vector

BLOCK = 128  # removals between two updates of the whole inverse
DRIFT = 1e-6  # relative residual of the inverse beyond which it is computed anew


class Removal(NamedTuple):
    """Weights after k removals (n,), the positions in order (k,), the rise of the loss of each (k,)."""

    weights: Tensor
    order: Tensor
    increases: Tensor


def surgeon(
    H: Tensor,
    weights: Tensor,
    k: int,
    *,
    damping: float = 0.0,
    block: int = BLOCK,
    drift: float = DRIFT,
) -> Removal:
    """Remove k weights, the one with the least saliency first, each time with the best update.

    The same as ``saliencies``, ``update`` and ``downdate`` k times. This is a Cholesky
    decomposition of H⁻¹ with the pivot argmin w²/d, d the diagonal: a removal needs one column of
    the inverse only, so the whole matrix is brought up to date once in ``block`` removals, by one
    product of matrices, and the removed rows are cut away. Everything is computed in float64.
    (Below some 500 weights a rank-one update of the whole matrix is faster, by milliseconds.)

    Args:
        H: the curvature, symmetric, (n, n).
        weights: (n,), at a minimum of the loss.
        k: how many go, 0 to n.
        damping: see :func:`inverse`.
        block: removals between two updates of the whole inverse.
        drift: relative residual of the inverse beyond which it is computed anew.

    Raises:
        ValueError: H is not positive definite, or something is NaN or infinite.

    >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> surgeon(H, torch.tensor([1.0, 1.0]), 1)
    Removal(weights=tensor([1.5000, 0.0000]), order=tensor([1]), increases=tensor([0.2500]))

    """
    H64, w0 = damped(H, damping), vector(weights, H)
    checks.whole("k", k, 0, len(w0))
    checks.whole("block", block, 1)
    state = _State(H64, w0, inverse(H, damping=damping))
    while len(state.order) < k:
        state.remove(min(block, k - len(state.order)))
        state.watch(drift)
    state.polish()
    order = torch.tensor(state.order, dtype=torch.long, device=weights.device)
    increases = torch.tensor(state.increases, dtype=weights.dtype, device=weights.device)
    return Removal(state.weights().to(weights.dtype), order, increases)


def exhaustive(H: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All sets of k weights and what removing each costs after the best update of the others.

    The yardstick for :func:`surgeon`: ½ w_Sᵀ P[S, S]⁻¹ w_S with P = H⁻¹ for every set S.

    Args:
        H: positive definite, (n, n), n at most 20.
        weights: (n,).
        k: how many go, 1 to n.

    Returns:
        Sets (C(n, k), k), and their costs (C(n, k),); the best is ``sets[costs.argmin()]``.

    >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> exhaustive(H, torch.tensor([1.0, 1.0]), 1)[1]
    tensor([0.5000, 0.2500])

    """
    w, n = vector(weights, H), checks.whole("the number of weights", len(H), 1, 20)
    P = inverse(H)
    sets = torch.combinations(torch.arange(n), checks.whole("k", k, 1, n))
    costs = [
        0.5 * (w[S] * torch.linalg.solve(P[S[:, :, None], S[:, None, :]], w[S])).sum(1)
        for S in torch.split(sets, 10_000)
    ]
    return sets, torch.cat(costs).to(weights.dtype)


class _State:
    """The inverse of the surviving block, and what has been removed so far.

    ``alive`` are the positions of the m survivors, ``P`` (m, m) their inverse, ``w`` (m,) their
    weights; ``H`` and ``w0`` stay as they were given.
    """

    def __init__(self, H: Tensor, w0: Tensor, P: Tensor) -> None:
        self.H, self.w0 = H, w0
        self.alive = torch.arange(len(w0), device=w0.device)
        self.order: list[int] = []
        self.increases: list[float] = []
        self.P, self.w = P, w0.clone()
        self.fresh = self.residual()
        self.stale = False

    def remove(self, count: int) -> None:
        """Remove up to ``count`` weights, then bring the inverse up to date and cut them away."""
        P, w, d = self.P, self.w, self.P.diagonal().clone()
        R = torch.empty(count, len(w), dtype=w.dtype, device=w.device)  # P now: P − RᵀR
        gone = torch.zeros_like(w)  # infinite where a weight has been removed
        taken = 0
        while taken < count:
            q = int((w * w / d + gone).argmin())
            p = torch.addmv(P[q], R[:taken].T, R[:taken, q], alpha=-1)
            pivot, force = float(p[q]), float(w[q]) / float(p[q])
            if pivot <= 0:  # lost to rounding: watch() computes the inverse anew
                self.stale = True
                break
            self.order.append(int(self.alive[q]))
            self.increases.append(0.5 * float(w[q]) * force)
            w.sub_(p, alpha=force)
            torch.div(p, pivot**0.5, out=R[taken])
            d.addcmul_(R[taken], R[taken], value=-1)
            w[q], d[q], gone[q] = 0.0, 1.0, torch.inf
            taken += 1
        left = (gone == 0).nonzero().reshape(-1)
        R = R[:taken, left]
        rest = P.index_select(0, left).index_select(1, left)
        self.P = rest.addmm_(R.T, R, alpha=-1)
        self.w, self.alive = w[left], self.alive[left]

    def residual(self) -> float:
        """How far HP is from the identity: ‖H P v − v‖ / ‖v‖ for one vector v."""
        v = 1.0 - 2.0 * (torch.arange(len(self.w), device=self.w.device) % 2).to(self.w)
        return float((self._product(self.P @ v) - v).norm() / max(1.0, len(v) ** 0.5))

    def watch(self, drift: float) -> None:
        """Compute the inverse and the weights anew if rounding errors have grown too large."""
        if not self.stale and self.residual() <= max(drift, 10 * self.fresh):
            return
        gone = torch.tensor(self.order, dtype=torch.long, device=self.w.device)
        H = self.H[self.alive]
        self.P = inverse(H[:, self.alive])
        self.w = self.w0[self.alive] + self.P @ (H[:, gone] @ self.w0[gone])
        self.fresh, self.stale = self.residual(), False

    def polish(self) -> None:
        """One Newton step to the minimum over the survivors takes away what rounding has left."""
        moved = self.weights() - self.w0
        self.w = self.w - self.P @ (self.H @ moved)[self.alive]

    def weights(self) -> Tensor:
        """All n weights, zero where removed."""
        return torch.zeros_like(self.w0).index_put_((self.alive,), self.w)

    def _product(self, v: Tensor) -> Tensor:
        """The surviving block of H times a vector of the survivors."""
        whole = torch.zeros_like(self.w0).index_put_((self.alive,), v)
        return (self.H @ whole)[self.alive]
