"""What setting single weights to zero changes: predicted to first and second order, and measured.

m weights by themselves are m steps δ_i = −w_i e_i from the same place. Each needs gᵀδ_i, the number
δ_iᵀHδ_i and one evaluation of the loss: three passes that differ in δ_i only. So the steps become
the rows of a matrix and vmap runs 32 rows through the network at a time; the Hessian is never
formed, only pulled back onto each step (Pearlmutter 1994), and only for the one parameter at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Params


class Alone(NamedTuple):
    """Changes of the loss when one weight at a time is set to zero, each of shape (m,)."""

    first: Tensor
    second: Tensor
    actual: Tensor


def zeroing(model: nn.Module, name: str, positions: Sequence[int] | Tensor) -> Params:
    """The step δ that sets some weights of one parameter to zero: −w there, 0 elsewhere.

    The positions count through the flattened parameter.

    >>> layer = nn.Linear(2, 1)
    >>> (layer.weight + zeroing(layer, "weight", [1])["weight"])[0, 1].item()
    0.0
    """
    w, index = _chosen(model, name, positions)
    delta = torch.zeros_like(w).reshape(-1)
    delta[index] = -w.reshape(-1)[index]
    return {name: delta.reshape(w.shape)}


def alone(
    model: nn.Module,
    batch: Batch,
    name: str,
    positions: Sequence[int] | Tensor,
    loss: Loss = cross_entropy,
) -> Alone:
    """Predicted and true change of the mean loss for zeroing each of m weights by itself.

    For weight i: −g_i w_i (first order), −g_i w_i + ½ h_ii w_i² (second), L(θ − w_i e_i) − L(θ).
    """
    theta, index = _chosen(model, name, positions)
    if not len(index):
        return Alone(*theta.new_zeros(3, 0))
    rows = theta.new_zeros(len(index), theta.numel())
    rows.scatter_(1, index[:, None], -theta.reshape(-1)[index, None])
    value, _ = objective(model, batch, loss)

    def of_one(w: Tensor) -> Tensor:
        return value({name: w})

    def changes(row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step = row.reshape(theta.shape)
        g, pull = vjp(grad(of_one), theta)  # type: ignore[misc]
        first = (g * step).sum()
        second = first + 0.5 * (pull(step)[0] * step).sum()
        return first, second, of_one(theta + step) - of_one(theta)

    return Alone(*vmap(changes, chunk_size=32)(rows))


def _chosen(
    model: nn.Module, name: str, positions: Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """A parameter by name, and positions in it; a mask or fractions are no positions."""
    params = dict(checks.model(model).named_parameters())
    if name not in params:
        raise ValueError(f"the model has no parameter {name!r}; it has {sorted(params)}")
    w = params[name].detach()
    index = torch.as_tensor(positions, device=w.device)
    if index.numel() and (index.dtype == torch.bool or index.is_floating_point()):
        raise TypeError(f"positions must be whole numbers, got {index.dtype}")
    index = index.long().reshape(-1)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < w.numel():
        raise ValueError(f"positions must lie from 0 to {w.numel() - 1}, got {index.tolist()}")
    return w, index
