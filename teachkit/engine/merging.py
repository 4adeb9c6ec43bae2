"""Units written by others: the reader of a hidden layer makes up for those that go, or one takes over.

**By all the others.** The reader computes z = V a + c. With A (n, units) what the units put out and a
column of ones for c, X = [A 1], its outputs on the batch are X Wᵀ, W = [V c]. Without some columns the
best W is a least-squares problem, and its normal equations H = XᵀX, B = XᵀZ are a few hundred numbers
wide whatever the batch. Every row of W shares the one H. So removing a unit, a whole column of W, is as
easy as removing a single weight, and the greedy elimination is the surgeon's
(:mod:`teachkit.engine.surgeon`), with the column of ones protected. A damping λ holds the new weights
near the old ones in the directions that the batch does not show.

**By one other.** A pair of units is alike in its incoming weights or in its outputs; one of the two is
written as a multiple of the other plus a constant, and its outgoing weights move over. All pairs are
compared at once, as matrices (units, units).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Batch
from teachkit.engine import surgeon as removal
from teachkit.engine.inverse import damped, inverse
from teachkit.engine.units import Kept, Layer, quota, rebuild

DAMPING = 1e-6  # of the mean of H's diagonal
WAYS = ("weights", "activations", "regression")


class NormalEquations(NamedTuple):
    """‖X Wᵀ − Z‖² + λ‖W − W₀‖² in normal form: H = XᵀX + λI and B = XᵀZ + λ W₀ᵀ, float64."""

    H: Tensor
    B: Tensor


class Pairs(NamedTuple):
    """How alike units are, and how one is written by another.

    ``alike`` (units, units); ``size`` (units,), the smaller of a pair goes; unit j is replaced by
    ``ratio[j, i]`` · a_i + ``offset[j, i]``.
    """

    alike: Tensor
    size: Tensor
    ratio: Tensor
    offset: Tensor


def repair(
    model: nn.Module, batch: Batch, keep: Mapping[str, Tensor], *, damping: float = DAMPING
) -> nn.Module:
    """A smaller network of the units kept, each next layer refitted by least squares.

    min over V′, c′ of ‖A_K V′ᵀ + 1 c′ᵀ − Z‖², with A_K what the kept units put out in the network as
    rebuilt so far and Z what the next layer put out in the given network. Uses no label.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y); only x is used.
        keep: by layer name, boolean (units,), True keeps, for every hidden layer.
        damping: λ in units of the mean of H's diagonal; it holds the new weights near the old.

    """

    def decide(name: str, layer: Layer) -> Kept:
        if name not in keep:
            raise ValueError(f"keep lacks the hidden layer {name!r}; it has {sorted(keep)}")
        checks.masks({name: keep[name]}, {name: layer.incoming[:, 0]})
        return least_squares(layer, keep[name], damping=damping)

    return rebuild(model, batch, decide)


def surgeon(
    model: nn.Module, batch: Batch, sparsity: float, *, damping: float = DAMPING
) -> nn.Module:
    """A smaller network by Optimal Brain Surgeon for whole units, layer by layer.

    Units go one at a time, each time the one with the least ‖w_j‖² / [H⁻¹]_jj, the rise of the next
    layer's squared error once all other weights have adapted; w_j is its outgoing column.

    Source: Hassibi & Stork 1992 for single weights; for structures Kurtic, Frantar & Alistarh, ZipLM,
    NeurIPS 2023; here the structure is one column.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y); only x is used.
        sparsity: the share of each hidden layer's units that goes.
        damping: see :func:`repair`.

    """
    return _by_all_others(model, batch, sparsity, damping, outgoing=True)


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
    if by == "regression":
        return _by_all_others(model, batch, sparsity, damping, outgoing=False)
    pairs = by_weights if by == "weights" else by_activations

    def decide(name: str, layer: Layer) -> Kept:
        return merge_pairs(layer, pairs(layer), quota(name, len(layer.incoming), sparsity))

    return rebuild(model, batch, decide)


def normal_equations(layer: Layer, damping: float) -> NormalEquations:
    """H and B of a layer's repair; the last column is the bias, if the reader has one."""
    A, V, Z = layer.outputs.double(), layer.weight.double(), layer.target.double()
    if layer.bias is not None:
        A = torch.cat([A, A.new_ones(len(A), 1)], 1)
        V = torch.cat([V, layer.bias.double()[:, None]], 1)
    H = A.T @ A
    stiff = damped(H, damping)
    return NormalEquations(stiff, A.T @ Z + (stiff - H) @ V.T)


