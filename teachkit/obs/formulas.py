"""The formulas of Optimal Brain Surgeon: which weight can go, and how the others make up for it.

Near a minimum the loss rises by ½ δᵀHδ for a step δ of all weights. OBS removes the weight whose
removal costs least after the best step of all the others.
Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from teachkit.core import checks


def inverse(H: Tensor, *, damping: float = 0.0) -> Tensor:
    """(H + λI)⁻¹ with λ = damping · mean |H_ii|, by Cholesky in float64.

    Args:
        H: symmetric, (n, n).
        damping: 0 or more, relative to the mean of the diagonal's absolute values (to 1 where that
            is zero).

    Raises:
        ValueError: H + λI is not positive definite; the message says what damping would help.

    >>> inverse(torch.tensor([[2.0, 1.0], [1.0, 1.0]])).round(decimals=4).tolist()
    [[1.0, -1.0], [-1.0, 2.0]]

    """
    A = damped(H, damping)
    L, failed = torch.linalg.cholesky_ex(A)
    if int(failed) or (len(L) and float(L.diagonal().min()) ** 2 < 1e-15 * float(A.abs().max())):
        low = float(torch.linalg.eigvalsh(A)[0])
        enough = damping + max(-low, 0.0) / unit(H) + 1e-6
        raise ValueError(
            f"H is not positive definite: its smallest eigenvalue is {low:.3g}. "
            f"A damping of {1.1 * enough:.2g} or more (relative to H's diagonal) helps"
        )
    return torch.cholesky_inverse(L)


def saliencies(weights: Tensor, inverse: Tensor) -> Tensor:
    """L_q = w_q² / (2 [H⁻¹]_qq): the rise of the loss when weight q goes and the others adapt, (n,).

    A weight that is gone already (row and column q of the inverse are zero) has an infinite one.
    Source: Hassibi & Stork 1992, equation 5.

    >>> saliencies(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]])).tolist()
    [0.5, 0.25]
    """
    d = _checked(weights, inverse).diagonal()
    if (d < 0).any():
        raise ValueError(f"the inverse has a negative diagonal entry, {float(d.min()):.3g}")
    return torch.where(d > 0, weights**2 / (2 * d), torch.inf)


def update(weights: Tensor, inverse: Tensor, q: int) -> Tensor:
    """δw = −(w_q / [H⁻¹]_qq) H⁻¹ e_q: the step that removes weight q at the least cost, (n,).

    Its entry q is exactly −w_q. Source: Hassibi & Stork 1992, equation 5.

    >>> update(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), 1).tolist()
    [0.5, -1.0]
    """
    P = _checked(weights, inverse)
    _alive(P, q)
    return -weights[q] * (P[:, q] / P[q, q])


def downdate(inverse: Tensor, q: int) -> Tensor:
    """The inverse of H without row and column q, as an (n, n) matrix with zeros there.

    P − p pᵀ / p_q with the column p = P e_q: n² operations instead of n³ for a new inverse.

    >>> downdate(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), 1).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    _alive(inverse, q)
    p = inverse[:, q]
    smaller = inverse - torch.outer(p, p / p[q])
    smaller[q, :] = smaller[:, q] = 0.0
    return smaller


def remove(
    weights: Tensor, inverse: Tensor, positions: Sequence[int] | Tensor
) -> tuple[Tensor, float]:
    """Remove several weights S at once: δ = −P[:, S] P[S, S]⁻¹ w_S, with P = H⁻¹.

    Args:
        weights: (n,).
        inverse: H⁻¹, (n, n).
        positions: S, whole numbers without repeats.

    Returns:
        The weights afterwards, exactly zero at S, and the predicted rise ½ w_Sᵀ P[S, S]⁻¹ w_S.

    >>> remove(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), [0, 1])[0].tolist()
    [0.0, 0.0]

    """
    P = _checked(weights, inverse).double()
    S = _positions(positions, len(weights))
    forces = torch.linalg.solve(P[S][:, S], weights[S].double())
    after = weights.double() - P[:, S] @ forces
    after[S] = 0.0
    return after.to(weights.dtype), float(0.5 * weights[S].double() @ forces)


def matrix(name: str, H: Tensor) -> Tensor:
    """A finite, square, symmetric matrix."""
    checks.finite(name, H)
    if H.ndim != 2 or H.shape[0] != H.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {tuple(H.shape)}")
    gap = float((H - H.T).abs().max()) if len(H) else 0.0
    if gap > 1e-3 * float(H.abs().max() if len(H) else 1.0):
        raise ValueError(f"{name} must be symmetric, but entries differ by {gap:.3g} from {name}ᵀ")
    return H


def vector(weights: Tensor, H: Tensor) -> Tensor:
    """The weights in float64, one for each row of H."""
    if checks.finite("weights", weights).shape != H.shape[:1]:
        raise ValueError(
            f"weights must have shape ({len(H)},) to fit H, got shape {tuple(weights.shape)}"
        )
    return weights.detach().double()


def _checked(weights: Tensor, P: Tensor) -> Tensor:
    vector(weights, matrix("inverse", P))
    return P


def _alive(P: Tensor, q: int) -> None:
    checks.whole("q", q, 0, len(matrix("inverse", P)) - 1)
    if not P[q, q] > 0:
        raise ValueError(f"inverse[{q}, {q}] is {float(P[q, q]):.3g}: weight {q} is gone already")


def damped(H: Tensor, damping: float) -> Tensor:
    """H + damping · mean |H_ii| · I, symmetric, in float64."""
    A = matrix("H", H).detach().double()
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be a number of 0 or more, got {damping!r}")
    A = (A + A.T) / 2
    A.diagonal().add_(damping * unit(H))
    return A


def unit(H: Tensor) -> float:
    """What damping is relative to: the mean of |H_ii|, or 1 where that is zero."""
    size = float(H.diagonal().abs().mean()) if len(H) else 0.0
    return size if size > 0 else 1.0


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
