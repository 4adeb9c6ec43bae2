"""The inverse of a curvature matrix, checked and damped: where every surgeon starts.

Measured curvatures are only nearly positive definite: their small eigenvalues drown in rounding, or
are negative away from a minimum. A number λ on the diagonal mends that. It is given relative to the
mean of the diagonal, so that it means the same whatever the units of the loss. All is computed in
float64: an inverse loses as many digits as the condition number has.
"""

import torch
from torch import Tensor

from teachkit.core import checks


def inverse(H: Tensor, *, damping: float = 0.0) -> Tensor:
    """(H + λI)⁻¹ with λ = damping · mean |H_ii|, by Cholesky in float64.

    Where the mean is zero, λ = damping. ValueError where H + λI is not positive definite; the message
    says what damping would help.

    >>> inverse(torch.tensor([[2.0, 1.0], [1.0, 1.0]])).round(decimals=4).tolist()
    [[1.0, -1.0], [-1.0, 2.0]]
    """
    A = damped(H, damping)
    L, failed = torch.linalg.cholesky_ex(A)
    if int(failed) or (len(L) and float(L.diagonal().min()) ** 2 < 1e-15 * float(A.abs().max())):
        low = float(torch.linalg.eigvalsh(A)[0])
        enough = damping + max(-low, 0.0) / _unit(H) + 1e-6
        raise ValueError(
            f"H is not positive definite: its smallest eigenvalue is {low:.3g}. "
            f"A damping of {1.1 * enough:.2g} or more (relative to H's diagonal) helps"
        )
    return torch.cholesky_inverse(L)


def damped(H: Tensor, damping: float) -> Tensor:
    """H + damping · mean |H_ii| · I, symmetric, in float64.

    >>> damped(torch.tensor([[2.0, 1.0], [1.0, 4.0]]), 0.5).tolist()
    [[3.5, 1.0], [1.0, 5.5]]
    """
    A = symmetric("H", H).detach().double()
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be a number of 0 or more, got {damping!r}")
    A = (A + A.T) / 2
    A.diagonal().add_(damping * _unit(H))
    return A


def symmetric(name: str, H: Tensor) -> Tensor:
    """Return a finite, square, symmetric matrix."""
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


def _unit(H: Tensor) -> float:
    """What damping is relative to: the mean of |H_ii|, or 1 where that is zero."""
    size = float(H.diagonal().abs().mean()) if len(H) else 0.0
    return size if size > 0 else 1.0
