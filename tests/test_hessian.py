"""Gradients, Hessians and the second-derivative test."""

import math

import numpy as np
import oracles
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from teachkit import hessian, lab

x, y, z = sympy.symbols("x y z")
COEFFICIENT = st.integers(-4, 4)


@st.composite
def polynomials(draw):
    """Polynomials of degree up to 3 in x and y."""
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    return sympy.Add(*(draw(COEFFICIENT) * x**i * y**j for i, j in powers))


@given(polynomials())
def test_hessian_is_the_table_of_second_derivatives(f):
    H = hessian.hessian(f, (x, y))
    assert all(e.expand() == 0 for e in H - sympy.hessian(f, (x, y)))
    assert sympy.expand(hessian.discriminant(f, (x, y)) - H.det()) == 0
    assert hessian.gradient(f, (x, y)) == sympy.Matrix([f.diff(x), f.diff(y)])


@settings(max_examples=12)
@given(polynomials())
def test_classified_points_are_critical_and_of_their_kind(f):
    for p in hessian.classify(f, (x, y)):
        slopes = [complex(sympy.N(s.subs(p.point), 30)) for s in hessian.gradient(f, (x, y))]
        assert max(abs(s) for s in slopes) < 1e-12
        D = float(p.hessian.det())
        fxx = float(p.hessian[0, 0])
        if abs(D) > 1e-9:
            want = "saddle" if D < 0 else "minimum" if fxx > 0 else "maximum"
            assert p.kind == want


@given(st.lists(st.integers(-3, 3), min_size=6, max_size=6))
def test_signs_of_eigenvalues_are_counted_exactly(entries):
    a, b, c, d, e, f = entries
    H = sympy.Matrix([[a, b, c], [b, d, e], [c, e, f]])
    values = np.linalg.eigvalsh(np.array(H.tolist(), float))
    assert hessian.eigenvalue_signs(H) == ((values > 1e-9).sum(), (values < -1e-9).sum())


@pytest.mark.parametrize(
    ("f", "variables", "kinds"),
    [
        (x**4 - 2 * x**2, x, ["minimum", "maximum", "minimum"]),
        (x**3, x, ["undecided"]),
        (x**3 + y**3 - 3 * x * y, (x, y), ["saddle", "minimum"]),
        (-(x**2) - y**2, (x, y), ["maximum"]),
        (x**4 + y**4, (x, y), ["undecided"]),
        (x**2 - y**2 + z**4, (x, y, z), ["saddle"]),
        (x**2 + y**2 + z**4, (x, y, z), ["undecided"]),
        (x**4 - 1.5 * x**2, x, ["minimum", "maximum", "minimum"]),
        (sympy.sqrt(2) * x**3 - sympy.pi * x, x, ["maximum", "minimum"]),
        (
            x**5 - 5 * x**3 + x**2 + x,
            x,
            ["maximum", "minimum", "maximum", "minimum"],
        ),  # no radicals
        (x**5 - x + y**5 - 2 * y + x * y, (x, y), ["maximum", "saddle", "minimum", "saddle"]),
        (x * sympy.exp(x), x, ["minimum"]),
        (x + 1 / x, x, ["maximum", "minimum"]),
        (x**7 - x**2 + 3 * x, x, []),
        (x + y, (x, y), []),
        (sympy.exp(x), x, []),
    ],
)
def test_kinds_of_known_functions(f, variables, kinds):
    found = hessian.classify(f, variables)
    assert [p.kind for p in found] == kinds
    assert found.complete
    assert found.note == ""


@pytest.mark.parametrize(
    ("f", "variables", "why"),
    [
        (sympy.sin(x), x, "cannot be listed"),
        (x + sympy.sin(x) * sympy.exp(x), x, "cannot"),
        (sympy.Integer(3), x, "constant: every point is critical"),
        (x**2, (x, y), "whole curves"),
        ((x**2 + y**2 - 1) ** 2, (x, y), "whole curves"),
        (x * y * sympy.exp(-(x**2)), (x, y), "may not be all"),
        (x + sympy.exp(y * x) + sympy.sin(y), (x, y), "sympy cannot solve"),
    ],
)
def test_what_cannot_be_listed_is_said(f, variables, why):
    found = hessian.classify(f, variables)
    assert not found.complete
    assert why in found.note


def test_no_second_derivative_is_undecided():
    (p,) = hessian.classify(sympy.Abs(x), x)
    assert p.kind == "undecided"


@pytest.mark.parametrize(
    ("f", "kinds"),
    [
        (x**4, ["minimum"]),
        (-(x**6), ["maximum"]),
        (x**3, ["inflection"]),
        (x**4 - x**3, ["inflection", "minimum"]),
        (x + 1 / x, ["maximum", "minimum"]),
        (x**4 - 2 * x**2, ["minimum", "maximum", "minimum"]),
    ],
)
def test_sign_test_decides_what_the_second_derivative_leaves_open(f, kinds):
    assert [p.kind for p in hessian.sign_test(f, x)] == kinds


