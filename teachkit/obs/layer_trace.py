"""The exact greedy order in which a layer's rows lose their weights, from H = XᵀX alone.

All rows share H at the start; after that each has its own inverse. Rows are traced in batches,
removals in blocks: within a block the rows of the inverse that are needed are made one by one, and
at its end one batched product brings the inverse of what is left up to date.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from teachkit import masks

ROWS = 16  # rows traced together: enough to amortise torch's calls, few enough for the cache
STORE = 2**25  # entries of their inverses, 268 MB: wide layers take fewer rows together
BLOCK = 128  # removals between two compactions of the inverse
WORST = 1e13  # condition number of H beyond which float64 has no digits left for the choice


class Trace(NamedTuple):
    """In which order each row loses its weights, and what each removal adds to ‖Xw′ − Xw‖².

    ``order`` (out, in) holds input numbers, first removed first; ``losses`` (out, in) is float64.
    """

    order: Tensor
    losses: Tensor


def trace_gram(W: Tensor, H: Tensor, damping: float) -> Trace:
    """As :func:`trace_layer`, from H (in, in) in place of the inputs; all in float64."""
    live = (H.diagonal() > 0).nonzero().reshape(-1)
    inverse = inverted(damped(H[live][:, live], damping), damping)
    many = min(max(STORE // max(len(live), 1) ** 2, 1), ROWS, max(len(W), 1))
    store = W.new_empty(many + 1, len(live) ** 2)
    parts = [_trace_rows(rows, inverse, store) for rows in torch.split(W[:, live], many)]
    order = torch.cat([live[part] for part, _ in parts])
    losses = torch.cat([part for _, part in parts])
    if not (losses >= 0).all():  # also NaN
        raise ValueError(f"rounding made a cost negative; give more damping, got {damping:g}")
    # The free ones, on dead inputs or zero already, go before all others, the smallest first.
    free = (W == 0) | (H.diagonal() <= 0)
    size = W.abs() / W.abs().max().clamp(min=torch.finfo(W.dtype).tiny)
    step = torch.arange(len(live), device=W.device).to(W).expand_as(order)
    when = torch.zeros_like(W).scatter_(1, order, step).where(~free, size - 2)
    cost = torch.zeros_like(W).scatter_(1, order, losses)
    order = when.argsort(dim=1, stable=True)
    return Trace(order, cost.gather(1, order))


def choose(
    weights: dict[str, Tensor], traces: dict[str, Trace], sparsity: float, scope: str
) -> dict[str, Tensor]:
    """The masks that remove exactly the asked number of weights, row by row from the traces' fronts.

    Args:
        weights: (out, in) each.
        traces: of the same keys; with scope "global" their losses must be in comparable units.
        sparsity: fraction to remove.
        scope: "row" (the same share of each row), "layer" or "global" (the smallest losses).

    """
    keys = {}
    for name, (order, losses) in traces.items():
        # Weights that are zero already go before all others. A removal waits for those before it
        # in its row: its key is the largest loss so far. Of equal keys keep_top keeps the first,
        # hence the flip.
        old = weights[name].gather(1, order) == 0
        keys[name] = losses.masked_fill(old, -1.0).cummax(1).values.flip(1)
    if scope == "row":
        kept = {name: _first(key, sparsity) for name, key in keys.items()}
    else:
        kept = masks.keep_top(keys, sparsity, scope)
    return {
        name: torch.zeros_like(kept[name]).scatter_(1, order, kept[name].flip(1))
        for name, (order, _) in traces.items()
    }


def damped(H: Tensor, damping: float) -> Tensor:
    """H + λI, λ = damping · mean of the diagonal over live inputs; dead inputs get a 1."""
    if not (isinstance(damping, (int, float)) and 0 <= damping < torch.inf):
        raise ValueError(f"damping must be a finite number of at least 0, got {damping!r}")
    diagonal = H.diagonal()
    live = diagonal > 0
    size = damping * float(diagonal.sum()) / max(int(live.sum()), 1)
    return H + torch.diag(torch.where(live, size, 1.0).to(H))


def inverted(A: Tensor, damping: float) -> Tensor:
    """A⁻¹ by Cholesky; refused where A is singular to working precision."""
    factor, failed = torch.linalg.cholesky_ex(A)
    inverse = torch.cholesky_inverse(factor) if not failed else A
    if failed or float(A.norm() * inverse.norm()) > WORST:
        raise ValueError(
            f"H = XᵀX of {len(A)} inputs is singular, so it has no inverse; give more rows of "
            f"inputs or more damping (1e-6 is usual), got damping={damping:g}"
        )
    return inverse


def _first(key: Tensor, sparsity: float) -> Tensor:
    """What a row keeps when all rows lose the same number from the end."""
    width = key.shape[1]
    keep = width - masks.removed(width, sparsity)
    return (torch.arange(width, device=key.device) < keep).expand_as(key)


def _trace_rows(W: Tensor, inverse: Tensor, store: Tensor) -> tuple[Tensor, Tensor]:
    """Trace a few rows that start from one inverse (in, in); ``store`` is room to work in."""
    rows, n = W.shape
    left = torch.arange(n, device=W.device).expand(rows, n)
    inverse = inverse.expand(rows, n, n)
    order, losses = [left[:, :0]], [W[:, :0]]
    while n := W.shape[1]:
        chosen, cost, U, moved = _remove(W, inverse, min(BLOCK, n))
        order.append(left.gather(1, chosen))
        losses.append(cost)
        alive = torch.ones_like(left, dtype=torch.bool).scatter_(1, chosen, False)
        at = alive.nonzero()[:, 1].reshape(rows, -1)
        if not at.shape[1]:
            break
        left, W = left.gather(1, at), moved.gather(1, at)
        U = U.gather(2, at[:, None].expand(rows, U.shape[1], at.shape[1]))
        inverse = _compact(inverse, at, store).baddbmm_(U.mT, U, alpha=-1)
    return torch.cat(order, 1), torch.cat(losses, 1)


def _remove(W: Tensor, inverse: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A block of removals: which, at what cost, the scaled rows u of the inverse, the weights after.

    Removing q takes u uᵀ from the inverse, u = [H⁻¹]_:q / √[H⁻¹]_qq, and w_q / √[H⁻¹]_qq · u from
    the weights. The inverse (rows, in, in) itself is only read; its diagonal is carried along.
    """
    moved, diagonal = W.clone(), inverse.diagonal(dim1=1, dim2=2).clone()
    U = W.new_empty(len(W), steps, W.shape[1])
    row = torch.arange(len(W), device=W.device)
    chosen, losses = [], []
    for j in range(steps):
        cost, q = (moved.square() / diagonal).min(1)
        u = inverse[row, q]
        if j:
            u = torch.baddbmm(u[:, None], U[row, :j, q][:, None], U[:, :j], alpha=-1)[:, 0]
        scale = diagonal[row, q].rsqrt()
        u = torch.mul(u, scale[:, None], out=U[:, j])
        moved.sub_(u * (moved[row, q] * scale)[:, None])
        diagonal.addcmul_(u, u, value=-1)
        moved[row, q], diagonal[row, q] = torch.inf, 1.0  # never the cheapest again
        chosen.append(q)
        losses.append(cost)
    return torch.stack(chosen, 1), torch.stack(losses, 1), U, moved


def _compact(inverse: Tensor, at: Tensor, store: Tensor) -> Tensor:
    """The rows and columns ``at`` of each matrix, gathered into the store that may hold it now."""
    rows, m = at.shape
    made = store[:rows, : m * m].view(rows, m, m)
    half = store[-1, : m * inverse.shape[2]].view(m, -1)
    for r in range(rows):
        torch.index_select(inverse[r], 0, at[r], out=half)
        torch.gather(half, 1, at[r].expand(m, m), out=made[r])
    return made
