"""Lesson 02: what its explorers and figures draw, and its exercises."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor
from torch.func import grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from teachkit import taylor
from teachkit.engine.symbolic import expression
from teachkit.show import plots
from teachkit.show.answers import same
from teachkit.show.exercises import Task, curved, full_hessian, normal
from teachkit.show.pictures import Picture
from teachkit.show.running import called

Row = dict[str, Any]
x, t = sympy.symbols("x t")

FUNCTIONS = {"sin x": sympy.sin(x), "exp x": sympy.exp(x), "log(1 + x)": sympy.log(1 + x)}


@cache
def coefficients(function: str, centre: Expr, order: int) -> list[float]:
    """f⁽ᵏ⁾(a) / k! for k up to the order."""
    return [
        float(sympy.diff(FUNCTIONS[function], x, k).subs(x, centre) / sympy.factorial(k))
        for k in range(order + 1)
    ]


def polynomial(function: str, centre: float, order: int) -> Picture:
    """A function of one variable and its Taylor polynomial about a centre."""
    at = sympy.nsimplify(expression("centre", centre))
    grid = np.linspace(-0.9, 4, 200)
    terms = [c * (grid - float(at)) ** k for k, c in enumerate(coefficients(function, at, order))]
    f = sympy.lambdify(x, FUNCTIONS[function], "numpy")
    curves = {function: f(grid), f"order {order}": sum(terms)}
    error = np.abs(np.subtract(*curves.values())).max()
    alt = (
        f"{function} and its Taylor polynomial of order {order} about {centre:g}; "
        f"on [-0.9, 4] they differ by at most {error:.3g}."
    )
    return plots.lines(grid, curves, xlabel="x", ylabel="value", alt=alt, ylim=(-2, 4))


def steps(path: taylor.Path) -> Picture:
    """How far the first- and second-order predictions are off, against the size of the step."""
    figure, (axes,) = plots.canvas()
    told = {"first order": path.first, "second order": path.second}
    errors = {label: (predicted - path.actual).abs() for label, predicted in told.items()}
    plots.draw(axes, path.t, errors, marks=True)
    axes.set(xscale="log", yscale="log")
    alt = (
        "Error of two predictions against the step size, both axes logarithmic: the straight line "
        "of the second order is steeper and lower for small steps."
    )
    return plots.finish(figure, alt, "step size t", "|predicted − true change|", above=2)


def shares(along: Mapping[str, Sequence[taylor.Path]], scales: Sequence[float]) -> list[Row]:
    """The error of the second-order prediction in per cent of the curvature term, by network and t.

    Returns the median and the quartiles over the paths.
    """
    rows: list[Row] = []
    quarters = torch.tensor([0.25, 0.5, 0.75])
    for name, paths in along.items():
        parts = [((p.second - p.actual) / (p.second - p.first)).abs() for p in paths]
        spans = 100 * torch.stack(parts).quantile(quarters, dim=0).T
        for t, (low, mid, high) in zip(scales, spans, strict=True):
            rows.append({"network": f"{name}, t = {t}", "median": mid, "from": low, "to": high})
    return rows


def vectors(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """A gradient (3,), a symmetric Hessian (3, 3) and a step (3,)."""
    g, H, delta = normal(rng, 3, 3, 3)
    return g[0], H + H.T, delta[0]


ORDERS = [2, 3, 4]


def function_at(rng: random.Random, order: int) -> tuple[Expr, Symbol, int, int]:
    """A function, its variable, an expansion point and an order of at least 2."""
    v = rng.choice([x, t])
    f = rng.choice([sympy.exp(2 * v), sympy.sin(v) + v**5, sympy.cos(3 * v) * v])
    return f, v, rng.choice([1, 2]), order


def weights(rng: random.Random) -> tuple[Tensor, ...]:
    """Gradient, curvature and value of four weights; a curvature is negative."""
    g, h, w = normal(rng, 3, 4)
    h[:2] = torch.stack([h[0].abs(), -h[1].abs()])
    return g, h, w


def coefficient(f: Expr, v: Symbol, a: int, k: int) -> Expr:
    """The coefficient of (x − a)ᵏ, read off the polynomial."""
    at = expression("a", a)
    return sympy.diff(highest(f.subs(v, x), a), x, k).subs(x, at) / sympy.factorial(k)


@cache
def highest(f: Expr, a: int) -> Expr:
    """The polynomial in x of the highest order that is asked; few are drawn, each takes a while."""
    return taylor.polynomial(f, x, (a,), max(ORDERS))


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operations that torch does: how many, and the most numbers that one of them gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.steps += 1
        self.most = max(
            [self.most, *(t.numel() for t in tree_leaves(made) if isinstance(t, Tensor))]
        )
        return made


MANY = 50  # weights; a product takes 60 to 180 operations, all the rows of H take over 1800
TOO_MUCH = 600


def whole(function: Callable[..., Any]) -> str:
    """Whether a product Hv is made without the n × n numbers of H, tried on a function of many."""
    dice = torch.Generator().manual_seed(0)
    at, v = torch.randn(2, MANY, generator=dice, dtype=torch.float64)

    def f(p: Tensor) -> Tensor:
        return (p * p.roll(1)).sum() ** 2 + p.sin().sum() + p.sum() ** 3 / MANY

    with Work() as work:
        call = called(function, (f, at, v))
    if call.error:
        return f"it is right for 3 weights; with {MANY} it raises {type(call.error).__name__}"
    if not same(call.answer, full_hessian(f, at) @ v):
        return f"it is right for 3 weights, and not for {MANY}: use the length of at"
    if work.most >= MANY**2 or work.steps > TOO_MUCH:
        return (
            "the numbers are right, but on the way you make the whole of H, row by row or at once. "
            "A network has millions of rows: differentiate the one number gᵀv instead"
        )
    return ""


TASKS = {
    "02.1": Task(
        draw=vectors,
        answer=lambda g, H, d: g @ d + 0.5 * d @ H @ d,
        mistakes={
            "the factor ½ before the quadratic term is missing": lambda g, H, d: g @ d + d @ H @ d,
            "the factor ½ belongs to the quadratic term only": lambda g, H, d: (
                0.5 * (g @ d + d @ H @ d)
            ),
            "the sign of the first-order term is wrong": lambda g, H, d: -g @ d + 0.5 * d @ H @ d,
            "this is the first order only; the quadratic term is missing": lambda g, H, d: g @ d,
            "this uses the diagonal of H only; the weights interact": lambda g, H, d: (
                g @ d + 0.5 * H.diagonal() @ d**2
            ),
            "the linear term is missing": lambda g, H, d: 0.5 * d @ H @ d,
        },
    ),
    "02.2": Task(
        draw=function_at,
        kinds=ORDERS,
        answer=coefficient,
        mistakes={
            "divide by k!: the derivative alone is not the coefficient": (
                lambda f, v, a, k: sympy.diff(f, v, k).subs(v, a)
            ),
            "divide by k! (k factorial), not by k": (
                lambda f, v, a, k: sympy.diff(f, v, k).subs(v, a) / k
            ),
            "expand about a, not about 0": (
                lambda f, v, a, k: sympy.diff(f, v, k).subs(v, 0) / sympy.factorial(k)
            ),
        },
    ),
    "02.3": Task(
        draw=weights,
        answer=lambda g, h, w: -g * w + 0.5 * h * w**2,
        mistakes={
            "the sign is wrong: the step to zero is δ = −w": lambda g, h, w: g * w + 0.5 * h * w**2,
            "the factor ½ is missing": lambda g, h, w: -g * w + h * w**2,
            "this is the first order only; the curvature is missing": lambda g, h, w: -g * w,
            "the gradient is missing; that is right only where it is zero": lambda g, h, w: (
                0.5 * h * w**2
            ),
        },
    ),
    "02.4": Task(
        draw=curved,
        answer=lambda f, at, v: full_hessian(f, at) @ v,
        also=whole,
        mistakes={
            "these are the row sums of H: the direction v is not used": lambda f, at, v: (
                full_hessian(f, at).sum(1)
            ),
            "this uses the diagonal of H only": lambda f, at, v: full_hessian(f, at).diagonal() * v,
            "this is the gradient; differentiate gᵀv once more": lambda f, at, v: grad(f)(at),
            "the vector is v; at is only where H is taken": lambda f, at, v: (
                full_hessian(f, at) @ at
            ),
        },
    ),
}
