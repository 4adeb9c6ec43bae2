"""The clock, and layers that are dense, sparse or shrunk."""

import argparse

import pytest
import torch
from coupled_networks import dice
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import structured
from teachkit.lab import timing


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1))
def test_the_sparse_product_is_the_dense_one(outputs, inputs, batch, share):
    g = dice(outputs)
    weight = torch.randn(outputs, inputs, generator=g, dtype=torch.float64)
    weight = weight * (torch.rand(weight.shape, generator=g) >= share)
    x = torch.randn(batch, inputs, generator=g, dtype=torch.float64)
    sparse = timing.csr(weight)
    torch.testing.assert_close((sparse @ x.T).T, x @ weight.T)
    values, columns, starts = structured.csr_parts(weight)
    assert sparse.values().tolist() == values
    assert sparse.col_indices().tolist() == columns
    assert sparse.crow_indices().tolist() == starts
    with pytest.raises(ValueError, match=r"must have shape \(outputs, inputs\), got \(3,\)"):
        timing.csr(torch.ones(3))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1))
def test_blocked_products_store_blocks_and_equal_the_dense_one(rows, columns, block, share):
    g = dice(rows)
    alive = torch.rand(rows, columns, generator=g) >= share
    mask = alive.repeat_interleave(block, 0).repeat_interleave(block, 1)
    weight = torch.randn(mask.shape, generator=g, dtype=torch.float64) * mask
    x = torch.randn(3, columns * block, generator=g, dtype=torch.float64)
    sparse = timing.csr(weight, block)
    assert len(sparse.values()) == int(alive.sum())
    torch.testing.assert_close((sparse @ x.T).T, x @ weight.T)
    with pytest.raises(ValueError, match="must be a matrix of 7x7 blocks"):
        timing.csr(torch.ones(7, 8), 7)


def test_times_are_the_quickest_of_rounds_in_turn(monkeypatch):
    now, log = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    costs = {"a": iter([9, 1, 3, 1, 5, 2, 3]), "b": iter([9, 2, 4, 4, 2, 3, 2])}

    def work(name):
        log.append(name)
        now[0] += next(costs[name])

    found = timing.times({n: lambda n=n: work(n) for n in costs}, rounds=5)
    assert found == {"a": 1, "b": 2}
    assert log == ["a", "a", "b", "b", *["a", "b"] * 5]
    with pytest.raises(ValueError, match="rounds must be a whole number from 1, got 0"):
        timing.times({}, 0)


def test_break_even_is_the_last_crossing():
    assert timing.crossing([0.1, 0.5, 0.9], [2.0, 0.5, 2.0]) == 0.7
    assert timing.crossing([0.1, 0.5], [2.0, 3.0]) == 0.1
    assert timing.crossing([0.1, 0.5], [2.0, 0.5]) is None
    blocked = timing.break_even(20, 30, 4, (0.5, 0.9), block=5, rounds=1)
    assert len(blocked.speedup) == 2
    found = timing.break_even(20, 30, 4, (0.5, 0.9), rounds=1)
    assert found.sparsities == [0.5, 0.9]
    assert len(found.speedup) == 2
    assert all(ratio > 0 for ratio in found.speedup)
    for values in ([], [0.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="crossing needs a positive speedup for each sparsity"):
            timing.crossing([0.5], values)
    with pytest.raises(ValueError, match="block must divide outputs 5 and inputs 4, got 2"):
        timing.break_even(5, 4, 1, block=2)


def test_break_even_removes_the_share_it_says(monkeypatch):
    made = []
    monkeypatch.setattr(timing, "csr", lambda w, block: made.append(w) or w)
    timing.break_even(40, 50, 2, (0.0, 0.5, 1.0), rounds=1)
    assert [round(float((w == 0).double().mean()), 1) for w in made] == [0.0, 0.5, 1.0]


def test_latencies_are_of_evaluation_without_gradients_and_modes_come_back():
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    net = Looks(3, 2).train()
    assert timing.latencies({"net": net}, torch.ones(1, 3), rounds=1)["net"] > 0
    assert set(seen) == {(False, False)}
    assert net.training


def test_a_time_is_the_mean_of_its_runs_by_the_clock_that_is_asked():
    now = [0.0]

    def work():
        now[0] += 2.0

    assert timing.seconds(work, 4, now=lambda: now[0]) == 2.0
    assert now == [8.0]
    assert 0 <= timing.seconds(lambda: None, 3) < 1


def test_the_clock_is_the_processors_where_it_is_fine_enough(monkeypatch):
    for resolution, want in ((1e-9, timing.time.process_time), (1e-2, timing.time.perf_counter)):
        step = argparse.Namespace(resolution=resolution)
        monkeypatch.setattr(timing.time, "get_clock_info", lambda name, step=step: step)
        assert timing.clock() is want
