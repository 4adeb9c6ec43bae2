"""Units written by others: the reader of a hidden layer makes up for those that go, or one takes over.

**By all the others.** The reader computes z = V a + c. With A (n, units) what the units put out and a
column of ones for c, X = [A 1], its outputs on the batch are X Wᵀ, W = [V c]. Without some columns the
best W is a least-squares problem, and its normal equations H = XᵀX, B = XᵀZ are a few hundred numbers
wide whatever the batch. All rows of W share the one H, so a unit, a whole column of W, goes as easily as
a single weight: the greedy elimination is the surgeon's (:mod:`teachkit.engine.surgeon`), with the column
of ones protected. A damping λ holds the weights near the old ones where the batch shows nothing.

**By one other.** Two units are alike in their incoming weights or in their outputs; one is written as a
multiple of the other plus a constant, and its outgoing weights move over. All pairs are compared at once.
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


class Pairs(NamedTuple):
    """How ``alike`` units are (units, units), and how one is written by another.

    Of a pair the smaller ``size`` (units,) goes: a_j becomes ``ratio[j, i]`` · a_i + ``offset[j, i]``.
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
    rebuilt so far and Z what the next layer put out in the given network. Uses no label. ``keep`` has a
    boolean (units,) for every hidden layer, True keeps. ``damping`` is λ in units of the mean of H's
    diagonal; it holds the new weights near the old.
    """

    def decide(name: str, layer: Layer) -> Kept:
        if name not in keep:
            raise ValueError(f"keep lacks the hidden layer {name!r}; it has {sorted(keep)}")
        checks.masks({name: keep[name]}, {name: layer.incoming[:, 0]})
        return least_squares(layer, keep[name], damping=damping)

    return rebuild(model, batch, decide)


def surgeon(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    damping: float = DAMPING,
    outgoing: bool = True,
) -> nn.Module:
    """A smaller network by Optimal Brain Surgeon for whole units, the same share of each hidden layer.

    Units go one at a time, each time the one with the least ‖w_j‖² / [H⁻¹]_jj, the rise of the next
    layer's squared error once all other weights have adapted; w_j is its outgoing column. Without
    ``outgoing`` it is 1 / [H⁻¹]_jj: the unit goes that the others imitate best. Uses no label; for
    ``damping`` see :func:`repair`.

    Source: Hassibi & Stork 1992 for single weights; for structures Kurtic, Frantar & Alistarh, ZipLM,
    NeurIPS 2023; here the structure is one column.
    """

    def decide(name: str, layer: Layer) -> Kept:
        count = quota(name, len(layer.incoming), sparsity)
        keep = torch.ones_like(layer.incoming[:, 0], dtype=torch.bool)
        keep[elimination(layer, count, damping=damping, outgoing=outgoing)] = False
        return least_squares(layer, keep, damping=damping)

    return rebuild(model, batch, decide)


def merge(model: nn.Module, batch: Batch, sparsity: float, by: str = "regression") -> nn.Module:
    """A smaller network in which units have been merged, the same share of each hidden layer.

    Uses no label. The ways are

    - "weights": of the pair with the most similar incoming weights and bias (cosine), the shorter goes
      and its outgoing weights, times the ratio of lengths, are added to the other's (after Srinivas &
      Babu, BMVC 2015; exact for ReLU and parallel weights);
    - "activations": of the pair whose outputs correlate most, the one that contributes less goes, written
      as a straight line in the other (NoiseOut, Babaeizadeh et al. 2016);
    - "regression": the unit goes that the others imitate best, written as the least-squares combination of
      all units kept and a constant: the :func:`surgeon` without ``outgoing``.
    """
    if by not in WAYS:
        raise ValueError(f"by must be one of {list(WAYS)}, got {by!r}")
    if by == "regression":
        return surgeon(model, batch, sparsity, outgoing=False)
    pairs = by_weights if by == "weights" else by_activations

    def decide(name: str, layer: Layer) -> Kept:
        return merge_pairs(layer, pairs(layer), quota(name, len(layer.incoming), sparsity))

    return rebuild(model, batch, decide)


def normal_equations(layer: Layer, damping: float) -> tuple[Tensor, Tensor]:
    """H = XᵀX + λI and B = XᵀZ + λ Wᵀ, float64; the last column is the bias, if the reader has one."""
    A, V, Z = layer.outputs.double(), layer.weight.double(), layer.target.double()
    if layer.bias is not None:
        A = torch.cat([A, A.new_ones(len(A), 1)], 1)
        V = torch.cat([V, layer.bias.double()[:, None]], 1)
    H = A.T @ A
    stiff = damped(H, damping)
    return stiff, A.T @ Z + (stiff - H) @ V.T


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
    """The units in the order in which they go, (count,); a prefix is the greedy choice for fewer."""
    H, B = normal_equations(layer, damping)
    P, bias = inverse(H), len(H) - len(layer.incoming)
    return removal.units(P, (P @ B).T, count, protected=bias, outgoing=outgoing)


def by_weights(layer: Layer) -> Pairs:
    """Cosine of the incoming weights, with the bias as one of them; a_j = (‖w_j‖ / ‖w_i‖) a_i."""
    w, length = layer.incoming, layer.incoming.norm(dim=1)
    safe = length.clamp(min=torch.finfo(w.dtype).tiny)
    direction, ratio = w / safe[:, None], length[:, None] / safe
    return Pairs(direction @ direction.T, length, ratio, torch.zeros_like(ratio))


def by_activations(layer: Layer) -> Pairs:
    """Absolute correlation of the outputs; a_j = α a_i + β by least squares for the pair.

    A constant unit is written by β alone; where the reader has no bias to take up β, β = 0.
    """
    A = layer.outputs
    mean = A.mean(0) if layer.bias is not None else torch.zeros_like(A[0])
    C = (A - mean).T @ (A - mean) / len(A)
    variance = C.diagonal().clone()
    flat = variance <= torch.finfo(A.dtype).eps * (A**2).mean(0)
    either, safe = flat[:, None] | flat, torch.where(flat, 1.0, variance)
    ratio = torch.where(either, 0.0, C / safe)
    alike = torch.where(either, 1.0, (C / (safe.sqrt()[:, None] * safe.sqrt())).abs())
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
