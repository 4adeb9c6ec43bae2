"""All real points where the derivatives of a sympy expression are zero, exactly."""

from collections.abc import Sequence
from itertools import chain, product

import sympy
from sympy import Expr, S, Symbol

from teachkit.hessian.symbolic import expression_and_names, gradient, sign

Point = dict[Symbol, Expr]


def critical_points(f: Expr, variables: Sequence[Symbol] | Symbol) -> tuple[list[Point], bool, str]:
    """The real solutions of ∇f = 0, whether these are all, and if not, why.

    Polynomials in one variable are solved completely by isolating real roots, polynomials in
    several by elimination with Gröbner bases; for anything else sympy's solvers are asked.
    """
    f, names = expression_and_names(f, variables)
    for v in names:
        if set(v._assumptions_orig) - {"commutative", "real"}:
            raise ValueError(
                f"variables must be plain or real symbols, {v} has {v._assumptions_orig}"
            )
    real = {v: Symbol(v.name, real=True) for v in names}
    back = {r: v for v, r in real.items()}
    exact = sympy.nsimplify(f, rational=True).subs(real, simultaneous=True)
    slopes = map(sympy.simplify, gradient(exact, list(real.values())))
    equations = [e for e in slopes if e != 0]
    if not equations:
        return [], False, f"{f} is constant: every point is critical"
    solve = _solve_one if len(names) == 1 else _solve_many
    found, complete, note = solve(equations, list(real.values()))
    points = [{back[v]: p[v] for v in p} for p in found]
    return sorted(points, key=lambda p: [float(p[v]) for v in names]), complete, note


def _solve_one(equations: list[Expr], names: list[Symbol]) -> tuple[list[Point], bool, str]:
    """Real roots of one equation in one unknown."""
    (equation,), (x,) = equations, names
    if equation.is_polynomial(x) and sympy.Poly(equation, x).domain in (sympy.ZZ, sympy.QQ):
        roots = sympy.Poly(equation, x).real_roots(multiple=True)
        return [{x: root} for root in dict.fromkeys(roots)], True, ""
    try:
        solutions = sympy.solveset(equation, x, S.Reals)
    except NotImplementedError as error:
        return [], False, f"sympy cannot solve {equation} = 0: {error}"
    if isinstance(solutions, sympy.FiniteSet):
        return [{x: root} for root in solutions], True, ""
    if solutions is S.EmptySet:
        return [], True, ""
    return [], False, f"the solutions of {equation} = 0 are {solutions}, which cannot be listed"


def _solve_many(equations: list[Expr], names: list[Symbol]) -> tuple[list[Point], bool, str]:
    """Real solutions of a system; complete for rational polynomials with finitely many solutions."""
    system = ", ".join(f"{e} = 0" for e in equations)
    polynomial = all(e.is_polynomial(*names) for e in equations)
    try:
        if polynomial and sympy.Poly(sum(equations), *names).domain in (sympy.ZZ, sympy.QQ):
            basis = sympy.groebner(equations, *names, order="grevlex")
            if basis.exprs == [1]:
                return [], True, ""
            if basis.is_zero_dimensional:
                return _solve_finite(equations, names), True, ""
        solutions = sympy.solve(equations, names, dict=True)
    except (NotImplementedError, sympy.polys.polyerrors.BasePolynomialError) as error:
        return [], False, f"sympy cannot solve {system}: {error}"
    found = [
        s for s in solutions if len(s) == len(names) and not any(v.free_symbols for v in s.values())
    ]
    real = [s for s in found if all(v.is_real for v in s.values())]
    curves = len(found) < len(solutions)
    why = "there are whole curves of them" if curves else "these points may not be all"
    return real, False, f"{system}: {why}"


def _solve_finite(equations: list[Expr], names: list[Symbol]) -> list[Point]:
    """All real solutions of a polynomial system with finitely many.

    Eliminating all variables but one leaves a polynomial in that one, whose real roots are
    isolated exactly. Every solution is a combination of such roots, so all of these are tried.
    """
    roots = []
    for v in names:
        others = [w for w in names if w != v]
        last = sympy.groebner(equations, *others, v, order="lex").exprs[-1]
        roots.append(dict.fromkeys(sympy.Poly(last, v).real_roots(multiple=True)))
    numbers = {root: sympy.N(root, 200) for root in chain(*roots)}

    def solves(p: Point) -> bool:
        at = {v: numbers[root] for v, root in p.items()}
        return all(sign(e.subs(at)) == 0 for e in equations)

    candidates = (dict(zip(names, values, strict=True)) for values in product(*roots))
    return [p for p in candidates if solves(p)]


def is_real(value: Expr) -> bool:
    """Whether an exact value is a finite real number."""
    number = sympy.N(value, 30)
    return bool(number.is_finite and abs(sympy.im(number)) < 1e-20)
