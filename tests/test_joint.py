"""The pushes of a step, what they cost together, and the order of removal that minds the sum."""

import pytest
import torch
from drawers import images, networks, normal, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shifts import network, removal
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from teachkit import masks, paradox
from teachkit.engine import joint
from teachkit.engine.dense import curvature


@settings(max_examples=25)
@given(networks | images(), seeds)
def test_pushes_are_the_derivative_along_the_step(case, seed):
    net, (x, _) = case
    kept = removal(net, seed)
    delta, eps = masks.change(net, kept), 1e-6
    ends = []
    for sign in (1, -1):
        moved = masks.apply(net, {})
        for name, step in delta.items():
            moved.get_parameter(name).data += sign * eps * step
        ends.append(moved(x).detach())
    want = (ends[0] - ends[1]) / (2 * eps)
    torch.testing.assert_close(paradox.pushes(net, x, kept), want, rtol=1e-4, atol=1e-6)


@settings(max_examples=20)
@given(networks, seeds)
def test_the_joint_cost_is_that_of_the_whole_matrix(case, seed):
    net, batch = case
    kept = removal(net, seed)
    G = curvature(net, batch, kind="gauss-newton")
    d = torch.cat([step.reshape(-1) for step in masks.change(net, kept).values()])
    found = paradox.joint_cost(net, batch, kept)
    assert found == pytest.approx(float(0.5 * d @ G @ d), rel=1e-7, abs=1e-12)


def test_the_joint_cost_hears_the_loss():
    net, x = nn.Linear(2, 1), normal(5, 2, seed=1)
    kept = {"weight": torch.tensor([[True, False]])}
    found = paradox.joint_cost(net, (x, x[:, :1]), kept, mse_loss)
    assert found == pytest.approx(float((x[:, 1] * net.weight[0, 1]).square().mean()))
    with pytest.raises(ValueError, match="must be a mean over the samples"):
        paradox.joint_cost(net, (x, x[:, :1]), kept, lambda z, y: ((z - y) ** 2).sum())


def greedy_naive(G, w, g=None):
    """Try every weight that is left, and take off the one after which ½ δᵀGδ (+ gᵀδ) is least."""
    gone, order = torch.zeros_like(w, dtype=torch.bool), []
    for _ in range(len(w)):
        costs = {}
        for i in (~gone).nonzero()[:, 0].tolist():
            step = torch.where(gone, -w, 0.0)
            step[i] = -w[i]
            costs[i] = float(0.5 * step @ G @ step + (0 if g is None else g @ step))
        order.append(min(costs, key=costs.get))
        gone[order[-1]] = True
    return order


@given(st.integers(1, 7), seeds, st.booleans())
def test_greedy_takes_what_costs_the_sum_least(n, seed, signed):
    A, w, g = normal(n, n, seed=seed), normal(n, seed=seed + 1), normal(n, seed=seed + 2)
    given_g = g if signed else None
    assert joint.greedy(A @ A.T, w, given_g).tolist() == greedy_naive(A @ A.T, w, given_g)


@given(st.integers(2, 9), st.integers(1, 12), seeds)
def test_greedy_gives_every_weight_one_place_however_many_go_at_once(n, at_once, seed):
    A, w = normal(n, n, seed=seed), normal(n, seed=seed + 1)
    w[seed % n] = 0.0
    order = joint.greedy(A @ A.T, w, at_once=at_once)
    assert sorted(order.tolist()) == list(range(n))
    assert order[0] == seed % n


def test_two_that_cancel_go_together_and_two_that_agree_do_not():
    """z = w1 a + w2 a + w3 b: w1 = −w2 cancel, so the first pair costs nothing; OBD cannot see it."""
    a, b = normal(200, seed=1), normal(200, seed=2)
    net = nn.Linear(3, 1, bias=False)
    net.weight.data = torch.tensor([[1.0, -1.0, 0.9]])
    batch = (torch.stack([a, a, b], 1), torch.zeros(200, 1))
    order = paradox.joint_scores(net, batch, mse_loss)["weight"][0].argsort()
    assert order[0] == 2  # alone it is the cheapest
    G = curvature(net, batch, mse_loss, kind="gauss-newton")
    pair = torch.tensor([-1.0, 1.0, 0.0])
    assert float(pair @ G @ pair) == pytest.approx(0, abs=1e-12)


def test_the_order_of_a_network_is_that_of_its_matrix():
    net, batch = network(4)
    scores = paradox.joint_scores(net, batch)
    G = curvature(net, batch, kind="gauss-newton")
    w = torch.cat([p.detach().reshape(-1) for p in masks.prunable(net).values()])
    flat = torch.cat([s.reshape(-1) for s in scores.values()])
    assert flat.argsort().tolist() == joint.greedy(G, w).tolist()
    with pytest.raises(ValueError, match="at_once must be a whole number from 1, got 0"):
        paradox.joint_scores(net, batch, at_once=0)


def test_too_many_weights_are_refused():
    net = nn.Linear(100, 81)
    batch = (torch.zeros(2, 100), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="at most 8000 weights are allowed"):
        paradox.joint_scores(net, batch, cross_entropy)
