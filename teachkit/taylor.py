"""Taylor's polynomial of a function, and the same idea for the loss of a network.

L(θ + δ) ≈ L(θ) + gᵀδ + ½ δᵀHδ, with the gradient g and the Hessian H of the loss at θ. Neither term
needs H itself: gᵀδ is a number, and its gradient is Hδ. A step δ has the keys of
``named_parameters()``; parameters that it leaves out do not move.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor, nn
from torch.func import grad, vjp
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Params
from teachkit.engine.removal import Alone, alone, zeroing
from teachkit.engine.symbolic import Point, coordinates, expression

__all__ = [
    "Alone", "Path", "Together", "actual_change", "alone", "alone_naive", "along", "gradient",
    "gradient_and_product", "hessian_vector", "lagrange", "polynomial", "polynomial_naive",
    "predicted_change", "remainder", "together", "zeroing",
]  # fmt: skip
_INFINITE = (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta, sympy.Subs)


def polynomial_naive(
    f: Expr, variables: Sequence[Symbol] | Symbol, point: Point, order: int
) -> Expr:
    """Taylor's polynomial as the sum over all α with |α| ≤ order of ∂^α f(a) (x − a)^α / α!.

    >>> x, y = sympy.symbols("x y")
    >>> polynomial_naive(x * y, (x, y), (0, 1), 1)
    x
    """
    a, total = coordinates(variables, point), sympy.Integer(0)
    f, order = expression("f", f), checks.whole("order", order)
    for alpha in product(range(order + 1), repeat=len(a)):
        if sum(alpha) <= order:
            powers = list(zip(a, alpha, strict=True))
            slope = sympy.diff(f, *powers).subs(a)
            total += slope * sympy.prod((v - a[v]) ** k / sympy.factorial(k) for v, k in powers)
    return total


def polynomial(f: Expr, variables: Sequence[Symbol] | Symbol, point: Point, order: int) -> Expr:
    """Taylor's polynomial of f about a point: Σ_{k ≤ order} (1/k!) dᵏ/dtᵏ f(a + t(x − a)) at t = 0.

    The point a is a sequence in the order of the variables, or {variable: value}; ValueError where a
    derivative is not finite there.

    >>> x = sympy.Symbol("x")
    >>> polynomial(sympy.exp(x), x, (0,), 2)
    x**2/2 + x + 1
    """
    a = coordinates(variables, point)
    t = sympy.Dummy("t", real=True)
    line = expression("f", f).subs({v: a[v] + t * (v - a[v]) for v in a}, simultaneous=True)
    terms = []
    for k in range(checks.whole("order", order) + 1):
        terms.append(sympy.simplify(line.subs(t, 0)) / sympy.factorial(k))
        if terms[k].has(*_INFINITE):
            raise ValueError(f"the derivative of order {k} of {f} is not finite at {a}")
        line = sympy.diff(line, t)
    return sympy.Add(*terms)


def remainder(f: Expr, variables: Sequence[Symbol] | Symbol, point: Point, order: int) -> Expr:
    """What the polynomial leaves out: R = f − P, exactly.

    >>> x = sympy.Symbol("x")
    >>> remainder(x**3 + x, x, (0,), 1)
    x**3
    """
    return sympy.simplify(expression("f", f) - polynomial(f, variables, point, order))


def lagrange(f: Expr, variable: Symbol, point: Expr | float, order: int, between: Symbol) -> Expr:
    """Lagrange's form of the remainder in one variable: f⁽ⁿ⁺¹⁾(ξ) (x − a)ⁿ⁺¹ / (n + 1)!.

    It equals the remainder for some ξ (``between``) between a and x.

    >>> x, xi = sympy.symbols("x xi")
    >>> lagrange(sympy.exp(x), x, 0, 1, xi)
    x**2*exp(xi)/2
    """
    n = checks.whole("order", order) + 1
    ((_, a),) = coordinates(variable, [point]).items()
    if a.has(*_INFINITE):
        raise ValueError(f"point must be finite, got {point!r}")
    derivative = sympy.diff(expression("f", f), variable, n).subs(
        variable, expression("between", between)
    )
    return derivative * (variable - a) ** n / sympy.factorial(n)


def gradient(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """g = ∂L/∂θ for every parameter, in evaluation mode, as tensors of the parameters' shapes."""
    value, params = objective(model, batch, loss)
    return dict(grad(value)(params))


