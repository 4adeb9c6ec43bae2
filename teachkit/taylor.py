"""Taylor's polynomial of a function, and the same idea for the loss of a network.

L(θ + δ) ≈ L(θ) + gᵀδ + ½ δᵀHδ, with the gradient g and the Hessian H of the loss at θ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.lab import checks
from teachkit.lab.evaluation import objective
from teachkit.lab.types import Batch, Loss, Params

Point = Mapping[Symbol, object] | Sequence[object]


def polynomial(f: Expr, variables: Sequence[Symbol] | Symbol, point: Point, order: int) -> Expr:
    """Taylor's polynomial of f about a point, in any number of variables, to any order.

    P(x) = Σ_{k ≤ order} (1/k!) dᵏ/dtᵏ f(a + t(x − a)) at t = 0.

    Args:
        f: a sympy expression.
        variables: its variables, in the order of the point.
        point: the expansion point a, as a sequence or as {variable: value}.
        order: highest power, 0 or more.

    Raises:
        ValueError: f or one of its derivatives is not finite at the point.

    >>> x = sympy.Symbol("x")
    >>> polynomial(sympy.exp(x), x, (0,), 2)
    x**2/2 + x + 1

    """
    names, a = _point(variables, point)
    checks.whole("order", order)
    t = sympy.Dummy("t", real=True)
    steps = {v: a[v] + t * (v - a[v]) for v in names}
    along = sympy.sympify(f).subs(steps, simultaneous=True)
    terms = []
    for k in range(order + 1):
        term = sympy.simplify(along.subs(t, 0)) / sympy.factorial(k)
        if term.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta, sympy.Subs):
            raise ValueError(f"the derivative of order {k} of {f} is not finite at {dict(a)}")
        terms.append(term)
        along = sympy.diff(along, t)
    return sympy.Add(*terms)


def remainder(f: Expr, variables: Sequence[Symbol] | Symbol, point: Point, order: int) -> Expr:
    """What the polynomial leaves out: R = f − P, exactly.

    >>> x = sympy.Symbol("x")
    >>> remainder(x**3 + x, x, (0,), 1)
    x**3
    """
    return sympy.simplify(f - polynomial(f, variables, point, order))


def lagrange(f: Expr, variable: Symbol, point: object, order: int, between: Symbol) -> Expr:
    """Lagrange's form of the remainder in one variable: f⁽ⁿ⁺¹⁾(ξ) (x − a)ⁿ⁺¹ / (n + 1)!.

    It equals the remainder for some ξ (``between``) between a and x; the largest |f⁽ⁿ⁺¹⁾| on the
    way therefore bounds the error.

    >>> x, xi = sympy.symbols("x xi")
    >>> lagrange(sympy.exp(x), x, 0, 1, xi)
    x**2*exp(xi)/2
    """
    n = checks.whole("order", order) + 1
    derivative = sympy.diff(f, variable, n).subs(variable, between)
    return derivative * (variable - sympy.sympify(point)) ** n / sympy.factorial(n)


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
    return dict(_gradient_and_product(value, params, _full(params, delta))[1])


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


def _terms(model: nn.Module, batch: Batch, delta: Params, loss: Loss) -> tuple[float, float]:
    """gᵀδ and ½ δᵀHδ."""
    value, params = objective(model, batch, loss)
    step = _full(params, delta)
    g, product = _gradient_and_product(value, params, step)
    return _dot(g, step), 0.5 * _dot(product, step)


def _gradient_and_product(
    value: Callable[[Params], Tensor], params: Params, step: Params
) -> tuple[Params, Params]:
    """g and Hδ: the gradient, and the gradient of the number gᵀδ."""
    g, pull = vjp(grad(value), params)  # type: ignore[misc]
    return g, pull(step)[0]


def _full(params: Params, delta: Params) -> Params:
    """The step for every parameter: checked, zero where none was given."""
    given = checks.entries("delta", delta, params)
    return {
        name: given[name].to(p) if name in given else torch.zeros_like(p)
        for name, p in params.items()
    }


def _dot(a: Params, b: Params) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


def _point(
    variables: Sequence[Symbol] | Symbol, point: Point
) -> tuple[list[Symbol], dict[Symbol, Expr]]:
    names = [variables] if isinstance(variables, Symbol) else list(variables)
    if isinstance(point, Mapping):
        if set(point) != set(names):
            raise ValueError(
                f"the point gives {sorted(map(str, point))}, the variables are {names}"
            )
        values = [point[v] for v in names]
    else:
        values = list(point) if isinstance(point, Sequence) else [point]
    if len(values) != len(names):
        raise ValueError(
            f"the point has {len(values)} coordinates for the {len(names)} variables {names}"
        )
    return names, {v: sympy.sympify(a) for v, a in zip(names, values, strict=True)}
