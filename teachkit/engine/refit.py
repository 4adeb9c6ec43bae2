"""What a layer keeps and what becomes of it, from H = XᵀX alone: traces, masks, least squares, a pass.

A layer with inputs X (n, in) changes its output by X δ when a row of its weights changes by δ, and
‖X δ‖² = δᵀHδ is exactly quadratic, with one H for all rows. So all that is asked of the inputs is
H, in float64:

- The surgeon's **trace** of each row (:mod:`teachkit.engine.surgeon`) serves every sparsity: a
  prefix is the greedy choice, and least squares gives the weights at that point.
- **Masks** take weights from the fronts of the traces, whichever is cheapest.
- **Least squares** fits the kept weights of each row, many rows in one batched Cholesky.
- The **single pass** (Frantar & Alistarh, SparseGPT, ICML 2023, algorithm 1) decides on each input
  once, from left to right, with one inverse for all rows. What a column becomes is a function that it
  is given: zeros here, the nearest value of a grid in :mod:`teachkit.engine.rounding` (GPTQ).

Dead inputs, always zero, have no row in the inverse: their weights cost nothing and go first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.core.ranking import keep_n_of_m, keep_quota, keep_top, removed
from teachkit.engine.amounts import Pattern
from teachkit.engine.surgeon import Trace, rows

Settle = Callable[[int, Tensor], Tensor]
"""What the column j of a block becomes, (rows,), given as it is when all before it are settled."""

BLOCK = 128  # inputs that the single pass decides on at a time
WORST = 1e13  # condition number of H beyond which float64 has no digits left for the choice
SYSTEMS = 2**24  # entries of the least-squares systems solved together


def trace_gram(W: Tensor, H: Tensor, damping: float) -> Trace:
    """As ``trace_layer``, from H (in, in) in place of the inputs; all in float64."""
    live = (H.diagonal() > 0).nonzero().reshape(-1)
    order, losses = rows(inverted(damped(H[live][:, live], damping), damping), W[:, live])
    order = live[order]
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

    Scope "row" takes the same share of each row, "layer" and "global" the smallest losses; with
    "global" the losses must be in comparable units.
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
        kept = keep_top(keys, sparsity, scope)
    return {
        name: torch.zeros_like(kept[name]).scatter_(1, order, kept[name].flip(1))
        for name, (order, _) in traces.items()
    }


def refit_gram(W: Tensor, H: Tensor, mask: Tensor, damping: float) -> Tensor:
    """As ``refit``, from H (in, in) in place of the inputs; all in float64."""
    A, support = damped(H, damping), mask & (W != 0)
    slope = W.masked_fill(support, 0.0) @ A
    together = max(1, SYSTEMS // max(int(support.sum(1).max()), 1) ** 2)
    parts = zip(torch.split(support, together), torch.split(slope, together), strict=True)
    steps = torch.cat([_solve(A, *part) for part in parts])
    return (W + steps).masked_fill(~support, 0.0)


def pass_gram(W: Tensor, H: Tensor, sparsity: float, damping: float) -> Tensor:
    """As ``prune_layer_pass``, from H (in, in) in place of the inputs; all in float64."""
    return single_pass(W, H, sparsity, damping)[0]


def single_pass(
    W: Tensor, H: Tensor, asked: float | Pattern, damping: float
) -> tuple[Tensor, Tensor]:
    """The weights after the pass and what it kept; with n:m the choice falls group by group.

    The choice in a group of m inputs is made when the pass comes to it: what those further left have
    left to it to make up for is in its weights by then.
    """
    U, old = upper(H, damping), W == 0
    cheap = old.double() + (H.diagonal() <= 0)  # old zeros go first, then dead inputs
    kept = torch.ones_like(old)

    def saliency(part: Tensor, cols: slice) -> Tensor:
        cost = (part / U.diagonal()[cols]).square()
        return cost.masked_fill(cheap[:, cols] > 0, 0.0)

    if isinstance(asked, Pattern):
        n, m = asked

        def by_group(cols: slice, moved: Tensor) -> Settle:
            def settle(j: int, column: Tensor) -> Tensor:
                if j % m == 0:
                    at = slice(cols.start + j, cols.start + j + m)
                    cost = saliency(moved[:, j : j + m], at) - cheap[:, at]
                    kept[:, at] = keep_n_of_m({"": cost}, n, m)[""]
                return column.masked_fill(~kept[:, cols.start + j], 0.0)

            return settle

        return swept(W, U, by_group, max(BLOCK - BLOCK % m, m)), kept

    quota = max(removed(W.numel(), asked) - int(old.sum()), 0)
    done = spent = 0

    def by_block(cols: slice, moved: Tensor) -> Settle:
        nonlocal done, spent
        done += int((~old[:, cols]).sum())
        due = round(quota * done / max(int((~old).sum()), 1))
        cost = saliency(moved, cols) - old[:, cols].double()
        keep = cost.numel() - (due - spent) - int(old[:, cols].sum())
        kept[:, cols] = keep_quota({"": cost}, {"": keep})[""] & ~old[:, cols]
        spent = due
        return lambda j, column: column.masked_fill(~kept[:, cols.start + j], 0.0)

    return swept(W, U, by_block), kept


def upper(H: Tensor, damping: float) -> Tensor:
    """U with UᵀU = (H + λI)⁻¹: row j is column j of the inverse without the inputs before, over √P_jj."""
    U: Tensor = torch.linalg.cholesky(inverted(damped(H, damping), damping), upper=True)
    return U


def swept(
    W: Tensor, U: Tensor, decide: Callable[[slice, Tensor], Settle], block: int | None = None
) -> Tensor:
    """Settle W (out, in) column by column, from left to right, what is further right making up for it.

    ``decide`` gets a block of columns as it is when all before it are settled; it changes as the columns
    of the block are settled.
    """
    moved, block = W.clone(), block or BLOCK
    for start in range(0, W.shape[1], block):
        cols = slice(start, min(start + block, W.shape[1]))
        errors = _sweep(moved[:, cols], decide(cols, moved[:, cols]), U[cols, cols])
        moved[:, cols.stop :] -= errors @ U[cols, cols.stop :]
    return moved


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
    keep = width - removed(width, sparsity)
    return (torch.arange(width, device=key.device) < keep).expand_as(key)


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


def _sweep(moved: Tensor, settle: Settle, U: Tensor) -> Tensor:
    """Settle a block in place, column by column, moving what is further right; returns the errors."""
    errors = torch.zeros_like(moved)
    for j in range(moved.shape[1]):
        value = settle(j, moved[:, j])
        errors[:, j] = (moved[:, j] - value) / U[j, j]
        moved[:, j:] -= errors[:, j, None] * U[j, j:]
        moved[:, j] = value
    return errors


def explained(A: Tensor, keep: Tensor) -> float:
    """R²: the share of the removed units' variance that a combination of those that stay explains.

    1 − ‖A_gone − A_keep S‖² / ‖A_gone‖² with the best S, all columns centred. A is (samples, units), the
    mask ``keep`` (units,). If the removed units never vary, 1.

    >>> explained(torch.tensor([[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]]), torch.tensor([False, True]))
    1.0
    """
    checks.masks({"keep": keep}, {"keep": A[0]})
    centred = A - A.mean(0)
    stay, gone = centred[:, keep], centred[:, ~keep]
    left, varied = gone - stay @ (torch.linalg.pinv(stay) @ gone), gone.square().sum()
    return float(1 - left.square().sum() / varied) if varied > 0 else 1.0
