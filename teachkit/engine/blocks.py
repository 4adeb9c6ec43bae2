"""WoodFisher: Optimal Brain Surgeon with the diagonal blocks of a Fisher matrix for the Hessian.

The whole matrix of n weights takes n² numbers; cut into blocks of b neighbouring weights it takes
n · b, and what lies between different blocks is dropped. What makes it fast:

- **Forming.** The gradients come a few at a time (``engine.gradients``), cut into blocks (m, B, b).
  One batched product adds each chunk to all B blocks, and no gradient is kept.
- **Inverting.** One batched Cholesky factorization inverts all blocks. The paper's recursion
  (``fisher.recursion``) rewrites every block for every gradient, m · n · b numbers through memory.
- **Removing.** A block that loses the weights Q and keeps S needs F_SS⁻¹, with another S in each.
  With rows and columns outside S replaced by those of the identity, all blocks keep their size and
  are factorized together. Weights that are zero at the start count as removed in the same way.

Everything is float64, whatever the network is.
"""

from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from teachkit.core import bars, checks, ranking
from teachkit.core.copies import independent_copy
from teachkit.core.types import Batch, Loss, Masks, Params
from teachkit.core.weights import nonzero, prunable, split
from teachkit.engine.dense import refuse_large
from teachkit.engine.gradients import LabelOptions, gradient_chunks, mean

BLOCK_LIMIT = 4e9  # bytes
Update = Literal["joint", "single", "none"]


def prune(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    loss: Loss = cross_entropy,
    block: int = 50,
    damping: float = 1e-4,
    steps: int = 1,
    update: Update = "joint",
    **labels: Unpack[LabelOptions],
) -> tuple[nn.Module, Masks]:
    """Optimal Brain Surgeon with blocks of the Fisher matrix for the Hessian, no retraining.

    In each step: estimate the blocks of the weights that are left; remove those with the smallest
    w_q² / 2[F⁻¹]_qq over all layers; move the others of a block S to the minimum of ½ δᵀFδ,
    δ_S = F_SS⁻¹ F_SQ w_Q, with Q the ones that went. The sparsity rises along the cubic
    s_t = s − (s − s₀)(1 − t/T)³ (Zhu & Gupta 2017).

    Source: Singh & Alistarh, WoodFisher, NeurIPS 2020, who add up the updates that each removal
    would call for alone (``update="single"``).

    Args:
        model: any module whose samples do not mix; it is unchanged. Weights that are zero stay so.
        batch: (x, y) for the gradients.
        sparsity: fraction of zeros over all prunable weights; exactly round(sparsity · n) go.
        loss: a mean loss.
        block: b, how many neighbouring weights (of all, in order, flattened) form a block.
        damping: λ, in units of F, added to the diagonal. A large one ranks by magnitude; F shrinks
            as a network fits, so what is large depends on the network.
        steps: T; F is estimated anew in each.
        update: "joint" as above, "single", or "none" (only the masks).
        labels: ``kind``, which Fisher matrix, and ``generator``: see :func:`teachkit.fisher.gradients`.

    Raises:
        ValueError: damping 0 and a singular block, an unknown update, or blocks of more than 4 GB.

    """
    x, _ = checks.batch(batch)
    target = checks.fraction("sparsity", sparsity)
    checks.whole("steps", steps, 1)
    damping = checks.number("damping", damping)
    _refuse_unknown(update)
    pruned = independent_copy(checks.model(model, x)).eval()
    weights, kept = prunable(pruned), nonzero(pruned)
    if not weights:
        return pruned, {}
    start = min(ranking.sparsity(kept), target)
    for t in bars.bar(range(1, steps + 1), "steps"):
        F = blocks(pruned, batch, loss, block=block, **labels)
        now = target - (target - start) * (1 - t / steps) ** 3
        kept = _step(weights, F, now, damping, update)
    return pruned, kept


def _step(weights: Params, F: Tensor, sparsity: float, damping: float, update: Update) -> Masks:
    """Remove weights up to a sparsity, in place; the masks."""
    w = torch.cat([each.detach().reshape(-1) for each in weights.values()]).double()
    kept = ranking.keep_top(split(saliencies(F, w, damping), weights), sparsity)
    keep = torch.cat([mask.reshape(-1) for mask in kept.values()])
    with torch.no_grad():
        for name, value in split(updated(F, w, keep, damping, update), weights).items():
            weights[name].copy_(value)
    return kept


