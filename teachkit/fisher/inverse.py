"""The inverse of the damped Fisher matrix F = λI + GᵀG / m, without an n × n matrix where possible.

G (m, n) holds one gradient per row, as :func:`teachkit.fisher.gradients` gives it.
"""

import math

import torch
from torch import Tensor

from teachkit.core import checks

DENSE_LIMIT = 5000  # weights; their matrix takes 200 MB in float64


def matrix(gradients: Tensor, damping: float = 0.0) -> Tensor:
    """F = λI + GᵀG / m, shape (n, n), for at most 5000 weights.

    >>> matrix(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([[5., 1.],
            [1., 2.]])
    """
    G, damping = _given(gradients, damping)
    n = G.shape[1]
    _refuse_dense(n)
    return G.T @ G / len(G) + damping * torch.eye(n, dtype=G.dtype)


def inverse(gradients: Tensor, damping: float) -> Tensor:
    """F⁻¹, shape (n, n), for at most 5000 weights: one block as large as everything."""
    _refuse_dense(_given(gradients, damping)[0].shape[1])
    return inverse_blocks(gradients, gradients.shape[1], damping)[0]


def recursion(gradients: Tensor, block: int, damping: float) -> Tensor:
    """F⁻¹ by blocks, gradient by gradient: the rank-one way, to read.

    Start with I/λ. Adding g gᵀ / m to a matrix changes its inverse A by a rank-one term
    (Sherman & Morrison 1950): A ← A − (A g)(A g)ᵀ / (m + gᵀ A g). Costs m products of a matrix and
    a vector per block, which memory bounds; :func:`inverse_blocks` finds the same faster.

    Source: Singh & Alistarh, WoodFisher, NeurIPS 2020, section 3.

    Args:
        gradients: G, (m, n).
        block: b, how many neighbouring weights form a block; the last one is filled up with
            gradients of zero.
        damping: λ > 0, in units of F.

    Returns:
        One inverse per block, (⌈n/b⌉, b, b).

    """
    G, damping = _given(gradients, damping, positive=True)
    parts = _cut(G, block)
    A = torch.eye(parts.shape[2], dtype=G.dtype).repeat(parts.shape[1], 1, 1) / damping
    for g in parts:
        Ag = torch.einsum("bij,bj->bi", A, g)
        scale = len(G) + (g * Ag).sum(1)
        A -= Ag[:, :, None] * Ag[:, None] / scale[:, None, None]
    return A


def inverse_blocks(gradients: Tensor, block: int, damping: float) -> Tensor:
    """F⁻¹ of every diagonal block, (⌈n/b⌉, b, b): form the blocks, then Cholesky, all at once.

    Args:
        gradients: G, (m, n).
        block: b, how many neighbouring weights form a block; what the last one lacks is filled up
            with gradients of zero.
        damping: λ ≥ 0, in units of F; 0 only where every block is regular.

    Raises:
        ValueError: a block is singular, as with fewer gradients than weights and no damping.

    >>> inverse_blocks(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), 1, 1.0).flatten()
    tensor([0.5000, 0.5000])

    """
    G, damping = _given(gradients, damping)
    F = block_sums(_cut(G, block)) / len(G)
    return _inverted(F, damping)


def block_sums(parts: Tensor) -> Tensor:
    """Σ g gᵀ block by block: (m, B, b) → (B, b, b)."""
    across = parts.transpose(0, 1)
    sums: Tensor = across.mT @ across
    return sums


def _inverted(F: Tensor, damping: float) -> Tensor:
    """(F + λI)⁻¹ of a stack of matrices."""
    inverses: Tensor = torch.cholesky_inverse(factor(F, damping))
    return inverses


def factor(F: Tensor, damping: float) -> Tensor:
    """Cholesky factors of F + λI for a stack of matrices (B, b, b); singular ones are refused."""
    damped = F + damping * torch.eye(F.shape[-1], dtype=F.dtype)
    L, failed = torch.linalg.cholesky_ex(damped)
    pivots = L.diagonal(dim1=-2, dim2=-1) ** 2
    small = F.shape[-1] * torch.finfo(F.dtype).eps * damped.diagonal(dim1=-2, dim2=-1).amax(-1)
    bad = (failed > 0) | (pivots.amin(-1) <= small)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} blocks of the Fisher matrix are singular with damping "
            f"{damping:g}; give a larger damping or more gradients than the {F.shape[-1]} weights of a block"
        )
    factors: Tensor = L
    return factors


