"""What the kept weights of a layer become, from H = XᵀX alone: least squares, and a single pass."""

import torch
from torch import Tensor

from teachkit import masks
from teachkit.obs.layer_trace import BLOCK, damped, inverted


def refit_gram(W: Tensor, H: Tensor, mask: Tensor, damping: float) -> Tensor:
    """As :func:`refit`, from H (in, in) in place of the inputs; all in float64."""
    A, support = damped(H, damping), mask & (W != 0)
    slope = W.masked_fill(support, 0.0) @ A
    width = max(int(support.sum(1).max()), 1)
    parts = [
        _solve(A, rows, right)
        for rows, right in zip(
            torch.split(support, max(1, 2**24 // width**2)),
            torch.split(slope, max(1, 2**24 // width**2)),
            strict=True,
        )
    ]
    return (W + torch.cat(parts)).masked_fill(~support, 0.0)


def pass_gram(W: Tensor, H: Tensor, sparsity: float, damping: float) -> Tensor:
    """As :func:`prune_layer_pass`, from H (in, in) in place of the inputs; all in float64."""
    U = torch.linalg.cholesky(inverted(damped(H, damping), damping), upper=True)
    moved, old = W.clone(), W == 0
    cheap = old.double() + (H.diagonal() <= 0)  # old zeros go first, then dead inputs
    quota = max(masks.removed(W.numel(), sparsity) - int(old.sum()), 0)
    done = spent = 0
    for start in range(0, W.shape[1], BLOCK):
        cols = slice(start, min(start + BLOCK, W.shape[1]))
        done += int((~old[:, cols]).sum())
        due = round(quota * done / max(int((~old).sum()), 1))
        cost = (moved[:, cols] / U.diagonal()[cols]).square().masked_fill(cheap[:, cols] > 0, 0.0)
        cost -= old[:, cols].double()
        keep = cost.numel() - (due - spent) - int(old[:, cols].sum())
        kept = masks.keep_quota({"": cost}, {"": keep})[""] & ~old[:, cols]
        spent = due
        errors = _sweep(moved[:, cols], kept, U[cols, cols])
        moved[:, cols.stop :] -= errors @ U[cols, cols.stop :]
    return moved


def _solve(A: Tensor, support: Tensor, slope: Tensor) -> Tensor:
    """For each row the δ on its support K with A_KK δ_K = slope_K; (rows, in)."""
    width = int(support.sum(1).max())
    at = (~support).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    used = support.gather(1, at)
    unused = torch.diag_embed((~used).double())
    K = A[at[:, :, None], at[:, None]] * (used[:, :, None] & used[:, None]) + unused
    factor, failed = torch.linalg.cholesky_ex(K)
    if failed.any():
        raise ValueError(
            f"H = XᵀX of the kept inputs is singular in {int((failed > 0).sum())} rows; give more "
            "rows of inputs or more damping (1e-6 is usual)"
        )
    right = (slope.gather(1, at) * used)[:, :, None]
    return torch.zeros_like(slope).scatter_(1, at, torch.cholesky_solve(right, factor)[:, :, 0])


def _sweep(moved: Tensor, kept: Tensor, U: Tensor) -> Tensor:
    """Zero what is not kept, column by column, moving what is further right; returns the errors."""
    errors = torch.zeros_like(moved)
    for j in range(moved.shape[1]):
        errors[:, j] = moved[:, j].masked_fill(kept[:, j], 0.0) / U[j, j]
        moved[:, j:] -= errors[:, j, None] * U[j, j:]
        moved[:, j].masked_fill_(~kept[:, j], 0.0)
    return errors