def blocks(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    block: int = 50,
    **labels: Unpack[LabelOptions],
) -> Tensor:
    """The diagonal blocks of the Fisher matrix, (⌈n/b⌉, b, b), float64, without storing the gradients.

    The arguments are those of :func:`prune`. Blocks of more than 4 GB are a ValueError.
    """
    n = sum(w.numel() for w in prunable(model).values())
    b = min(checks.whole("block", block, 1), n)
    if 8 * n * b > BLOCK_LIMIT:
        raise ValueError(
            f"{n} weights in blocks of {b} take {8e-9 * n * b:.1f} GB; use smaller blocks"
        )
    chunks = gradient_chunks(model, batch, loss, **labels)
    return mean(chunks, lambda G: block_sums(cut(G.double(), b)))


def saliencies(F: Tensor, w: Tensor, damping: float) -> Tensor:
    """w_q² / 2[(F + λI)⁻¹]_qq for all weights (n,), −1 for those that are zero already."""
    inverses = torch.cholesky_inverse(_factor_of(F, w != 0, damping))
    diagonal = inverses.diagonal(dim1=-2, dim2=-1).reshape(-1)[: len(w)]
    return torch.where(w == 0, -1.0, 0.5 * w**2 / diagonal)


def updated(F: Tensor, w: Tensor, keep: Tensor, damping: float, update: Update) -> Tensor:
    """The weights (n,) after removing those not kept: zero there, moved in the rest of the block."""
    _refuse_unknown(update)
    stays = keep & (w != 0)
    gone = cut((w * ~keep)[None], F.shape[-1])[0, ..., None]
    if update == "joint":
        step = torch.cholesky_solve(F @ gone, _factor_of(F, stays, damping))
    elif update == "single":
        A = torch.cholesky_inverse(_factor_of(F, w != 0, damping))
        step = -A @ (gone / A.diagonal(dim1=-2, dim2=-1)[..., None])
    else:
        step = torch.zeros_like(gone)
    return torch.where(stays, w + step.reshape(-1)[: len(w)], 0.0)


def _refuse_unknown(update: str) -> None:
    if update not in get_args(Update):
        raise ValueError(f"update must be one of {get_args(Update)}, got {update!r}")


def cut(G: Tensor, block: int) -> Tensor:
    """Cut the columns into blocks, (m, n) → (m, ⌈n/b⌉, b), the last one filled up with zeros.

    >>> cut(torch.arange(3)[None], 2)
    tensor([[[0, 1],
             [2, 0]]])
    """
    n = G.shape[1]
    b = min(checks.whole("block", block, 1), n)
    return pad(G, (0, -n % b)).reshape(len(G), -1, b)


def block_sums(parts: Tensor) -> Tensor:
    """Σ g gᵀ block by block: (m, B, b) → (B, b, b)."""
    across = parts.transpose(0, 1)
    sums: Tensor = across.mT @ across
    return sums


def factor(F: Tensor, damping: float) -> Tensor:
    """Cholesky factors of F + λI for a stack of matrices (B, b, b); singular ones are refused."""
    b, damping = F.shape[-1], checks.number("damping", damping)
    damped = F + damping * torch.eye(b, dtype=F.dtype, device=F.device)
    L, failed = torch.linalg.cholesky_ex(damped)
    pivots = L.diagonal(dim1=-2, dim2=-1) ** 2
    small = b * torch.finfo(F.dtype).eps * damped.diagonal(dim1=-2, dim2=-1).amax(-1)
    bad = (failed > 0) | (pivots.amin(-1) <= small)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} blocks of the Fisher matrix are singular with damping "
            f"{damping:g}; give a larger damping or more gradients than the {b} weights of a block"
        )
    factors: Tensor = L
    return factors


def checked(
    gradients: Tensor, damping: float, *, positive: bool = False, dense: bool = False
) -> Tensor:
    """The gradients, if they, the damping and the size of the matrix are allowed."""
    G = checks.finite("gradients", gradients)
    if G.ndim != 2 or not G.numel():
        raise ValueError(f"gradients must have shape (m, n), at least 1 by 1, got {tuple(G.shape)}")
    if not checks.number("damping", damping) and positive:
        raise ValueError(f"damping must be a finite number above 0, got {damping!r}")
    if dense:
        what = f"the Fisher matrix of {G.shape[1]} weights takes"
        refuse_large(G.shape[1], what, "use blocks, inverse_diagonal or solve")
    return G


def _factor_of(F: Tensor, stay: Tensor, damping: float) -> Tensor:
    """:func:`factor` of F where the weights (n,) stay, with ones on the rest of the diagonal."""
    s = cut(stay[None], F.shape[-1])[0]
    inside = F * (s[:, :, None] & s[:, None])
    return factor(inside + torch.diag_embed((~s).to(F.dtype)), damping)
