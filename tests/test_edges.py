"""What happens exactly at a limit, and with units, layers and rows that are all zero."""

import math
from functools import partial

import pytest
import sympy
import torch
from drawers import normal
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import hessian, lab, magnitude, masks, neurons, obd, schedule
from teachkit.core import losses
from teachkit.engine import blocks, grams, inverse, merging
from teachkit.engine.units import observed
from teachkit.lab import levenberg, timing


@given(st.integers(2, 4), st.booleans())
def test_a_dead_unit_is_alike_to_every_other_and_written_by_nothing(width, biased):
    net = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2, bias=biased))
    net[0].weight.data[0], net[0].bias.data[0] = 0.0, -1.0
    net[0].weight.data[1:], net[0].bias.data[1:] = normal(width - 1, 2, seed=width), 0.3
    x = normal(9, 2, seed=1)
    layer = observed(net, x)["0"]
    assert not layer.outputs[:, 0].any()
    pairs = merging.by_activations(layer)
    assert (pairs.alike[0] == 1).all()
    assert (pairs.alike[:, 0] == 1).all()
    assert pairs.size[0] == 0
    assert not pairs.ratio[0].any()
    assert not pairs.offset[0].any()
    assert all(bool(part.isfinite().all()) for part in pairs)
    small = neurons.merge(net, (x, torch.zeros(9).long()), 1 / width, "activations")
    torch.testing.assert_close(small(x), net(x))


def test_the_widest_layer_is_allowed_and_one_more_input_is_not():
    assert grams.square(grams.WIDEST, torch.zeros(1, device="meta")).shape == (8192, 8192)
    with pytest.raises(ValueError, match="of 8193 inputs takes 0.5 GB; at most 8192 inputs"):
        grams.square(grams.WIDEST + 1, torch.zeros(1))


def test_of_one_class_the_label_is_0():
    dice = torch.Generator().manual_seed(0)
    assert losses.drawn(torch.randn(4, 1), cross_entropy, dice).tolist() == [0] * 4


@pytest.mark.parametrize(
    "entry", [sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta(sympy.Integer(0))]
)
def test_a_matrix_with_an_entry_without_a_finite_value_decides_nothing(entry):
    assert hessian.kind(sympy.Matrix([[entry, 0], [0, 1]])) == "undecided"
    assert hessian.kind(sympy.Matrix([[entry, 0], [0, -1]])) == "undecided"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_worth_of_units_has_the_dtype_of_the_values(dtype):
    values = torch.arange(8, dtype=dtype) ** 2
    for worth in (
        neurons.shapley(values),
        neurons.banzhaf(values),
        neurons.banzhaf(values, keep=0.3),
    ):
        assert worth.dtype == dtype


def test_sparse_rows_name_the_weight_that_is_not_finite():
    with pytest.raises(ValueError, match="weight has 1 NaN"):
        timing.csr(torch.tensor([[0.0, torch.nan]]))


@pytest.mark.parametrize("corner", [1.0 + 2.0**-52, 0.5, -3.0])
def test_a_fisher_block_that_is_singular_or_indefinite_is_refused(corner):
    F = torch.stack([torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, corner]])])
    with pytest.raises(ValueError, match="1 of 2 blocks of the Fisher matrix are singular"):
        blocks.factor(F, 0.0)
    assert blocks.factor(F, 9.0).isfinite().all()


@pytest.mark.parametrize(
    ("block", "error", "says"),
    [
        (0, ValueError, "block must be a whole number from 1, got 0"),
        (1.5, TypeError, "block must be a whole number, got 1.5"),
    ],
)
def test_sparse_squares_name_the_side_that_is_refused(block, error, says):
    with pytest.raises(error, match=says):
        timing.csr(torch.eye(2), block)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levenberg_marquardt_works_in_the_dtype_of_its_start(dtype):
    X = torch.tensor([[1.0], [2.0]], dtype=dtype)

    def line(theta):
        return theta @ X.T, X.expand(len(theta), -1, -1)

    fitted = levenberg.fit(line, torch.zeros(1, 1, dtype=dtype), 2 * X[:, 0])
    assert {part.dtype for part in fitted} == {dtype}
    torch.testing.assert_close(fitted.theta, torch.full((1, 1), 2.0, dtype=dtype))


def test_operations_are_not_counted_on_data_that_does_not_fit():
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="x has 1 NaN"):
        masks.operations(net, torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(TypeError, match="the data is torch.float32"):
        masks.operations(net.double(), torch.ones(1, 2, dtype=torch.float32))


class Divided(nn.Module):
    """Two layers with a division between them, by a number or by what the first put out."""

    def __init__(self, by_itself):
        super().__init__()
        self.by_itself = by_itself
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)
        for i, p in enumerate(self.parameters()):
            p.data = normal(*p.shape, seed=i)

    def forward(self, x):
        h = self.a(x)
        return self.b(h / (h.square().sum(1, keepdim=True) + 1) if self.by_itself else h / 3.0)