def least_squares(layer: Layer, keep: Tensor, *, damping: float = DAMPING) -> Kept:
    """The reader's best weights on the units kept: W_K = H_KK⁻¹ B_K, with its bias if it has one."""
    H, B = normal_equations(layer, damping)
    at = torch.cat([keep, keep.new_ones(len(H) - len(keep))])
    W = (inverse(H[at][:, at]) @ B[at]).T
    units = int(keep.sum())
    return Kept(keep, W[:, :units], None if layer.bias is None else W[:, units])


def elimination(
    layer: Layer, count: int, *, damping: float = DAMPING, outgoing: bool = True
) -> Tensor:
    """The units in the order in which they go, (count,); a prefix is the greedy choice for fewer.

    Args:
        layer: one hidden layer.
        count: how many go.
        damping: see :func:`repair`.
        outgoing: False leaves ‖w_j‖² out: the unit goes that the others can best imitate.

    """
    H, B = normal_equations(layer, damping)
    units = len(layer.incoming)
    checks.whole("count", count, 0, units)
    P = inverse(H)
    return removal.units(P, (P @ B).T, count, protected=len(H) - units, outgoing=outgoing)


def by_weights(layer: Layer) -> Pairs:
    """Cosine of the incoming weights, with the bias as one of them; a_j = (‖w_j‖ / ‖w_i‖) a_i."""
    w = layer.incoming
    length = w.norm(dim=1)
    safe = length.clamp(min=torch.finfo(w.dtype).tiny)
    direction, ratio = w / safe[:, None], length[:, None] / safe
    return Pairs(direction @ direction.T, length, ratio, torch.zeros_like(ratio))


def by_activations(layer: Layer) -> Pairs:
    """Absolute correlation of the outputs; a_j = α a_i + β by least squares for the pair.

    A unit that is constant is written by β alone. A reader without a bias cannot take up β: then
    the lines go through the origin.
    """
    A = layer.outputs
    mean = A.mean(0) if layer.bias is not None else torch.zeros_like(A[0])
    C = (A - mean).T @ (A - mean) / len(A)
    variance = C.diagonal().clone()
    flat = variance <= torch.finfo(A.dtype).eps * (A**2).mean(0)
    safe = torch.where(flat, 1.0, variance)
    ratio = torch.where(flat[:, None] | flat, 0.0, C / safe)
    alike = (C / (safe.sqrt()[:, None] * safe.sqrt())).abs()
    alike = torch.where(flat[:, None] | flat, 1.0, alike)
    size = torch.where(flat, 0.0, variance) * (layer.weight**2).sum(0)
    return Pairs(alike, size, ratio, mean[:, None] - ratio * mean)


def merge_pairs(layer: Layer, pairs: Pairs, count: int) -> Kept:
    """Merge the most similar pair, ``count`` times; what was merged into goes on as itself."""
    V, c = layer.weight.clone(), None if layer.bias is None else layer.bias.clone()
    keep = torch.ones_like(pairs.size, dtype=torch.bool)
    alike = pairs.alike.clone().fill_diagonal_(-torch.inf)
    for _ in range(count):
        i, j = divmod(int(alike.argmax()), len(keep))
        if pairs.size[i] < pairs.size[j]:
            i, j = j, i
        V[:, i] += pairs.ratio[j, i] * V[:, j]
        if c is not None:
            c += pairs.offset[j, i] * V[:, j]
        alike[j], alike[:, j], keep[j] = -torch.inf, -torch.inf, False
    return Kept(keep, V[:, keep], c)


def _by_all_others(
    model: nn.Module, batch: Batch, sparsity: float, damping: float, *, outgoing: bool
) -> nn.Module:
    """Take units by elimination and refit the readers on what stays."""

    def decide(name: str, layer: Layer) -> Kept:
        count = quota(name, len(layer.incoming), sparsity)
        keep = torch.ones_like(layer.incoming[:, 0], dtype=torch.bool)
        keep[elimination(layer, count, damping=damping, outgoing=outgoing)] = False
        return least_squares(layer, keep, damping=damping)

    return rebuild(model, batch, decide)
