"""Text is never executed: sympy parses strings, and what prints like one, with Python's eval."""

import numpy as np
import pytest
import sympy
from sympy.codegen.ast import FunctionCall

from teachkit import hessian, taylor
from teachkit.engine import solving, symbolic
from teachkit.show import answers, plots
from teachkit.show.lessons import hessian as hessian_scenes
from teachkit.show.lessons import taylor as taylor_scenes

x, y = sympy.symbols("x y")
ALT = "level lines of a function"


@pytest.fixture
def trace(tmp_path):
    """A file that is there as soon as the text below is evaluated, and the text."""
    file = tmp_path / "trace"
    return file, f"__import__('pathlib').Path({str(file)!r}).touch() or Symbol('x')"


class Printed:
    """Looks like text once it is printed."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text

    __repr__ = __str__


KINDS = {
    "str": str,
    "numpy str": np.str_,
    "bytes": str.encode,
    "printed": Printed,
    "list": lambda text: [text],
    "tuple": lambda text: (text,),
    "set": lambda text: {text},
    "dict": lambda text: {text: text},
    "array": lambda text: np.array([text]),
    "array of no dimension": np.array,
    "array of objects": lambda text: np.array([Printed(text)], dtype=object),
}
DOORS = {
    "gradient f": lambda t: hessian.gradient(t, x),
    "gradient variables": lambda t: hessian.gradient(x**2, t),
    "gradient a variable": lambda t: hessian.gradient(x**2, [x, t]),
    "hessian": lambda t: hessian.hessian(t, x),
    "classify": lambda t: hessian.classify(t, x),
    "discriminant": lambda t: hessian.discriminant(t, (x, y)),
    "sign_test f": lambda t: hessian.sign_test(t, x),
    "sign_test variable": lambda t: hessian.sign_test(x**2, t),
    "kind": hessian.kind,
    "eigenvalue_signs": hessian.eigenvalue_signs,
    "autodiff f": lambda t: hessian.autodiff(t, (x,), {x: 1.0}),
    "autodiff value": lambda t: hessian.autodiff(x**2, (x,), {x: t}),
    "polynomial f": lambda t: taylor.polynomial(t, (x,), (0,), 1),
    "polynomial variable": lambda t: taylor.polynomial(x**2, (t,), (0,), 1),
    "polynomial point": lambda t: taylor.polynomial(x**2, (x,), (t,), 1),
    "polynomial value": lambda t: taylor.polynomial(x**2, (x,), {x: t}, 1),
    "polynomial order": lambda t: taylor.polynomial(x**2, (x,), (0,), t),
    "polynomial_naive f": lambda t: taylor.polynomial_naive(t, (x,), (0,), 1),
    "polynomial_naive variable": lambda t: taylor.polynomial_naive(x**2, (t,), (0,), 1),
    "polynomial_naive value": lambda t: taylor.polynomial_naive(x**2, (x,), {x: t}, 1),
    "remainder": lambda t: taylor.remainder(t, (x,), (0,), 1),
    "lagrange f": lambda t: taylor.lagrange(t, x, 0, 1, y),
    "lagrange variable": lambda t: taylor.lagrange(x**2, (t,), 0, 1, y),
    "lagrange point": lambda t: taylor.lagrange(x**2, x, t, 1, y),
    "lagrange between": lambda t: taylor.lagrange(x**2, x, 0, 1, t),
    "sign": symbolic.sign,
    "coordinates": lambda t: symbolic.coordinates((t,), (0,)),
    "value_at f": lambda t: symbolic.value_at(t, {x: sympy.Integer(1)}),
    "value_at point": lambda t: symbolic.value_at(x, {x: t}),
    "torch_function": lambda t: symbolic.torch_function(t, (x,)),
    "critical_points": lambda t: solving.critical_points(t, x),
    "slope_signs f": lambda t: solving.slope_signs(t, x, []),
    "slope_signs point": lambda t: solving.slope_signs(x**2, x, [t]),
    "contours f": lambda t: plots.contours(t, (x, y), [], alt=ALT),
    "contours variable": lambda t: plots.contours(x * y, (x, t), [], alt=ALT),
    "quadratic": lambda t: hessian_scenes.quadratic(t, 1, 1),
    "verdict D": lambda t: hessian_scenes.verdict(t, 1),
    "verdict fxx": lambda t: hessian_scenes.verdict(1, t),
    "explorer's centre": lambda t: taylor_scenes.polynomial("sin x", t, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_text_is_refused_and_leaves_no_trace(door, kind, trace):
    file, text = trace
    with pytest.raises(TypeError):
        DOORS[door](KINDS[kind](text))
    assert not file.exists()


def test_the_trace_is_left_where_sympy_is_asked(trace):
    file, text = trace
    sympy.sympify(text)
    assert file.exists()


@pytest.mark.parametrize("call", [hessian.classify, hessian.gradient])
def test_text_is_quoted_and_what_is_allowed_is_said(call):
    with pytest.raises(
        TypeError,
        match=r"f must be a sympy expression or a number \(text is not parsed\), got str 'x\*\*2'",
    ):
        call("x**2", x)
    with pytest.raises(TypeError, match=r"variables must be sympy symbols .*, got str 'xy'"):
        call(x**2, "xy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_learners_text_is_a_wrong_answer(kind, trace):
    file, text = trace
    for expected in (x, sympy.eye(2), sympy.Integer(3)):
        assert answers.difference(KINDS[kind](text), expected)
        assert not file.exists()
    assert answers.difference("x", x) == "the type differs: str instead of sympy expression"


def test_a_key_of_a_point_is_no_code(trace):
    file, text = trace
    for key, error, says in (
        (text, ValueError, "the point gives"),
        (np.str_(text), ValueError, "the point gives"),
        (Printed(text), TypeError, "^a key of point must be a sympy Symbol"),
    ):
        for call in (
            lambda k=key: taylor.polynomial(x**2, x, {k: 0}, 1),
            lambda k=key: hessian.autodiff(x**2, x, {k: 0}),
        ):
            with pytest.raises(error, match=says):
                call()
    assert not file.exists()


def test_names_are_no_code(trace):
    """lambdify prints the names of unknown functions, and calls of codegen, into a program."""
    file, _ = trace
    code = f"(lambda v: __import__('pathlib').Path({str(file)!r}).touch())"
    calls = (
        sympy.Function(code)(x),
        FunctionCall(code, (x,)),
        1 + 2 * sympy.Function(code)(x) ** 2,
    )
    for f in calls:
        for call in (
            lambda f=f: hessian.autodiff(f, (x,), {x: 1.0}),
            lambda f=f: plots.contours(f, (x, y), [], alt=ALT),
        ):
            with pytest.raises(ValueError, match="sympy's own functions"):
                call()
    named = sympy.Symbol(code + "(1)")
    assert hessian.autodiff(named**2, (named,), {named: 1.0}).tolist() == [[2.0]]
    plots.contours(named**2 + y, (named, y), [], alt=ALT)
    hessian.classify(named**2, named)
    assert not file.exists()


def test_numbers_of_every_kind_are_expressions():
    assert symbolic.coordinates(x, np.float64(0.5)) == {x: 0.5}
    assert symbolic.coordinates(x, np.int64(2)) == {x: 2}
    assert hessian.gradient(3, x) == sympy.Matrix([0])
    assert taylor.polynomial(2, x, (1,), 1) == 2


def test_the_sign_test_is_for_one_variable():
    with pytest.raises(ValueError, match="one variable"):
        hessian.sign_test(x * y, (x, y))
