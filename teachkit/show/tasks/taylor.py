"""The exercises of lesson 02."""

import random
from collections.abc import Callable
from typing import Any

import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor

from teachkit import taylor
from teachkit.show.task import Task

x = sympy.Symbol("x")


def generator(rng: random.Random) -> torch.Generator:
    """A torch generator seeded from Python's."""
    return torch.Generator().manual_seed(rng.randrange(10**6))


def vectors(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """A gradient (3,), a symmetric Hessian (3, 3) and a step (3,)."""
    g, H, delta = torch.randn(3, 3, 3, generator=generator(rng), dtype=torch.float64)
    return g[0], H + H.T, delta[0]


def function_at(rng: random.Random) -> tuple[Expr, Symbol, int, int]:
    """A function, its variable, an expansion point and an order of at least 2."""
    f = rng.choice([sympy.exp(2 * x), sympy.sin(x) + x**5, sympy.cos(3 * x) * x])
    return f, x, rng.choice([1, 2]), rng.choice([2, 3, 4])


def weights(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, curvature and value of four weights."""
    g, h, w = torch.randn(3, 4, generator=generator(rng), dtype=torch.float64)
    return g, h.abs(), w


def curved(rng: random.Random) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A function with a Hessian that is not constant, a place and a direction."""
    A = torch.randn(3, 3, generator=generator(rng), dtype=torch.float64)
    at, v = torch.randn(2, 3, generator=generator(rng), dtype=torch.float64)
    return (lambda p: (A @ p).pow(3).sum() + p.prod()), at, v


def full(f: Callable[[Tensor], Tensor], at: Tensor) -> Any:
    """The Hessian of f."""
    return torch.func.jacrev(torch.func.grad(f))(at)


def coefficient(f: Expr, v: Symbol, a: int, k: int) -> Expr:
    """The coefficient of (x − a)ᵏ, read off the polynomial of order k."""
    return sympy.diff(taylor.polynomial(f, v, (a,), k), v, k) / sympy.factorial(k)


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
        },
    ),
    "02.2": Task(
        draw=function_at,
        answer=coefficient,
        mistakes={
            "divide by k!: the derivative alone is not the coefficient": (
                lambda f, v, a, k: sympy.diff(f, v, k).subs(v, a)
            ),
            "divide by k! (k factorial), not by k": (
                lambda f, v, a, k: sympy.diff(f, v, k).subs(v, a) / k
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
        answer=lambda f, at, v: full(f, at) @ v,
        mistakes={
            "these are the row sums of H: the direction v is not used": lambda f, at, v: full(
                f, at
            ).sum(1),
            "this uses the diagonal of H only": lambda f, at, v: full(f, at).diagonal() * v,
            "this is the gradient; differentiate gᵀv once more": lambda f, at, v: torch.func.grad(
                f
            )(at),
        },
    ),
}
