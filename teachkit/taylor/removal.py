"""Weights set to zero: what that is predicted to change, each alone and all together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Params
from teachkit.taylor.changes import actual_change, predicted_change


class Alone(NamedTuple):
    """Changes of the loss when one weight at a time is set to zero, each of shape (m,)."""

    first: Tensor
    second: Tensor
    actual: Tensor


def alone(
    model: nn.Module,
    batch: Batch,
    name: str,
    positions: Sequence[int] | Tensor,
    loss: Loss = cross_entropy,
) -> Alone:
    """Predicted and true change of the loss for zeroing each of m weights by itself.

    For weight i: −g_i w_i (first order), −g_i w_i + ½ h_ii w_i² (second), L(θ − w_i e_i) − L(θ).

    Args:
        model: any module.
        batch: (x, y).
        name: which parameter, as in named_parameters().
        positions: positions in the flattened parameter.
        loss: a mean loss.

    """
    (whole,) = zeroing(model, name, positions).values()
    index = _positions(positions)
    if not len(index):
        return Alone(*whole.new_zeros(3, 0))
    steps = torch.zeros(len(index), whole.numel(), dtype=whole.dtype)
    rows = torch.arange(len(index))
    steps[rows, index] = whole.reshape(-1)[index]
    value, params = objective(model, batch, loss)
    theta = params[name]

    def of_one(p: Tensor) -> Tensor:
        return value({name: p})

    def changes(step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step = step.reshape(theta.shape)
        g, pull = vjp(grad(of_one), theta)  # type: ignore[misc]
        product = pull(step)[0]
        first = (g * step).sum()
        return first, first + 0.5 * (product * step).sum(), of_one(theta + step) - of_one(theta)

    return Alone(*vmap(changes, chunk_size=32)(steps))


class Together(NamedTuple):
    """Changes of the loss when the first of a row of weights go, one entry per number of weights (k,).

    ``apart`` is the sum of the single predictions, ``joint`` one prediction for the whole step.
    """

    weights: Tensor
    apart: Tensor
    joint: Tensor
    actual: Tensor


def together(
    model: nn.Module,
    batch: Batch,
    name: str,
    positions: Sequence[int] | Tensor,
    counts: Sequence[int],
    loss: Loss = cross_entropy,
) -> Together:
    """What removing the first c of some weights together was promised to do, and does.

    Apart: Σ (−g_i w_i + ½ h_ii w_i²). Joint: gᵀδ + ½ δᵀHδ, which adds the cross terms
    Σ_{i≠j} ½ h_ij w_i w_j. The actual change is measured.

    Args:
        model: any module.
        batch: (x, y).
        name: which parameter, as in named_parameters().
        positions: positions in the flattened parameter, in the order of removal.
        counts: how many of them go, each from 0 to their number.
        loss: a mean loss.

    """
    order = _positions(positions)
    chosen = [checks.whole("each count", c, 0, len(order)) for c in counts]
    single = alone(model, batch, name, order, loss).second
    steps = [zeroing(model, name, order[:c]) for c in chosen]
    return Together(
        torch.tensor(chosen),
        torch.stack([single[:c].sum() for c in chosen]),
        single.new_tensor([predicted_change(model, batch, step, loss) for step in steps]),
        single.new_tensor([actual_change(model, batch, step, loss) for step in steps]),
    )


def zeroing(model: nn.Module, name: str, positions: Sequence[int] | Tensor) -> Params:
    """The step δ that sets some weights of one parameter to zero: −w there, 0 elsewhere.

    Args:
        model: any module.
        name: which parameter, as in named_parameters().
        positions: positions in the flattened parameter.

    """
    params = dict(checks.model(model).named_parameters())
    if name not in params:
        raise ValueError(f"the model has no parameter {name!r}; it has {sorted(params)}")
    flat = params[name].detach().reshape(-1)
    index = _positions(positions)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(flat):
        raise ValueError(f"positions must lie from 0 to {len(flat) - 1}, got {index.tolist()}")
    delta = torch.zeros_like(flat)
    delta[index] = -flat[index]
    return {name: delta.reshape(params[name].shape)}


def _positions(given: Sequence[int] | Tensor) -> Tensor:
    """Positions as a vector of whole numbers; a mask or fractions are refused, not read as such."""
    index = torch.as_tensor(given)
    if index.numel() and (index.dtype == torch.bool or index.is_floating_point()):
        raise TypeError(f"positions must be whole numbers, got {index.dtype}")
    return index.long().reshape(-1)
