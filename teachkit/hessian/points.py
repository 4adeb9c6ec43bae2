"""The second-derivative test: which critical point is a minimum, a maximum, a saddle."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import sympy
from sympy import Expr, Matrix, S, Symbol

from teachkit.hessian.solving import Point, critical_points, is_real
from teachkit.hessian.symbolic import expression_and_names, hessian, kind, sign


class CriticalPoint(NamedTuple):
    """A point with zero gradient, what it is, the value there, and the Hessian that says so.

    ``kind`` is "minimum", "maximum", "saddle" or "undecided" (the second-derivative test is silent).
    """

    point: Point
    kind: str
    value: Expr
    hessian: Matrix


class CriticalPoints(tuple[CriticalPoint, ...]):
    """Critical points in a row, with ``complete`` (these are all real ones) and a ``note`` if not."""

    complete: bool
    note: str

    def __new__(
        cls, points: Iterable[CriticalPoint], complete: bool = True, note: str = ""
    ) -> "CriticalPoints":
        """Make the tuple and note whether it is complete."""
        made = super().__new__(cls, points)
        made.complete, made.note = complete, note
        return made


def classify(f: Expr, variables: Sequence[Symbol] | Symbol) -> CriticalPoints:
    """Find the real critical points of f and apply the second-derivative test to each.

    One variable: f″ > 0 minimum, f″ < 0 maximum, f″ = 0 undecided. Two: D > 0 and f_xx > 0 minimum,
    D > 0 and f_xx < 0 maximum, D < 0 saddle, D = 0 undecided. In general: all eigenvalues of H
    positive, all negative, both signs, and undecided when some are zero and the others agree.

    Args:
        f: a sympy expression in no other symbols than the variables.
        variables: a symbol or several.

    Returns:
        The points in order of their coordinates. ``complete`` is False where sympy cannot say that
        these are all; ``note`` then says why.

    >>> x, y = sympy.symbols("x y")
    >>> [(p.point, p.kind) for p in classify(x**3 - 3*x + y**2, (x, y))]
    [({x: -1, y: 0}, 'saddle'), ({x: 1, y: 0}, 'minimum')]

    """
    f, names = expression_and_names(f, variables)
    f = sympy.nsimplify(f, rational=True)  # a rounding error would count as a sign
    H = hessian(f, names)
    points, complete, note = critical_points(f, names)
    found = [
        CriticalPoint(point, kind(H.subs(point)), _value(f, point), H.subs(point))
        for point in points
        if is_real(f.subs(point))  # outside the domain of f there is nothing to classify
    ]
    return CriticalPoints(found, complete, note)


def sign_test(f: Expr, variable: Symbol) -> CriticalPoints:
    """Decide each critical point in one variable by the sign of f′ before and after it.

    f′ from − to + is a minimum, from + to − a maximum, without a change an "inflection". This
    decides where f″ = 0 leaves :func:`classify` undecided: f′ has no zero and no gap between the
    point and the places it is tried at.

    Raises:
        ValueError: not all critical points are known, so that "before" and "after" are not safe.

    >>> x = sympy.Symbol("x")
    >>> [p.kind for p in sign_test(x**4, x)], [p.kind for p in sign_test(x**3, x)]
    (['minimum'], ['inflection'])

    """
    f, (variable,) = expression_and_names(f, variable)
    f = sympy.nsimplify(f, rational=True)
    found = classify(f, variable)
    if not found.complete:
        raise ValueError(f"the sign test needs all critical points of {f}: {found.note}")
    x = sympy.Dummy(variable.name, real=True)
    slope = sympy.diff(f.subs(variable, x), x)
    gaps = sympy.singularities(slope, x, S.Reals)
    if not isinstance(gaps, (sympy.FiniteSet, type(S.EmptySet))):
        raise ValueError(f"f′ = {slope} has more gaps than can be listed: {gaps}")
    marks = sorted([sympy.N(p.point[variable], 50) for p in found] + [sympy.N(g, 50) for g in gaps])
    reach = min([b - a for a, b in pairwise(marks)] + [sympy.Integer(2)]) / 2

    def decided(p: CriticalPoint) -> CriticalPoint:
        at = sympy.N(p.point[variable], 50)
        before, after = (sign(slope.subs(x, at + side * reach)) for side in (-1, 1))
        kinds = {(-1, 1): "minimum", (1, -1): "maximum"}
        return p._replace(kind=kinds.get((before, after), "inflection"))

    return CriticalPoints(map(decided, found))


def _value(f: Expr, point: Point) -> Expr:
    """F at a point, simplified unless that would take minutes (roots without radicals)."""
    value = f.subs(point)
    return value if value.has(sympy.CRootOf) else sympy.simplify(value)
