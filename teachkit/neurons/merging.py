"""Merge units instead of deleting them: what a unit said is said by those that stay."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core.types import Batch
from teachkit.neurons.chain import Fold, Reading, rebuild
from teachkit.neurons.deletion import quota
from teachkit.neurons.repairing import DAMPING, elimination, least_squares

WAYS = ("weights", "activations", "regression")


class Pairs(NamedTuple):
    """How alike units are, and how one is written by another.

    ``alike`` (units, units); ``size`` (units,), the smaller of a pair goes; unit j is replaced by
    ``ratio[j, i]`` · a_i + ``offset[j, i]``.
    """

    alike: Tensor
    size: Tensor
    ratio: Tensor
    offset: Tensor


def merge(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    by: str = "regression",
    *,
    damping: float = DAMPING,
) -> nn.Module:
    """A smaller network in which units have been merged, the same share of each hidden layer.

    "weights": of the pair with the most similar incoming weights and bias (cosine), the shorter goes
    and its outgoing weights, times the ratio of lengths, are added to the other's (after Srinivas &
    Babu, BMVC 2015; exact for ReLU and parallel weights). "activations": of the pair whose outputs
    correlate most, the one that contributes less goes, written as a straight line in the other
    (NoiseOut, Babaeizadeh et al. 2016). "regression": the unit goes that the others imitate best,
    and it is written as the least-squares combination of all units kept and a constant.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y); only x is used.
        sparsity: the share of each hidden layer's units that goes.
        by: "weights", "activations" or "regression".
        damping: for "regression", see :func:`repair`.

    """
    if by not in WAYS:
        raise ValueError(f"by must be one of {list(WAYS)}, got {by!r}")

    def fold(name: str, seen: Reading) -> Fold:
        count = quota(name, len(seen.incoming), sparsity)
        if by == "regression":
            keep = torch.ones(len(seen.incoming), dtype=torch.bool)
            keep[elimination(seen, count, damping=damping, outgoing=False)] = False
            return least_squares(seen, keep, damping=damping)
        return fold_pairs(
            seen, by_weights(seen) if by == "weights" else by_activations(seen), count
        )

    return rebuild(model, batch, fold)


def by_weights(seen: Reading) -> Pairs:
    """Cosine of the incoming weights, with the bias as one of them; a_j = (‖w_j‖ / ‖w_i‖) a_i."""
    w = seen.incoming
    length = w.norm(dim=1)
    unit = w / length.clamp(min=torch.finfo(w.dtype).tiny)[:, None]
    ratio = length[:, None] / length.clamp(min=torch.finfo(w.dtype).tiny)
    return Pairs(unit @ unit.T, length, ratio, torch.zeros_like(ratio))


def by_activations(seen: Reading) -> Pairs:
    """Absolute correlation of the outputs; a_j = α a_i + β by least squares for the pair.

    A unit that is constant is written by β alone. A reader without a bias cannot take up β: then
    the lines go through the origin.
    """
    A = seen.said
    mean = A.mean(0) if seen.bias is not None else torch.zeros_like(A[0])
    C = (A - mean).T @ (A - mean) / len(A)
    spread = C.diagonal().clone()
    flat = spread <= torch.finfo(A.dtype).eps * (A**2).mean(0)
    safe = torch.where(flat, 1.0, spread)
    ratio = torch.where(flat[:, None] | flat, 0.0, C / safe)
    alike = (C / (safe.sqrt()[:, None] * safe.sqrt())).abs()
    alike = torch.where(flat[:, None] | flat, 1.0, alike)
    size = torch.where(flat, 0.0, spread) * (seen.weight**2).sum(0)
    return Pairs(alike, size, ratio, mean[:, None] - ratio * mean)


def fold_pairs(seen: Reading, pairs: Pairs, count: int) -> Fold:
    """Merge the most similar pair, ``count`` times; what was merged into goes on as itself."""
    V, c = seen.weight.clone(), None if seen.bias is None else seen.bias.clone()
    keep = torch.ones(len(pairs.size), dtype=torch.bool)
    alike = pairs.alike.clone().fill_diagonal_(-torch.inf)
    for _ in range(count):
        i, j = divmod(int(alike.argmax()), len(keep))
        if pairs.size[i] < pairs.size[j]:
            i, j = j, i
        V[:, i] += pairs.ratio[j, i] * V[:, j]
        if c is not None:
            c += pairs.offset[j, i] * V[:, j]
        alike[j], alike[:, j], keep[j] = -torch.inf, -torch.inf, False
    return Fold(keep, V[:, keep], c)
