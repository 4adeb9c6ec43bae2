"""Taylor's polynomial of a sympy expression, and what it leaves out."""

from collections.abc import Mapping, Sequence

import sympy
from sympy import Expr, Symbol

from teachkit.core import checks

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
