"""The change of a network's loss: predicted by gradient and Hessian, and measured.

L(θ + δ) ≈ L(θ) + gᵀδ + ½ δᵀHδ, with the gradient g and the Hessian H of the loss at θ.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Params


def gradient(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """G = ∂L/∂θ for every parameter, in evaluation mode, as tensors of the parameters' shapes."""
    value, params = objective(model, batch, loss)
    return dict(grad(value)(params))


def hessian_vector(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy
) -> Params:
    """Hδ for every parameter, without forming H: the gradient of the number gᵀδ, δ held fixed.

    Costs about two gradients, whatever the number n of parameters; H itself would have n² entries.
    Source: Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 1994.

    Args:
        model: any module.
        batch: (x, y).
        delta: the direction; parameters left out do not move.
        loss: a mean loss.

    """
    value, params = objective(model, batch, loss)
    return dict(gradient_and_product(value, params, _full(params, delta))[1])


def gradient_and_product(
    value: Callable[[Params], Tensor], params: Params, step: Params
) -> tuple[Params, Params]:
    """g and Hδ: the gradient, and the gradient of the number gᵀδ."""
    g, pull = vjp(grad(value), params)  # type: ignore[misc]
    return g, pull(step)[0]


def predicted_change(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy, *, order: int = 2
) -> float:
    """The change of the loss that the Taylor polynomial predicts: gᵀδ, or gᵀδ + ½ δᵀHδ.

    Args:
        model: any module; its parameters are θ.
        batch: (x, y).
        delta: the step δ; parameters left out do not move.
        loss: a mean loss.
        order: 1 or 2.

    """
    checks.whole("order", order, 1, 2)
    linear, quadratic = _terms(model, batch, delta, loss)
    return linear + (quadratic if order == 2 else 0.0)


def actual_change(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy
) -> float:
    """L(θ + δ) − L(θ), by evaluating the loss twice."""
    value, params = objective(model, batch, loss)
    step = _full(params, delta)
    moved = {name: p + step[name] for name, p in params.items()}
    return float(value(moved) - value(params))


class Path(NamedTuple):
    """Changes of the loss along θ + tδ, one entry per t, each of shape (len(t),)."""

    t: Tensor
    first: Tensor
    second: Tensor
    actual: Tensor


def along(
    model: nn.Module, batch: Batch, delta: Params, t: Sequence[float], loss: Loss = cross_entropy
) -> Path:
    """Predicted (first and second order) and true change of the loss for each step tδ.

    >>> from teachkit.lab import data, models
    >>> net = models.mlp(hidden=())
    >>> step = {"1.bias": torch.ones(10)}  # adds the same to all ten outputs: no change at all
    >>> along(net, data.digits().train, step, [0.5, 1.0]).actual.abs().max() < 1e-6
    tensor(True)
    """
    linear, quadratic = _terms(model, batch, delta, loss)
    dtype = torch.get_default_dtype()
    steps = checks.finite("t", torch.as_tensor(list(t), dtype=dtype))
    actual = [
        actual_change(model, batch, {n: s * d for n, d in delta.items()}, loss) for s in steps
    ]
    return Path(
        steps,
        steps * linear,
        steps * linear + steps**2 * quadratic,
        torch.tensor(actual, dtype=dtype),
    )


def _terms(model: nn.Module, batch: Batch, delta: Params, loss: Loss) -> tuple[float, float]:
    """gᵀδ and ½ δᵀHδ."""
    value, params = objective(model, batch, loss)
    step = _full(params, delta)
    g, product = gradient_and_product(value, params, step)
    return _dot(g, step), 0.5 * _dot(product, step)


def _full(params: Params, delta: Params) -> Params:
    """The step for every parameter: checked, zero where none was given."""
    given = checks.entries("delta", delta, params)
    return {
        name: given[name].to(p) if name in given else torch.zeros_like(p)
        for name, p in params.items()
    }


def _dot(a: Params, b: Params) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))
