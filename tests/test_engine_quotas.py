"""The rules for the layers are their plain twins in the lesson."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import magnitude
from teachkit.engine import quotas

sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@given(sizes, st.floats(0, 1), st.sampled_from(["uniform", "erk"]))
def test_densities_are_those_of_bisection(shapes, share, rule):
    counts = [a * b for a, b in shapes]
    keep = round(share * sum(counts))
    pull = [(a + b) / (a * b) if rule == "erk" else 1.0 for a, b in shapes]
    fractions = quotas.capped(pull, counts, keep)
    assert fractions == pytest.approx(magnitude.quotas_naive(shapes, keep, rule), abs=1e-6)
    whole = quotas.whole_shares(fractions, counts, keep)
    assert sum(whole) == keep
    assert all(
        0 <= k <= n and abs(k - f) < 1 for k, n, f in zip(whole, counts, fractions, strict=True)
    )


@given(st.lists(st.integers(-4, 4).map(float), max_size=12), st.sampled_from([1.0, 1e-160, 1e200]))
def test_shares_are_those_of_one_sum_for_each_weight(w, scale):
    found = quotas.lamp_share(scale * torch.tensor(w, dtype=torch.float64))
    assert found.tolist() == pytest.approx(magnitude.lamp_naive(w))


def test_quotas_of_a_network_without_weights():
    for rule in quotas.RULES:
        assert quotas.quotas(nn.Flatten(), 0.5, rule) == {}
    assert quotas.lamp_share(torch.ones(2, 2).half()).dtype == torch.float32
