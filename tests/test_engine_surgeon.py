"""One engine for every greedy removal with compensation equals the plain loop."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit.engine import surgeon as engine
from teachkit.engine.surgeon import Elimination, rows, units

SEEDS = st.integers(0, 10**6)


def inverses(B, n, dice):
    X = torch.randn(B, 3 * n, n, generator=dice, dtype=torch.float64)
    return torch.linalg.inv(X.mT @ X / n)


def plain(P, W, count, protected, outgoing):
    """One problem: a fresh copy of everything at each removal, as the formulas say it."""
    order, costs, alive = [], [], list(range(W.shape[1]))
    for _ in range(count):
        free = [j for j in alive if j < W.shape[1] - protected]
        cost = {
            j: (float(W[:, j].square().sum()) if outgoing else 1.0) / float(P[j, j]) for j in free
        }
        q = min(free, key=lambda j: cost[j])
        W = W - W[:, q, None] * (P[q] / P[q, q])
        P = P - torch.outer(P[q], P[q]) / P[q, q]
        alive.remove(q)
        order.append(q)
        costs.append(cost[q])
    return order, costs, W[:, alive], P[alive][:, alive]


@given(st.data(), SEEDS, st.booleans(), st.booleans())
def test_the_engine_is_the_plain_loop(data, seed, shared, outgoing):
    dice = torch.Generator().manual_seed(seed)
    B, r = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    n, block = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    protected = data.draw(st.integers(0, n - 1))
    count = data.draw(st.integers(1, n - protected))
    P = inverses(1 if shared else B, n, dice)
    W = torch.randn(B, r, n, generator=dice, dtype=torch.float64)
    W[:, :, data.draw(st.integers(0, n - 1))] = 0.0  # an old zero
    before = P.clone(), W.clone()
    problem, order, costs = Elimination(P[0] if shared else P, W), [], []
    for start in range(0, count, block):
        steps = min(block, count - start)
        gone, cost = problem.remove(steps, protected=protected, outgoing=outgoing)
        order.append(gone)
        costs.append(cost)
    assert torch.equal(P, before[0])
    assert torch.equal(W, before[1])
    for b in range(B):
        want = plain(P[0 if shared else b], W[b], count, protected, outgoing)
        assert torch.cat(order, 1)[b].tolist() == want[0]
        close = {"rtol": 1e-7, "atol": 1e-9}
        wanted = torch.tensor(want[1], dtype=torch.float64)
        torch.testing.assert_close(torch.cat(costs, 1)[b], wanted, **close)
        torch.testing.assert_close(problem.W[b], want[2], **close)
        torch.testing.assert_close(problem.P[b], want[3], **close)
        left = sorted(set(range(n)) - set(want[0]))
        assert problem.left[b].tolist() == left


@given(st.integers(1, 8), st.integers(1, 3), SEEDS, st.booleans())
def test_units_and_rows_are_thin(n, r, seed, outgoing):
    dice = torch.Generator().manual_seed(seed)
    P = inverses(1, n, dice)[0]
    W = torch.randn(r, n, generator=dice, dtype=torch.float64)
    with mock.patch.object(engine, "BLOCK", 3), mock.patch.object(engine, "TOGETHER", 2):
        order = units(P, W, n - 1, protected=1, outgoing=outgoing)
        trace = rows(P, W)
    assert order.tolist() == plain(P, W, n - 1, 1, outgoing)[0]
    for b in range(r):
        want, costs, *_ = plain(P, W[b : b + 1], n, 0, True)
        assert trace.order[b].tolist() == want
        wanted = torch.tensor(costs, dtype=torch.float64)
        torch.testing.assert_close(trace.losses[b], wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("together", [1, 3])
def test_of_equal_costs_the_first_goes(together):
    eye, ones = torch.eye(5), torch.ones(3, 5)
    assert units(eye, ones, 3, protected=1).tolist() == [0, 1, 2]
    with mock.patch.object(engine, "TOGETHER", together):
        assert rows(eye, ones).order.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_nothing_goes_where_nothing_is_asked():
    assert units(torch.eye(3), torch.ones(2, 3), 0).tolist() == []


def test_a_diagonal_lost_to_rounding_is_said():
    P = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    with pytest.raises(ValueError, match="rounding made a cost negative"):
        units(P, torch.ones(1, 2), 2)
