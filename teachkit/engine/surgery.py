"""The surgeon on a whole network: all prunable weights as one vector, with one dense curvature.

With several steps the curvature (:mod:`teachkit.engine.dense`) is measured anew between them, since
the quadratic model holds near the point of measurement only.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import bars, checks
from teachkit.core.copies import independent_copy
from teachkit.core.ranking import removed
from teachkit.core.types import Batch, Loss, Masks
from teachkit.core.weights import prunable, split
from teachkit.engine.dense import Kind, curvature
from teachkit.engine.surgeon import surgeon


def prune(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    loss: Loss = cross_entropy,
    kind: Kind = "gauss-newton",
    damping: float = 0.1,
    biases: bool = False,
    steps: int = 1,
    H: Tensor | None = None,
    progress: bool = True,
) -> tuple[nn.Module, Masks]:
    """Optimal Brain Surgeon on a network: the pruned, updated copy and its masks.

    Weights that are zero already stay zero and count as removed.

    Args:
        model: any module with at most 5000 prunable weights; it is unchanged.
        batch: (x, y), on which the curvature is measured.
        sparsity: exactly ``masks.removed(n, sparsity)`` weights go.
        loss: a mean loss.
        kind: which curvature, see :func:`curvature`.
        damping: see :func:`inverse`. It keeps the step short where the loss is flat; without it
            the step leaves the region in which the quadratic model holds.
        biases: prune the biases too.
        steps: how often the curvature is measured, at equal numbers of removals.
        H: the curvature of this model, if it is known already; only with one step.
        progress: show a progress bar over the steps where it takes long.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.eye(4)[:, None], torch.tensor([0, 1, 1, 0])
    >>> prune(net, (x, y), 0.5)[1]['1.weight'].sum()
    tensor(4)

    """
    checks.whole("steps", steps, 1, high=1 if H is not None else math.inf)
    pruned = independent_copy(checks.model(model, checks.batch(batch)[0]))
    weights = prunable(pruned, biases=biases)
    flat = _flat(weights)
    k = removed(len(flat), sparsity)
    if H is not None and H.shape != (len(flat), len(flat)):
        raise ValueError(f"H must have shape {(len(flat), len(flat))}, got {tuple(H.shape)}")
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[(flat == 0).nonzero().reshape(-1)[:k]] = False
    ends = torch.linspace(int((~kept).sum()), k, steps + 1, device=flat.device).round().long()
    for count in bars.bar(ends.diff().tolist(), "steps", show=progress):
        if not count:
            continue
        whole = curvature(pruned, batch, loss, kind=kind, biases=biases) if H is None else H
        alive = kept.nonzero().reshape(-1)
        removal = surgeon(whole[alive][:, alive], flat[alive], count, damping=damping)
        flat[alive] = removal.weights
        kept[alive[removal.order]] = False
        with torch.no_grad():
            for name, values in split(flat, weights).items():
                weights[name].copy_(values)
    return pruned, split(kept, weights)


def _flat(weights: dict[str, Tensor]) -> Tensor:
    """All weights as one vector, a copy."""
    parts = [w.detach().reshape(-1) for w in weights.values()]
    return torch.cat(parts) if parts else torch.zeros(0, device="cpu")