def inverse_diagonal(gradients: Tensor, damping: float) -> Tensor:
    """The diagonal of the full inverse [F⁻¹]_qq, (n,), through the m × m Gram matrix G Gᵀ.

    Woodbury's identity: F⁻¹ = (I − Gᵀ(λmI + GGᵀ)⁻¹G) / λ. With the Cholesky factor L of
    λmI + GGᵀ, [F⁻¹]_qq = (1 − Σ_i (L⁻¹G)_iq²) / λ. Time m²n and memory mn instead of n³ and n².
    The subtraction loses digits where λ[F⁻¹]_qq is small: relative error about 10⁻¹⁶ / (λ[F⁻¹]_qq).

    Args:
        gradients: G, (m, n).
        damping: λ > 0, in units of F.

    >>> inverse_diagonal(torch.tensor([[1.0, 2.0]]), 1.0)  # F = [[2, 2], [2, 5]], determinant 6
    tensor([0.8333, 0.3333])

    """
    G, damping = _given(gradients, damping, positive=True)
    share = torch.linalg.solve_triangular(_gram(G, damping), G, upper=False)
    left: Tensor = 1 - (share * share).sum(0)
    return left / damping


def product(gradients: Tensor, vector: Tensor, damping: float = 0.0) -> Tensor:
    """F v = λv + Gᵀ(G v) / m for v of shape (n,) or (n, k), without F."""
    G, damping = _given(gradients, damping)
    v = _vector(vector, G)
    return damping * v + G.T @ (G @ v) / len(G)


def solve(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """F⁻¹ v = (v − Gᵀ(λmI + GGᵀ)⁻¹ G v) / λ for v of shape (n,) or (n, k), without F.

    Args:
        gradients: G, (m, n).
        vector: v.
        damping: λ > 0, in units of F.

    """
    G, damping = _given(gradients, damping, positive=True)
    v = _vector(vector, G)
    columns = v if v.ndim == 2 else v[:, None]
    inner = torch.cholesky_solve(G @ columns, _gram(G, damping))
    return ((columns - G.T @ inner) / damping).reshape(v.shape)


def _gram(G: Tensor, damping: float) -> Tensor:
    """The Cholesky factor of λmI + GGᵀ, (m, m)."""
    return factor((G @ G.T)[None], damping * len(G))[0]


def _cut(G: Tensor, block: int) -> Tensor:
    """Cut the columns into blocks, (m, n) → (m, ⌈n/b⌉, b), filled up with zeros."""
    n = G.shape[1]
    b = min(checks.whole("block", block, 1), n)
    return torch.nn.functional.pad(G, (0, -n % b)).reshape(len(G), -1, b)


def _given(gradients: Tensor, damping: float, positive: bool = False) -> tuple[Tensor, float]:
    G = checks.finite("gradients", gradients)
    if G.ndim != 2 or not G.numel():
        raise ValueError(f"gradients must have shape (m, n), at least 1 by 1, got {tuple(G.shape)}")
    return G, damping_of(damping, positive)


def damping_of(damping: float, positive: bool = False) -> float:
    """Return the damping if it is a finite number, and large enough."""
    allowed = "a finite number above 0" if positive else "a finite number of at least 0"
    if isinstance(damping, bool) or not isinstance(damping, (int, float)):
        raise TypeError(f"damping must be {allowed}, got {damping!r}")
    if not math.isfinite(damping) or damping < 0 or (positive and damping == 0):
        raise ValueError(f"damping must be {allowed}, got {damping!r}")
    return float(damping)


def _vector(vector: Tensor, G: Tensor) -> Tensor:
    v = checks.finite("vector", vector)
    if v.ndim not in (1, 2) or len(v) != G.shape[1]:
        raise ValueError(f"vector must have {G.shape[1]} rows, got shape {tuple(v.shape)}")
    return v


def _refuse_dense(n: int) -> None:
    if n > DENSE_LIMIT:
        raise ValueError(
            f"the Fisher matrix of {n} weights takes {8e-9 * n * n:.1f} GB; at most {DENSE_LIMIT} "
            "weights are allowed: use blocks, inverse_diagonal, product or solve"
        )
