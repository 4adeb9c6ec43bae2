"""The diagonal of the Hessian by other ways: LeCun's recursion of 1989, and random directions.

The recursion carries the curvature at the outputs of a layer down as if it were diagonal. It needs
one pass, and is exact only where no two units below are coupled. Hutchinson's estimate needs nothing
of the network but products Hv, and its error falls with the root of their number. Lesson 04 compares
both with the exact diagonal of :mod:`teachkit.engine.curvature`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.functional import cross_entropy

from teachkit.core import checks, layers, losses
from teachkit.core.layers import UncoveredError
from teachkit.core.objective import eval_mode
from teachkit.core.types import Batch, Loss, Params
from teachkit.core.weights import prunable
from teachkit.engine.columns import second_derivative
from teachkit.engine.dense import products


def recursion(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """LeCun's way: carry only the diagonal back, ∂²ℓ/∂a_j² ≈ Σ_i W_ij² ∂²ℓ/∂z_i².

    Then h_ij = mean of ∂²ℓ/∂z_i² a_j². Exact for the last layer; below it the cross terms
    ∂²ℓ/∂z_i∂z_k are left out. Source: LeCun, Denker & Solla 1989, equations 7 to 9.

    Raises:
        UncoveredError: the network is not a chain of known layers.

    """
    x, y = checks.batch(batch)
    chain = list(layers.chain(checks.model(model, x)))
    h, inputs = {}, []
    with torch.no_grad(), eval_mode(model):
        for _, layer in chain:
            inputs.append(x)
            x = layer(x)
        end = losses.derivatives(loss, x, y)
        delta, r = end.gradient, end.diagonal()
        for (name, layer), a in zip(reversed(chain), reversed(inputs), strict=True):
            if layers.kind(layer).role in ("linear", "conv"):
                h[layers.parameter_name(name, "weight")] = weight_curvature(layer, a, r)
            r, delta = carried(layer, a, r, delta), vjp(layer, a)[1](delta)[0]
    return {name: h[name].reshape(w.shape) for name, w in prunable(model).items()}


def weight_curvature(layer: nn.Module, a: Tensor, r: Tensor) -> Tensor:
    """The mean over samples of Σ r_i a_j², r (n, out, ...) at the outputs and a at the inputs."""
    apart = layers.positions(layer, r).mT
    read = layers.patches(layer, a) ** 2
    rows = apart.reshape(len(a), read.shape[1], -1, read.shape[2])  # group by group
    return (rows @ read).mean(0)


def carried(layer: nn.Module, a: Tensor, r: Tensor, delta: Tensor) -> Tensor:
    """The diagonal r at a layer's outputs, carried to its inputs a.

    Σ_i W_ij² r_i through weights; φ′(a)² r + φ″(a) δ through an activation, with δ the gradient at
    its outputs; r itself through a layer that only picks and moves numbers.
    """
    role, _, curved = layers.kind(layer)
    if role == "mean pool":
        raise UncoveredError(f"{layer} has no short way for a diagonal")
    if role in ("linear", "conv"):
        squared = {"weight": layer.weight**2}  # type: ignore[operator]
        pull = vjp(lambda at: functional_call(layer, squared, (at,)), a)[1]
    else:
        pull = vjp(layer, a)[1]
    straight: Tensor = pull(r)[0]
    if role in ("linear", "conv", "max pool", "pad", "flatten", "nothing"):
        return straight
    slope: Tensor = pull(torch.ones_like(r))[0]
    return r * slope**2 + (second_derivative(layer, a) * delta if curved else 0.0)


class Estimate(NamedTuple):
    """A mean over random directions and its standard error, per weight."""

    mean: Params
    error: Params


def hutchinson(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    directions: int = 100,
    generator: torch.Generator,
) -> Estimate:
    """Estimate the diagonal for any module: E[v ⊙ Hv] with random signs v, anew for each tensor.

    The standard error is s/√m after m directions; it is as large as the off-diagonal entries of the
    row, √(Σ_{j≠i} h_ij² / m). Source: Bekas, Kokiopoulou & Saad 2007, after Hutchinson 1990.
    """
    checks.whole("directions", directions, 2)
    mean: Params = {}
    error: Params = {}
    for name, w, product in products(model, batch, loss):
        draws = []
        for _ in range(directions):
            coins = torch.randint(0, 2, w.shape, generator=generator, device=generator.device)
            v = coins.to(w) * 2 - 1
            draws.append(v * product(v))
        mean[name] = torch.stack(draws).mean(0)
        error[name] = torch.stack(draws).std(0) / directions**0.5
    return Estimate(mean, error)
