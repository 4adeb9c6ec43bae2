"""Let the next layer make up for the units that go: least squares, and the surgeon for units.

The reader of a hidden layer computes z = V a + c. With A (n, units) what the units say and a
column of ones for c, X = [A 1], its output on the batch is X Wᵀ with W = [V c]. Every row of W
shares one H = XᵀX, so removing a unit, a whole column of W, is as easy as removing a weight.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit import obs
from teachkit.core import checks
from teachkit.core.types import Batch
from teachkit.neurons.chain import Fold, Reading, rebuild
from teachkit.neurons.deletion import quota
from teachkit.obs.formulas import damped

DAMPING = 1e-6  # of the mean of H's diagonal


class Problem(NamedTuple):
    """‖X Wᵀ − Z‖² + λ‖W − W₀‖² in normal form: H = XᵀX + λI and B = XᵀZ + λ W₀ᵀ, float64."""

    H: Tensor
    B: Tensor


def repair(
    model: nn.Module, batch: Batch, keep: Mapping[str, Tensor], *, damping: float = DAMPING
) -> nn.Module:
    """A smaller network of the units kept, each next layer refitted by least squares.

    min over V′, c′ of ‖A_K V′ᵀ + 1 c′ᵀ − Z‖², with A_K what the kept units say in the network as
    rebuilt so far and Z what the next layer heard in the given network. Uses no label.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y); only x is used.
        keep: by layer name, boolean (units,), True keeps, for every hidden layer.
        damping: λ in units of the mean of H's diagonal; it holds the new weights near the old.

    """

    def fold(name: str, seen: Reading) -> Fold:
        if name not in keep:
            raise ValueError(f"keep lacks the hidden layer {name!r}; it has {sorted(keep)}")
        checks.masks({name: keep[name]}, {name: torch.empty(len(seen.incoming))})
        return least_squares(seen, keep[name], damping=damping)

    return rebuild(model, batch, fold)


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

    def fold(name: str, seen: Reading) -> Fold:
        order = elimination(seen, quota(name, len(seen.incoming), sparsity), damping=damping)
        keep = torch.ones(len(seen.incoming), dtype=torch.bool)
        keep[order] = False
        return least_squares(seen, keep, damping=damping)

    return rebuild(model, batch, fold)


def least_squares(seen: Reading, keep: Tensor, *, damping: float = DAMPING) -> Fold:
    """The reader's best weights on the units kept: W_K = H_KK⁻¹ B_K, with its bias if it has one."""
    H, B = problem(seen, damping)
    at = torch.cat([keep, keep.new_ones(len(H) - len(keep))])
    W = (obs.inverse(H[at][:, at]) @ B[at]).T
    units = int(keep.sum())
    return Fold(keep, W[:, :units], None if seen.bias is None else W[:, units])


def costs(W: Tensor, inverse: Tensor, *, outgoing: bool = True) -> Tensor:
    """‖w_j‖² / [H⁻¹]_jj for each column, ∞ where it is gone; without ``outgoing`` 1 / [H⁻¹]_jj.

    1 / [H⁻¹]_jj is what is left of ‖a_j‖² after regressing unit j on all other columns.

    >>> costs(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([0.5000, 9.0000])
    """
    d = inverse.diagonal()
    size = (W**2).sum(0) if outgoing else torch.ones_like(d)
    return torch.where(d > 0, size / d, torch.inf)


def elimination(
    seen: Reading, count: int, *, damping: float = DAMPING, outgoing: bool = True
) -> list[int]:
    """The units in the order in which they go; a prefix is the greedy choice for fewer.

    Args:
        seen: one hidden layer.
        count: how many go.
        damping: see :func:`repair`.
        outgoing: False leaves ‖w_j‖² out: the unit goes that the others can best imitate.

    """
    H, B = problem(seen, damping)
    units = len(seen.incoming)
    checks.whole("count", count, 0, units)
    P = obs.inverse(H)
    W = (P @ B).T
    order: list[int] = []
    for _ in range(count):
        j = int(costs(W, P, outgoing=outgoing)[:units].argmin())
        W = W - W[:, j, None] * (P[j] / P[j, j])
        P = obs.downdate(P, j)
        order.append(j)
    return order


def problem(seen: Reading, damping: float) -> Problem:
    """The normal equations of a layer's repair."""
    A, V, Z = seen.said.double(), seen.weight.double(), seen.target.double()
    if seen.bias is not None:
        A = torch.cat([A, A.new_ones(len(A), 1)], 1)
        V = torch.cat([V, seen.bias.double()[:, None]], 1)
    H = A.T @ A
    stiff = damped(H, damping)
    return Problem(stiff, A.T @ Z + (stiff - H) @ V.T)