def gradient_and_product(
    value: Callable[[Params], Tensor], params: Params, step: Params
) -> tuple[Params, Params]:
    """g and Hδ: the gradient, and the gradient of the number gᵀδ."""
    g, pull = vjp(grad(value), params)  # type: ignore[misc]
    return g, pull(step)[0]


def hessian_vector(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy
) -> Params:
    """Hδ for every parameter, without forming H: the gradient of the number gᵀδ, δ held fixed.

    Costs about two gradients, whatever the number n of parameters; H itself would have n² entries.
    Source: Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 1994.
    """
    value, params = objective(model, batch, loss)
    return dict(gradient_and_product(value, params, _full(params, delta))[1])


def predicted_change(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy, *, order: int = 2
) -> float:
    """The change of the mean loss that Taylor predicts for a step δ: gᵀδ, or gᵀδ + ½ δᵀHδ."""
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
    >>> step = {"1.bias": torch.ones(10)}  # adds the same to all ten outputs: no change at all
    >>> along(models.mlp(hidden=()), data.digits().train, step, [1.0]).actual.abs().max() < 1e-6
    tensor(True)
    """
    linear, quadratic = _terms(model, batch, delta, loss)
    dtype, device = torch.get_default_dtype(), batch[0].device
    s = checks.finite("t", torch.as_tensor(list(t), dtype=dtype, device=device))
    steps = [{name: each * d for name, d in delta.items()} for each in s]
    actual = s.new_tensor([actual_change(model, batch, step, loss) for step in steps])
    return Path(s, s * linear, s * linear + s**2 * quadratic, actual)


def alone_naive(
    model: nn.Module, batch: Batch, name: str, positions: Sequence[int], loss: Loss = cross_entropy
) -> Alone:
    """What zeroing each of m weights by itself is predicted to change, and changes, one by one."""
    steps = [zeroing(model, name, [i]) for i in positions]
    first = [predicted_change(model, batch, step, loss, order=1) for step in steps]
    second = [predicted_change(model, batch, step, loss) for step in steps]
    actual = [actual_change(model, batch, step, loss) for step in steps]
    return Alone(*model.get_parameter(name).detach().new_tensor([first, second, actual]))


class Together(NamedTuple):
    """Changes of the loss when the first c of a row of weights go, one entry per c, shape (k,).

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
    Σ_{i≠j} ½ h_ij w_i w_j. The actual change is measured. ``positions`` are in the order of removal.
    """
    single = alone(model, batch, name, positions, loss).second
    chosen = [checks.whole("each count", c, 0, len(single)) for c in counts]
    steps = [zeroing(model, name, positions[:c]) for c in chosen]
    return Together(
        torch.tensor(chosen, device=single.device),
        torch.stack([single[:c].sum() for c in chosen]),
        single.new_tensor([predicted_change(model, batch, step, loss) for step in steps]),
        single.new_tensor([actual_change(model, batch, step, loss) for step in steps]),
    )


def _terms(model: nn.Module, batch: Batch, delta: Params, loss: Loss) -> tuple[float, float]:
    """gᵀδ and ½ δᵀHδ."""
    value, params = objective(model, batch, loss)
    step = _full(params, delta)
    linear, quadratic = (
        float(sum((part[name] * step[name]).sum() for name in step))
        for part in gradient_and_product(value, params, step)
    )
    return linear, 0.5 * quadratic


def _full(params: Params, delta: Params) -> Params:
    """The step for every parameter, zero where delta leaves one out."""
    given = checks.entries("delta", delta, params)
    return {
        name: given[name].to(p) if name in given else torch.zeros_like(p)
        for name, p in params.items()
    }


door.hold(globals())
