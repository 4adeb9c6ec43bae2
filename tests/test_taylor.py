"""Taylor polynomials and the quadratic model of a loss."""

import math

import oracles
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from teachkit import lab, taylor
from teachkit.core.objective import objective

x, y, xi = sympy.symbols("x y xi")
FUNCTIONS = [
    sympy.exp(x + y),
    sympy.sin(x * y),
    x**3 * y - y**2,
    sympy.log(3 + x + 2 * y),
    sympy.Integer(5),
]


@settings(max_examples=30)
@given(st.sampled_from(FUNCTIONS), st.integers(0, 4), st.integers(-1, 1), st.integers(0, 1))
def test_polynomial_is_the_sum_over_multi_indices(f, order, a, b):
    found = taylor.polynomial(f, (x, y), (a, b), order)
    assert sympy.simplify(found - taylor.polynomial_naive(f, (x, y), (a, b), order)) == 0
    left = f - found - taylor.remainder(f, (x, y), (a, b), order)
    assert abs(sympy.N(left.subs({x: 0.3, y: 0.7}))) < 1e-12


def test_point_by_name_and_alone():
    f = x**2 * y
    assert taylor.polynomial(f, (x, y), {y: 2, x: 1}, 3).equals(f)
    assert taylor.polynomial(sympy.exp(x), x, {x: 0}, 1) == 1 + x


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_lagrange_bounds_the_remainder(order):
    at = sympy.Rational(1, 2)
    error = abs(taylor.remainder(sympy.exp(x), x, (0,), order).subs(x, at))
    bound = taylor.lagrange(sympy.exp(x), x, 0, order, xi).subs({x: at, xi: at})
    tight = taylor.lagrange(sympy.exp(x), x, 0, order, xi).subs({x: at, xi: 0})
    assert float(tight) <= float(error) <= float(bound)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: taylor.polynomial(sympy.log(x), x, (0,), 2), "not finite at"),
        (lambda: taylor.polynomial(sympy.sqrt(x), x, (0,), 2), "derivative of order 1"),
        (lambda: taylor.polynomial(x, x, (0,), -1), "order must be a whole number from 0, got -1"),
        (lambda: taylor.polynomial(x, x, (0, 1), 1), "2 coordinates for the 1 variables"),
        (lambda: taylor.polynomial(x, x, {y: 0}, 1), r"the point gives \['y'\]"),
    ],
)
def test_bad_expansions_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def small(activation=torch.nn.Tanh, dtype=torch.float64):
    net = lab.models.mlp((3,), 2, hidden=(4,), activation=activation).to(dtype)
    generator = torch.Generator().manual_seed(1)
    batch = (torch.randn(9, 3, generator=generator, dtype=dtype), torch.arange(9) % 2)
    step = {
        n: torch.randn(p.shape, generator=generator, dtype=dtype) for n, p in net.named_parameters()
    }
    return net, batch, step


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU, torch.nn.GELU])
def test_gradient_and_product_are_their_oracles(activation):
    net, batch, step = small(activation)
    g = oracles.gradient(net, batch, cross_entropy)
    H = oracles.hessian(net, batch, cross_entropy)
    v = oracles.flat(step)
    torch.testing.assert_close(oracles.flat(taylor.gradient(net, batch)), g.detach())
    torch.testing.assert_close(oracles.flat(taylor.hessian_vector(net, batch, step)), H @ v)
    want = g @ v + 0.5 * v @ H @ v
    assert taylor.predicted_change(net, batch, step) == pytest.approx(
        float(want.detach()), rel=1e-12
    )
    assert taylor.predicted_change(net, batch, step, order=1) == pytest.approx(
        float((g @ v).detach())
    )


@pytest.mark.parametrize("name", ["lenet5", "vgg_like"])
def test_product_with_convolutions_is_the_slope_of_the_gradient(name):
    net = lab.models.MODELS[name]((1, 8, 8))
    for p in net.parameters():  # black pixels put fresh units exactly on the kink of ReLU
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    batch = tuple(part[:6] for part in lab.data.digits().train)
    generator = torch.Generator().manual_seed(4)
    step = {n: torch.randn(p.shape, generator=generator) for n, p in net.named_parameters()}
    value, params = objective(net, batch)
    ends = []
    for side in (1e-7, -1e-7):  # so short that no unit switches
        moved = {n: (p + side * step[n]).requires_grad_() for n, p in params.items()}
        ends.append(
            torch.cat(
                [g.reshape(-1) for g in torch.autograd.grad(value(moved), list(moved.values()))]
            )
        )
    slope = (ends[0] - ends[1]) / 2e-7
    found = oracles.flat(taylor.hessian_vector(net, batch, step))
    assert float((found - slope).norm() / slope.norm()) < 1e-5


