"""All real points where the derivatives of a sympy expression are zero, exactly.

Sympy's solvers return what they find, which need not be all. The real roots of one polynomial with
rational coefficients are isolated instead, with radicals or without. A system of them is eliminated
by Gröbner bases to one polynomial for each unknown, and all combinations of their roots are tried:
complete whenever there are finitely many. Elsewhere sympy's solvers are asked, and where they do not
promise all points, a note says why.
"""

from collections.abc import Sequence
from itertools import pairwise, product

import sympy
from sympy import Expr, S, Symbol

from teachkit.engine.symbolic import exact, expression, expression_and_names, sign

Solution = dict[Symbol, Expr]
Solutions = tuple[list[Solution], bool, str]  # the points, whether these are all, and if not, why


def critical_points(f: Expr, variables: Sequence[Symbol] | Symbol) -> Solutions:
    """The real solutions of ∇f = 0 in the domain of f, whether these are all, and if not, why.

    >>> x = Symbol("x")
    >>> critical_points(x**3 - 3 * x, x)
    ([{x: -1}, {x: 1}], True, '')
    """
    f, names = exact(f, variables)
    for v in names:
        if set(v._assumptions_orig) - {"commutative", "real"}:
            given = v._assumptions_orig
            raise ValueError(f"variables must be plain or real symbols, {v} has {given}")
    real = {v: Symbol(v.name, real=True) for v in names}
    unknowns = list(real.values())
    function = f.subs(real, simultaneous=True)
    slopes = [sympy.simplify(sympy.diff(function, v)) for v in unknowns]
    equations = [slope for slope in slopes if slope != 0]
    if not equations:
        return [], False, f"{f} is constant: every point is critical"
    solve = _solve_one if len(names) == 1 else _solve_many
    solutions, complete, note = solve(equations, unknowns)
    points = [{v: p[real[v]] for v in names} for p in solutions]
    points = [p for p in points if _is_real(f.subs(p))]  # log(x) has no value at −1
    return sorted(points, key=lambda p: [float(p[v]) for v in names]), complete, note


def slope_signs(f: Expr, variable: Symbol, points: Sequence[Expr]) -> list[tuple[int, int]]:
    """The sign of f′ before and after each of *all* critical points of f, in their order.

    f′ is tried half-way to the nearest other point or gap of f′, at most 1 away: it has neither a
    zero nor a gap on the way there, so it has one sign. ValueError where the gaps cannot be listed.
    """
    f, (variable, *_) = expression_and_names(f, variable)
    x = sympy.Dummy(variable.name, real=True)
    slope = sympy.diff(f.subs(variable, x), x)
    gaps = sympy.singularities(slope, x, S.Reals)
    if not isinstance(gaps, (sympy.FiniteSet, type(S.EmptySet))):
        raise ValueError(f"f′ = {slope} has more gaps than can be listed: {gaps}")
    places = [sympy.N(expression("a point", p), 50) for p in points]
    marks = sorted(places + [sympy.N(gap, 50) for gap in gaps])
    reach = min([b - a for a, b in pairwise(marks)] + [sympy.Integer(2)]) / 2
    return [(sign(slope.subs(x, a - reach)), sign(slope.subs(x, a + reach))) for a in places]


def _is_real(value: Expr) -> bool:
    """Whether an exact value is a finite real number."""
    number = sympy.N(value, 30)
    return bool(number.is_finite and abs(sympy.im(number)) < 1e-20)


def _rational(equations: list[Expr], names: list[Symbol]) -> bool:
    """Whether these are polynomials with rational coefficients."""
    if not all(e.is_polynomial(*names) for e in equations):
        return False
    return sympy.Poly(sum(equations), *names).domain in (sympy.ZZ, sympy.QQ)


def _solve_one(equations: list[Expr], names: list[Symbol]) -> Solutions:
    """Real roots of one equation in one unknown."""
    (equation,), (x,) = equations, names
    if _rational(equations, names):
        roots = sympy.Poly(equation, x).real_roots(multiple=True)
        return [{x: root} for root in dict.fromkeys(roots)], True, ""
    try:
        solutions = sympy.solveset(equation, x, S.Reals)
    except NotImplementedError as error:
        return [], False, f"sympy cannot solve {equation} = 0: {error}"
    if isinstance(solutions, (sympy.FiniteSet, type(S.EmptySet))):
        return [{x: root} for root in solutions], True, ""
    return [], False, f"the solutions of {equation} = 0 are {solutions}, which cannot be listed"


def _solve_many(equations: list[Expr], names: list[Symbol]) -> Solutions:
    """Real solutions of a system; complete for rational polynomials with finitely many solutions."""
    system = ", ".join(f"{e} = 0" for e in equations)
    try:
        if _rational(equations, names):
            basis = sympy.groebner(equations, *names, order="grevlex")
            if basis.exprs == [1]:
                return [], True, ""
            if basis.is_zero_dimensional:
                return _solve_finite(equations, names), True, ""
        solutions = sympy.solve(equations, names, dict=True)
    except (NotImplementedError, sympy.polys.polyerrors.BasePolynomialError) as error:
        return [], False, f"sympy cannot solve {system}: {error}"
    # A coordinate that depends on another makes a curve of solutions, no point.
    fixed = [p for p in solutions if not any(v.free_symbols for v in p.values())]
    points = [p for p in fixed if len(p) == len(names)]
    real = [p for p in points if all(v.is_real for v in p.values())]
    curves = len(points) < len(solutions)
    why = "there are whole curves of them" if curves else "these points may not be all"
    return real, False, f"{system}: {why}"


def _solve_finite(equations: list[Expr], names: list[Symbol]) -> list[Solution]:
    """All real solutions of a polynomial system with finitely many.

    Eliminating all variables but one leaves a polynomial in that one, whose real roots are
    isolated exactly. Every solution is a combination of such roots, so all of these are tried.
    """
    roots = []
    for v in names:
        others = [w for w in names if w != v]
        last = sympy.groebner(equations, *others, v, order="lex").exprs[-1]
        found = dict.fromkeys(sympy.Poly(last, v).real_roots(multiple=True))
        roots.append([(root, sympy.N(root, 200)) for root in found])
    points = []
    for tried in product(*roots):
        at = {v: number for v, (_, number) in zip(names, tried, strict=True)}
        if all(sign(e.subs(at)) == 0 for e in equations):
            points.append({v: root for v, (root, _) in zip(names, tried, strict=True)})
    return points
