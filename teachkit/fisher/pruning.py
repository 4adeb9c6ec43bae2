"""WoodFisher: prune by w² / 2[F⁻¹]_qq and let the neighbours make up for what goes."""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from teachkit import masks
from teachkit.core import checks
from teachkit.core.types import Batch, Loss, Masks
from teachkit.fisher.distributions import Kind
from teachkit.fisher.estimates import gradient_chunks
from teachkit.fisher.inverse import block_sums, damping_of, factor

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
    kind: Kind = "empirical",
    update: Update = "joint",
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, Masks]:
    """Optimal Brain Surgeon with blocks of the Fisher matrix for the Hessian, no retraining.

    In each step: estimate the blocks F_b of the weights that are left; remove those with the
    smallest w_q² / 2[F⁻¹]_qq over all layers together; move the others of a block S to the
    minimum of ½ δᵀFδ, δ_S = F_SS⁻¹ F_SQ w_Q, with Q the ones that went. The sparsity rises along
    the cubic s_t = s − (s − s₀)(1 − t/T)³ (Zhu & Gupta 2017).

    Source: Singh & Alistarh, WoodFisher, NeurIPS 2020, who add up the updates that each removal
    would call for alone (``update="single"``).

    Args:
        model: any module whose samples do not mix; it is unchanged.
        batch: (x, y) for the gradients.
        sparsity: fraction of zeros over all prunable weights; exactly round(sparsity · n) go.
        loss: a mean loss.
        block: b, how many neighbouring weights (of all, in order, flattened) form a block; the
            blocks take n · b numbers.
        damping: λ, in units of F, added to the diagonal. A large one ranks by magnitude. F shrinks
            as a network fits, so what is large depends on the network.
        steps: T; F is estimated anew in each.
        kind: which Fisher matrix, see :func:`teachkit.fisher.gradients`.
        update: "joint" as above, "single", or "none" (only the masks).
        generator: draws the labels where kind is "sampled".

    Returns:
        A new model, zero where its masks are False, and the masks. Weights that are zero stay so.

    Raises:
        ValueError: damping 0 and a singular block, an unknown update, or blocks of more than 4 GB.

    """
    x, _ = checks.batch(batch)
    target = checks.fraction("sparsity", sparsity)
    checks.whole("steps", steps, 1)
    checks.whole("block", block, 1)
    damping = damping_of(damping)
    if update not in get_args(Update):
        raise ValueError(f"update must be one of {get_args(Update)}, got {update!r}")
    pruned = copy.deepcopy(checks.model(model, x)).eval()
    weights = masks.prunable(pruned)
    if not weights:
        return pruned, {}
    start = min(masks.sparsity(masks.nonzero(pruned)), target)
    for t in range(1, steps + 1):
        now = target - (target - start) * (1 - t / steps) ** 3
        w = torch.cat([each.detach().reshape(-1) for each in weights.values()]).double()
        F = blocks(pruned, batch, loss, block=block, kind=kind, generator=generator)
        saliency = saliencies(F, w, damping)
        kept = masks.keep_top(masks.split(saliency, weights), now)
        keep = torch.cat([mask.reshape(-1) for mask in kept.values()])
        w = updated(F, w, keep, damping, update)
        with torch.no_grad():
            for name, value in masks.split(w, weights).items():
                weights[name].copy_(value)
    return pruned, kept


def blocks(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    block: int = 50,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The diagonal blocks of the Fisher matrix, (⌈n/b⌉, b, b), float64, without storing the gradients.

    Args:
        model: any module.
        batch: (x, y).
        loss: a mean loss.
        block: b, how many neighbouring weights form a block.
        kind: which Fisher matrix.
        generator: draws the labels where kind is "sampled".

    """
    n = sum(w.numel() for w in masks.prunable(model).values())
    b = min(checks.whole("block", block, 1), n)
    size = 8 * n * b
    if size > BLOCK_LIMIT:
        raise ValueError(
            f"{n} weights in blocks of {b} take {size / 1e9:.1f} GB; use smaller blocks"
        )
    total: Tensor | float = 0.0
    m = 0
    for G in gradient_chunks(model, batch, loss, kind=kind, generator=generator):
        total = total + block_sums(pad(G.double(), (0, -n % b)).reshape(len(G), -1, b))
        m += len(G)
    return total / m  # type: ignore[return-value]


def saliencies(F: Tensor, w: Tensor, damping: float) -> Tensor:
    """w_q² / 2[(F + λI)⁻¹]_qq for all weights (n,), −1 for those that are zero already."""
    L = factor(_regular(F, _in_blocks(w != 0, F)), damping)
    spread = torch.cholesky_inverse(L).diagonal(dim1=-2, dim2=-1).reshape(-1)[: len(w)]
    return torch.where(w == 0, -1.0, 0.5 * w**2 / spread)


def updated(F: Tensor, w: Tensor, keep: Tensor, damping: float, update: Update) -> Tensor:
    """The weights (n,) after removing those not kept: zero there, moved in the rest of the block."""
    gone, stay = _in_blocks(w * ~keep, F), _in_blocks(keep & (w != 0), F)
    if update == "joint":
        L = factor(_regular(F, stay), damping)
        step = torch.cholesky_solve(F @ gone[..., None], L)[..., 0]
    elif update == "single":
        A = torch.cholesky_inverse(factor(_regular(F, _in_blocks(w != 0, F)), damping))
        each = gone / A.diagonal(dim1=-2, dim2=-1)
        step = -(A @ each[..., None])[..., 0]
    else:
        step = torch.zeros_like(gone)
    return torch.where(keep & (w != 0), w + step.reshape(-1)[: len(w)], 0.0)


def _in_blocks(values: Tensor, F: Tensor) -> Tensor:
    """(n,) → (B, b), filled up with zeros."""
    return pad(values, (0, F.shape[0] * F.shape[1] - len(values))).reshape(F.shape[:2])


def _regular(F: Tensor, stay: Tensor) -> Tensor:
    """F restricted to the weights that stay, with ones on the rest of the diagonal."""
    inside = F * (stay[:, :, None] & stay[:, None])
    return inside + torch.diag_embed((~stay).to(F.dtype))