@pytest.mark.parametrize(("by_itself", "method"), [(False, "backward"), (True, "products")])
def test_a_division_by_a_number_is_covered_and_one_by_activations_is_not(by_itself, method):
    net, batch = Divided(by_itself), (normal(5, 3, seed=9), torch.arange(5) % 2)
    fast = obd.diagonal(net, batch)
    assert fast.method == method
    slow = obd.by_products(net, batch)
    for name, h in fast.items():
        torch.testing.assert_close(h, slow[name])


def one_way(model, batch, loss, weight):
    return magnitude.scores(model)


def another_way(model, batch, loss, weight):
    return magnitude.scores(model)


def test_a_file_of_a_run_tells_the_functions_inside_partials_apart(tmp_path):
    data, net = lab.data.digits(), lab.models.mlp(hidden=(2,))

    def run(criterion):
        options = {"steps": 1, "epochs": 0, "file": tmp_path / "run.pt", "progress": False}
        return schedule.gradual(net, data, criterion, schedule.constant(0.5), **options)

    first = run(partial(one_way, weight=1))
    assert run(partial(one_way, weight=1)).steps == first.steps
    for other in (partial(another_way, weight=1), partial(one_way, weight=2), one_way):
        with pytest.raises(ValueError, match=r"run\.pt"):
            run(other)


@pytest.mark.parametrize("curved", [nn.Tanh, nn.Sigmoid, nn.SiLU])
def test_a_pooling_whose_windows_overlap_may_stand_before_a_curved_activation(curved):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.MaxPool2d(2, 1), curved(), nn.Flatten(), nn.Linear(8, 3)
    )
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=i)
    batch = normal(6, 1, 4, 4, seed=9), torch.arange(6) % 3
    fast, slow = obd.diagonal(net, batch), obd.by_products(net, batch)
    for name, h in slow.items():
        torch.testing.assert_close(fast[name], h)


def test_the_estimated_diagonal_takes_three_directions():
    net, (x, y) = lab.models.mlp((4,), 3, hidden=(5,)), (normal(9, 4, seed=2), torch.arange(9) % 3)
    dice = torch.Generator().manual_seed(0)
    h = obd.hutchinson(net, (x, y), directions=3, generator=dice).mean
    scores = obd.hutchinson_scores(net, (x, y))
    assert all(torch.equal(s, obd.saliency(h[n], net.get_parameter(n))) for n, s in scores.items())


@given(st.sampled_from([1e-9, 1.0, 1e9]))
def test_a_unit_is_no_constant_because_its_outputs_are_large_or_small(scale):
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).float()
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=i).float()
    x = normal(20, 2, seed=9).float()
    want = merging.by_activations(observed(net, x)["0"]).alike
    net[0].weight.data *= scale
    net[0].bias.data *= scale
    torch.testing.assert_close(merging.by_activations(observed(net, x)["0"]).alike, want)


def test_what_is_empty_or_gone_costs_nothing_to_say():
    assert inverse.symmetric("H", torch.zeros(0, 0)).shape == (0, 0)
    assert neurons.costs(torch.ones(1, 2), torch.zeros(2, 2)).tolist() == [math.inf, math.inf]


def test_the_stem_of_a_residual_network_keeps_the_size_of_an_image():
    net = lab.models.residual(4, blocks=1).eval()
    assert net[0](torch.rand(1, 1, 8, 8)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: neurons.banzhaf(torch.zeros(4), keep=2.0), "keep must"),
        (lambda: masks.combine({}, 3), r"masks\[1\] must"),
        (lambda: neurons.teams(torch.tensor([0.5, 1.0])), "units must be a list of whole numbers"),
        (lambda: neurons.teams(torch.tensor([True])), "units must be a list of whole numbers"),
    ],
)
def test_the_argument_is_named(call, says):
    with pytest.raises((TypeError, ValueError), match=f"^{says}"):
        call()


@given(st.integers(0, 9), st.integers(1, 3))
def test_what_is_explained_is_r_squared_with_a_constant(seed, stay):
    A, keep = normal(12, 5, seed=seed).double() + 3, torch.arange(5) < stay
    X = torch.cat([A[:, keep], torch.ones(12, 1, dtype=A.dtype)], 1)
    left = A[:, ~keep] - X @ torch.linalg.lstsq(X, A[:, ~keep]).solution
    want = 1 - left.square().sum() / (12 * A[:, ~keep].var(0, correction=0).sum())
    assert neurons.explained(A, keep) == pytest.approx(float(want), abs=1e-10)