def test_sign_test_needs_all_points_and_few_gaps():
    with pytest.raises(ValueError, match="needs all critical points"):
        hessian.sign_test(sympy.sin(x), x)
    with pytest.raises(ValueError, match="more gaps than can be listed"):
        hessian.sign_test(sympy.tan(x), x)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: hessian.classify(x * y, x),
            ValueError,
            r"symbols that are not variables: \['y'\]",
        ),
        (lambda: hessian.classify(x, ()), ValueError, "different sympy symbols"),
        (lambda: hessian.classify(x, (x, x)), ValueError, "different sympy symbols"),
        (lambda: hessian.classify("x +", x), ValueError, "x"),
        (lambda: hessian.classify(sympy.Matrix([x]), x), TypeError, "must be a sympy expression"),
        (lambda: hessian.discriminant(x**2, (x,)), ValueError, "two variables, got 1"),
        (lambda: hessian.kind(sympy.Matrix([[1, 2], [0, 1]])), ValueError, "must be symmetric"),
        (lambda: hessian.kind(sympy.Matrix([[x]])), ValueError, "matrix of numbers"),
        (lambda: hessian.autodiff(x, (x,), {y: 1.0}), ValueError, r"the point gives \['y'\]"),
    ],
)
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


FUNCTIONS = [
    sympy.exp(x * y) + sympy.sin(x) ** 2,
    sympy.log(1 + x**2) * sympy.tanh(y),
    sympy.sqrt(2 + x) / (1 + y**2) + sympy.pi * x,
    sympy.atan(x) + sympy.cos(x - y) * sympy.E,
    sympy.Integer(7),
    x + 2 * y,
]


@given(st.sampled_from(FUNCTIONS), st.floats(-1, 1), st.floats(-1, 1))
def test_autodiff_agrees_with_algebra(f, a, b):
    exact = hessian.hessian(f, (x, y)).subs({x: a, y: b}).evalf()
    want = torch.tensor(exact.tolist(), dtype=torch.float64).reshape(2, 2)
    torch.testing.assert_close(
        hessian.autodiff(f, (x, y), {x: a, y: b}), want, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
@pytest.mark.parametrize("loss", [cross_entropy, mse_loss])
def test_hessian_of_a_network_is_its_oracle(activation, loss):
    net = lab.models.mlp((3,), 2, hidden=(4,), activation=activation)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(7, 3, generator=generator)
    target = (
        torch.arange(7) % 2 if loss is cross_entropy else torch.randn(7, 2, generator=generator)
    )
    H = hessian.of_model(net, (inputs, target), loss)
    torch.testing.assert_close(
        H, oracles.hessian(net, (inputs, target), loss), rtol=1e-10, atol=1e-12
    )
    part = hessian.of_model(net, (inputs, target), loss, names=["3.weight"])
    torch.testing.assert_close(part, H[16:24, 16:24])
    torch.testing.assert_close(
        hessian.curvatures(net, (inputs, target), loss), torch.linalg.eigvalsh(H)
    )


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4))
def test_rows_at_once_are_rows_one_by_one(at):
    at = torch.tensor(at)
    weights = torch.arange(1.0, len(at) + 1)
    for f in (
        lambda v: (weights * v).sin().sum() * v.exp().sum(),
        lambda v: v.relu().sum() ** 2,
        lambda v: (weights * v).sum(),
    ):
        torch.testing.assert_close(hessian.dense(f, at), hessian.dense_naive(f, at))


def test_hessian_of_a_network_has_limits():
    with pytest.raises(ValueError, match=r"6570 parameters takes 0.3 GB; at most 5000"):
        hessian.of_model(lab.models.mlp(), lab.data.digits().train)
    with pytest.raises(ValueError, match=r"names must be among .*got \['w'\]"):
        hessian.of_model(lab.models.mlp(), lab.data.digits().train, names=["w"])


def test_softmax_regression_is_convex():
    generator = torch.Generator().manual_seed(2)
    batch = (torch.randn(20, 4, generator=generator), torch.arange(20) % 3)
    assert float(hessian.curvatures(lab.models.mlp((4,), 3, hidden=()), batch)[0]) > -1e-12


def test_rounded_coefficients_do_not_count_as_signs():
    u, v = x - 0.1, y - 0.3
    (p,) = hessian.classify((u + 0.1 * v) ** 2 + v**4, (x, y))
    assert p.kind == "undecided"
    (p,) = hessian.classify(-((x - 0.1) ** 4), x)
    assert p.kind == "undecided"
    assert hessian.sign_test(-((x - 0.1) ** 4), (x,))[0].kind == "maximum"


@pytest.mark.parametrize("f", [sympy.log(x) + x, sympy.log(x**2 - 1), sympy.sqrt(x**2 - 1)])
def test_points_outside_the_domain_are_dropped(f):
    assert hessian.classify(f, x) == ()


def test_close_critical_points_are_told_apart():
    at = 10**10
    f = (x - at) ** 2 * (x - at - sympy.Rational(1, 10**8)) ** 2
    assert [p.kind for p in hessian.sign_test(f, x)] == ["minimum", "maximum", "minimum"]


def test_symbols_with_other_assumptions_are_refused():
    p = sympy.Symbol("p", positive=True)
    with pytest.raises(ValueError, match="plain or real symbols, p has"):
        hessian.classify(p**2, p)
    r = sympy.Symbol("r", real=True)
    assert hessian.classify(r**2, r)[0].point == {r: 0}


def test_autodiff_takes_numbers_inside_functions():
    f = sympy.log(2) * x**2 + sympy.sin(1) * x * y + sympy.pi**2 * y**2
    want = [[2 * math.log(2), math.sin(1)], [math.sin(1), 2 * math.pi**2]]
    torch.testing.assert_close(hessian.autodiff(f, (x, y), {x: 1.0, y: 2.0}).tolist(), want)