def test_actual_change_is_two_evaluations_and_leaves_the_model_alone():
    net, batch, step = small()
    before = {n: p.clone() for n, p in net.named_parameters()}
    moved = lab.models.mlp((3,), 2, hidden=(4,), activation=torch.nn.Tanh)
    moved.load_state_dict({n: p + step[n] for n, p in before.items()})
    want = lab.evaluation.evaluate(moved, batch).loss - lab.evaluation.evaluate(net, batch).loss
    assert taylor.actual_change(net, batch, step) == pytest.approx(want, rel=1e-12)
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    assert net.training


def test_errors_shrink_with_the_powers_of_the_remainder():
    net, batch, step = small()
    path = taylor.along(net, batch, step, [1e-2, 1e-3])
    for predicted, power in ((path.first, 2), (path.second, 3)):
        error = (predicted - path.actual).abs()
        assert math.log10(float(error[0] / error[1])) == pytest.approx(power, abs=0.2)


def test_parameters_left_out_do_not_move():
    net, batch, step = small()
    part = {"1.bias": step["1.bias"]}
    whole = part | {n: torch.zeros_like(s) for n, s in step.items() if n != "1.bias"}
    assert taylor.predicted_change(net, batch, part) == taylor.predicted_change(net, batch, whole)
    assert taylor.actual_change(net, batch, part) == taylor.actual_change(net, batch, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alone_and_together_are_loops_over_single_steps(dtype):
    net, batch, _ = small(dtype=dtype)
    name, order = "1.weight", [5, 0, 11, 3]
    single = taylor.alone(net, batch, name, order)
    rel = 1e-4 if dtype == torch.float32 else 1e-10
    one_by_one = taylor.alone_naive(net, batch, name, order)
    for found, want, near in zip(single, one_by_one, (0, 0, 1e-7), strict=True):
        assert found.dtype == want.dtype == dtype
        assert found.tolist() == pytest.approx(want.tolist(), rel=rel, abs=near)
    run = taylor.together(net, batch, name, order, [0, 2, 4])
    assert run.weights.tolist() == [0, 2, 4]
    assert float(run.apart[1]) == pytest.approx(float(single.second[:2].sum()), rel=rel)
    both = taylor.zeroing(net, name, order[:2])
    assert float(run.joint[1]) == pytest.approx(taylor.predicted_change(net, batch, both), rel=rel)
    assert float(run.actual[1]) == pytest.approx(taylor.actual_change(net, batch, both), rel=rel)
    assert float(run.actual[0]) == 0.0


def test_zeroing_sets_exactly_these_weights_to_zero():
    net, _, _ = small()
    (delta,) = taylor.zeroing(net, "1.weight", torch.tensor([0, 7])).values()
    moved = (net.get_parameter("1.weight") + delta).detach().reshape(-1)
    assert moved.eq(0).nonzero().reshape(-1).tolist() == [0, 7]
    assert taylor.zeroing(net, "1.weight", [])["1.weight"].eq(0).all()


def test_bad_steps_are_refused():
    net, batch, step = small()
    with pytest.raises(ValueError, match="delta has the key 'w'"):
        taylor.predicted_change(net, batch, {"w": torch.ones(1)})
    with pytest.raises(ValueError, match=r"delta\['1.bias'\] has shape \(3,\), not \(4,\)"):
        taylor.actual_change(net, batch, {"1.bias": torch.ones(3)})
    with pytest.raises(ValueError, match="NaN"):
        taylor.predicted_change(net, batch, {"1.bias": torch.full((4,), math.nan)})
    with pytest.raises(ValueError, match="order must be a whole number from 1 to 2, got 3"):
        taylor.predicted_change(net, batch, step, order=3)
    with pytest.raises(ValueError, match="no parameter 'w'"):
        taylor.zeroing(net, "w", [0])
    with pytest.raises(ValueError, match=r"positions must lie from 0 to 11, got \[12\]"):
        taylor.zeroing(net, "1.weight", [12])
    with pytest.raises(ValueError, match="each count must be a whole number from 0 to 1, got 2"):
        taylor.together(net, batch, "1.weight", [0], [2])


def test_positions_are_whole_numbers():
    net, batch, _ = small()
    with pytest.raises(TypeError, match="positions must be whole numbers, got torch.bool"):
        taylor.zeroing(net, "1.weight", torch.arange(12) >= 10)
    with pytest.raises(TypeError, match="got torch.float64"):
        taylor.alone(net, batch, "1.weight", torch.tensor([2.9]))
    assert [len(part) for part in taylor.alone(net, batch, "1.weight", [])] == [0, 0, 0]


def test_absolute_values_expand_where_they_are_smooth():
    r = sympy.Symbol("r", real=True)
    assert taylor.polynomial(abs(r), r, (1,), 2).equals(r)
    with pytest.raises(ValueError, match="not finite"):
        taylor.polynomial(sympy.Max(x, 0), x, (0,), 2)
