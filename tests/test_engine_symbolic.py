"""Exact signs, and all points of zero gradient."""

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit.engine import solving, symbolic

x, y = sympy.symbols("x y")


@given(st.fractions(), st.integers(0, 40))
def test_signs_of_tiny_numbers_are_exact(number, power):
    tiny = sympy.Rational(number.numerator, number.denominator * 10**power)
    assert symbolic.sign(tiny) == (number > 0) - (number < 0)
    assert symbolic.sign((1 + sympy.sqrt(2)) ** 2 - 3 - 2 * sympy.sqrt(2) + tiny) == (
        (number > 0) - (number < 0)
    )


def test_what_is_no_number_has_no_sign():
    for value in (x, sympy.nan, sympy.zoo):
        with pytest.raises(ValueError, match="has no sign"):
            symbolic.sign(value)


@given(st.lists(st.fractions(max_denominator=50), min_size=1, max_size=4))
def test_all_critical_points_of_a_polynomial_are_its_slopes_roots(roots):
    f = sympy.integrate(sympy.prod(x - sympy.Rational(str(r)) for r in roots), x)
    points, complete, note = solving.critical_points(f, x)
    assert [p[x] for p in points] == sorted({sympy.Rational(str(r)) for r in roots})
    assert (complete, note) == (True, "")


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=3, unique=True))
def test_the_slope_changes_its_sign_at_roots_of_odd_order(roots):
    f = sympy.integrate(sympy.prod((x - r) ** (1 + i) for i, r in enumerate(roots)), x)
    signs = solving.slope_signs(f, x, sorted(map(sympy.Integer, roots)))
    for r, (before, after) in zip(sorted(roots), signs, strict=True):
        assert (before != after) == (roots.index(r) % 2 == 0)


def test_points_come_by_name_or_in_order():
    assert symbolic.coordinates((x, y), {y: 2, x: 1}) == symbolic.coordinates((x, y), [1, 2])
    assert symbolic.coordinates(x, 3) == {x: 3}


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_torch_function_has_the_values_of_its_expression(a, b):
    f = sympy.atan(x * y) + sympy.sqrt(2) * sympy.cos(x) + sympy.Abs(y) * sympy.pi
    value = symbolic.torch_function(f, (x, y))(torch.tensor([a, b]))
    assert float(value) == pytest.approx(float(f.subs({x: a, y: b})), rel=1e-12)
