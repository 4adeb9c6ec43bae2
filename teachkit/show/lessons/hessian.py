"""Lesson 01: what its explorers and figures draw, and its exercises."""

import itertools
import random
from collections.abc import Callable
from functools import cache

import numpy as np
import sympy
from sympy import Expr, Matrix, Symbol

from teachkit import hessian
from teachkit.engine.symbolic import expression
from teachkit.show import plots, styles
from teachkit.show.exercises import Task
from teachkit.show.pictures import Picture

x, y, s, t = sympy.symbols("x y s t")


LEVELS = np.array([-16, -8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8, 16])
LOOKS = {-1: (styles.VERMILION, "--"), 0: ("0.3", ":"), 1: (styles.BLUE, "-")}  # by the sign of f


def quadratic(a: float, b: float, c: float) -> Picture:
    """Level lines of f = a x² + b x y + c y² with its D and the verdict at the origin."""
    p, q, r = (sympy.nsimplify(expression(n, v)) for n, v in zip("abc", (a, b, c), strict=True))
    f = p * x**2 + q * x * y + r * y**2
    kind = hessian.kind(hessian.hessian(f, (x, y)))
    D = float(hessian.discriminant(f, (x, y)))
    figure, (axes,) = plots.canvas(width=5.4, height=4.2)
    at = np.linspace(-2, 2, 81)
    z = a * at**2 + b * at * at[:, None] + c * at[:, None] ** 2
    if z.any():
        colors, dashes = zip(*(LOOKS[int(np.sign(level))] for level in LEVELS), strict=True)
        lines = axes.contour(at, at, z, LEVELS, colors=colors, linestyles=dashes, linewidths=1)
        axes.clabel(lines, fontsize=8, fmt="%g")
    axes.scatter(
        0, 0, s=130, color="white", edgecolors="black", marker=plots.MARKERS[kind], zorder=3
    )
    axes.grid(False)
    says = f"D = {D:g}, f_xx = {2 * a:g}: {kind}"
    alt = f"Level lines of f = {a:g} x² + {b:g} x y + {c:g} y². {says} at the origin."
    return plots.finish(figure, alt, "x", "y", says, aspect="equal")


@cache
def verdict(D: float, fxx: float) -> str:
    """The second-derivative test on a matrix with this D and f_xx."""
    bend = expression("fxx", fxx)
    return hessian.kind(Matrix([[bend, 0], [0, sympy.nsimplify(expression("D", D)) / bend]]))


def numbers(rng: random.Random, kind: tuple[int, int, int]) -> tuple[float, float]:
    """A D and an f_xx of these signs, both small or both large."""
    *signs, size = kind
    D, bend = (sign * 10 ** (2 * size + rng.uniform(-1, 1)) for sign in signs)
    return D, bend


def tested(D: float, fxx: float) -> str:
    """The same of any numbers: only their signs matter."""
    return verdict(int(D > 0) - int(D < 0), 1 if fxx > 0 else -1)


def polynomial_in_two(
    rng: random.Random, names: tuple[Symbol, Symbol]
) -> tuple[Expr, Symbol, Symbol]:
    """A random polynomial of degree 5 with a mixed term."""
    v, w = names
    a, b, c = (rng.choice([-3, -2, -1, 1, 2, 3]) for _ in range(3))
    return a * v**3 + b * v**2 * w**3 + c * w**4, v, w


def quartic(rng: random.Random) -> tuple[Callable[[float], float], float, float]:
    """A function of degree 4, for which each step gives another second difference; place, step."""
    a, b = rng.uniform(1, 2), rng.uniform(1, 2)
    return (lambda v: a * v**4 + b * v**3), rng.uniform(0.5, 2), rng.choice([0.25, 0.5])


def second(f: Callable[[float], float], at: float, h: float) -> float:
    """The second difference."""
    return (f(at + h) - 2 * f(at) + f(at - h)) / h**2


TASKS = {
    "01.1": Task(
        draw=lambda rng: tuple(rng.choice([-1, 1]) * rng.uniform(0.5, 3) for _ in range(3)),
        answer=lambda a, b, c: a * b - c * c,
        mistakes={
            "the mixed term enters with a minus sign": lambda a, b, c: a * b + c * c,
            "the mixed term enters twice: f_xy times f_yx": lambda a, b, c: a * b - c,
        },
    ),
    "01.2": Task(
        draw=numbers,
        kinds=list(itertools.product((-1, 0, 1), (-1, 1), (-1, 0))),
        answer=tested,
        mistakes={
            "minimum and maximum are swapped: f_xx > 0 bends upwards": lambda D, fxx: tested(
                D, -fxx
            ),
            "D = 0 is undecided, whatever the sign of f_xx": (lambda D, fxx: tested(D or 1, fxx)),
            "D = 0 is undecided, not a saddle": lambda D, fxx: tested(D or -1, fxx),
            "D > 0 alone is not a minimum: the sign of f_xx tells it from a maximum": (
                lambda D, fxx: tested(D, abs(fxx))
            ),
        },
    ),
    "01.3": Task(
        draw=polynomial_in_two,
        kinds=[(x, y), (y, x), (s, t)],
        answer=lambda f, v, w: hessian.hessian(f, (v, w)),
        mistakes={
            "this is the discriminant, the determinant of the Hessian; the Hessian is the matrix": (
                lambda f, v, w: hessian.discriminant(f, (v, w))
            ),
            "the mixed derivatives f_xy and f_yx are missing": lambda f, v, w: sympy.diag(
                sympy.diff(f, v, 2), sympy.diff(f, w, 2)
            ),
        },
    ),
    "01.4": Task(
        draw=quartic,
        answer=second,
        mistakes={
            "divide by h², not by h: it is a second difference": (
                lambda f, at, h: second(f, at, h) * h
            ),
            "the middle value counts twice": (lambda f, at, h: second(f, at, h) + f(at) / h**2),
            "this is the first derivative": lambda f, at, h: (f(at + h) - f(at - h)) / (2 * h),
            "this is a slope, the first derivative": lambda f, at, h: (f(at + h) - f(at)) / h,
            "the places are x − h, x and x + h, not x, x + h and x + 2h": (
                lambda f, at, h: second(f, at + h, h)
            ),
            "take the step h that is given": lambda f, at, h: second(f, at, h / 2),
        },
    ),
}
