"""Dense matrices, products and single gradients of any module, against one derivative at a time."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from teachkit import fisher, lab, masks
from teachkit.engine import dense, gradients

LOSSES = {
    cross_entropy: lambda z: z.argmax(1),
    mse_loss: lambda z: z.sin(),
    binary_cross_entropy_with_logits: lambda z: z.gt(0).to(z),
}
SEEDS = st.integers(0, 10**6)
CHUNKS = st.sampled_from([1, 60, 2**23])  # numbers in work at once


def case(seed, loss, samples=5):
    dice = torch.Generator().manual_seed(seed)
    net = lab.models.mlp((3,), 3, hidden=(4,), activation=nn.Tanh, seed=seed).double()
    x, z = torch.randn(2, samples, 3, generator=dice, dtype=torch.float64)
    return net, (x, LOSSES[loss](z))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


class Odd(nn.Module):
    """No chain: a weight used twice, a product of activations and perhaps an idle layer."""

    def __init__(self, *idle):
        super().__init__()
        self.a, self.idle, self.out = nn.Linear(3, 3), nn.ModuleList(idle), nn.Linear(3, 3)

    def forward(self, x):
        once = self.a(x).tanh()
        return self.out(once * self.a(once))


@settings(max_examples=10)
@given(SEEDS, st.sampled_from(list(LOSSES)))
def test_the_hessian_and_its_diagonal_by_products(seed, loss):
    for net in (case(seed, loss)[0], Odd().double()):
        batch = case(seed, loss)[1]
        want = oracles.hessian(net, batch, loss)
        close(dense.of_model(net, batch, loss), want)
        at = masks.split(want.diagonal(), dict(net.named_parameters()))
        found = dense.by_products(net, batch, loss, biases=True, chunk=7, progress=False)
        assert list(found) == list(at)
        for name, h in found.items():
            close(h, at[name])


@settings(max_examples=10)
@given(SEEDS, st.sampled_from(list(LOSSES)))
def test_a_product_is_a_block_of_the_hessian_times_a_direction(seed, loss):
    net, batch = case(seed, loss)
    for name, w, product in dense.products(net, batch, loss, biases=True):
        H = dense.of_model(net, batch, loss, names=[name])
        v = torch.randn(w.shape, generator=torch.Generator().manual_seed(seed)).to(w)
        close(product(v).reshape(-1), H @ v.reshape(-1))


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(list(LOSSES)), st.booleans(), CHUNKS)
def test_curvatures_whatever_the_chunks(seed, loss, biases, chunk):
    net, batch = case(seed, loss)
    params = list(masks.prunable(net, biases=biases).values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "CHUNK", chunk)
        patch.setattr(gradients, "CHUNK", chunk)
        found = {
            kind: dense.curvature(net, batch, loss, kind=kind, biases=biases)
            for kind in ("gauss-newton", "fisher")
        }
    close(found["gauss-newton"], oracles.gauss_newton(net, batch, loss, params))
    close(found["fisher"], oracles.fisher(net, batch, loss, params))


@settings(max_examples=10)
@given(SEEDS, st.sampled_from(list(LOSSES)), CHUNKS)
def test_single_gradients_of_a_network_that_is_no_chain(seed, loss, chunk):
    torch.manual_seed(seed)
    net, batch = Odd(nn.Linear(2, 2)).double(), case(seed, loss)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "CHUNK", chunk)
        G = gradients.gradients(net, batch, loss)
        squares = gradients.mean_squares(net, batch, loss)
    losses = [loss(net(x[None]), y[None]) for x, y in zip(*batch, strict=True)]
    rows = [torch.autograd.grad(value, net.a.weight)[0] for value in losses]
    close(G[:, :9], torch.stack(rows).flatten(1))
    assert G[:, 9:13].eq(0).all()  # the idle layer
    close(oracles.flat(squares), (G**2).mean(0))


@pytest.mark.parametrize("kind", ["exact", "gauss-newton", "fisher"])
def test_the_dtype_stays_and_a_model_without_weights_has_an_empty_matrix(kind):
    net, (x, y) = case(0, cross_entropy)
    assert dense.curvature(net.float(), (x.float(), y), kind=kind).dtype == torch.float32
    assert dense.curvature(nn.Flatten(), (x, y), kind=kind).shape == (0, 0)


def nothing(z, y):
    return cross_entropy(z, y, reduction="none")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda n, b: dense.curvature(n, b, kind="hessian"),
            "kind must be one of .* got 'hessian'",
        ),
        (lambda n, b: dense.curvature(n, b, nothing, kind="fisher"), "must give one number"),
        (lambda n, b: dense.curvature(n, b, nothing, kind="gauss-newton"), "must give one number"),
        (
            lambda n, b: dense.by_products(n, b, chunk=0),
            "chunk must be a whole number from 1, got 0",
        ),
        (lambda n, b: dense.of_model(n, b, names=["w"]), r"names must be among .* got \['w'\]"),
        (lambda n, b: dense.of_model(n, b, names=[]), r"names must be among .* got \[\]"),
        (lambda n, b: dense.of_model(nn.Linear(3, 2000).double(), b), "takes 0.5 GB; at most 5000"),
        (lambda n, b: dense.curvature(nn.Linear(3, 2000).double(), b), "matrix of 0.3 GB; at most"),
        (lambda n, b: dense.curvature(n, (b[0] * math.nan, b[1])), "15 NaN"),
        (
            lambda n, b: fisher.gradients(n, (b[0], b[1].double()), kind="some"),
            "kind must be one of",
        ),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(*case(0, cross_entropy))
