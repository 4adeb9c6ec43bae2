"""Lesson 09: the walk by hand equals the engine; scores of units, scenes, the benchmark."""

import copy
import math

import pytest
import torch
from coupled_networks import COUPLED, Residual, dice, randomised
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from benchmarks import bench
from benchmarks import structured as suite
from teachkit import lab, magnitude, masks, structured
from teachkit.core.layers import UncoveredError
from teachkit.show.lessons import structured as scenes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_scores_of_few_digits_are_added_up_without_loss(dtype):
    score = {"w": (100 * torch.ones(2, 5000)).to(dtype)}
    found = structured.group_scores(score, "row")["w"]
    assert found.tolist() == pytest.approx([100, 100])
    if dtype.is_floating_point:
        net = nn.Sequential(nn.Linear(5000, 2, bias=False), nn.Linear(2, 1)).to(dtype)
        net[0].weight.data.fill_(100.0)
        assert structured.unit_scores(net)["0"].tolist() == pytest.approx([100 * 5000**0.5] * 2)


def test_unit_scores_are_sums_over_the_rows_of_coupled_layers():
    model = randomised(Residual())
    x, y = torch.randn(9, 2, 7, 7, dtype=torch.float64, generator=dice()), torch.arange(9) % 3
    value = functional.cross_entropy(model(x), y)
    for method, one, finish in (
        ("l1", lambda w, g: abs(w), lambda t: t),
        ("l2", lambda w, g: w * w, math.sqrt),
        ("taylor", lambda w, g: w * g, abs),
    ):
        found = structured.unit_scores(model, method, (x, y))
        assert list(found) == [group[0] for group in COUPLED]
        for group in COUPLED:
            weights = [model.get_submodule(name).weight for name in group]
            grads = torch.autograd.grad(value, weights, retain_graph=True)
            for unit in range(len(weights[0])):
                pairs = [
                    pair
                    for w, g in zip(weights, grads, strict=True)
                    for pair in torch.stack([w[unit], g[unit]]).reshape(2, -1).T.tolist()
                ]
                want = finish(sum(one(w, g) for w, g in pairs))
                assert float(found[group[0]][unit]) == pytest.approx(want, rel=1e-9, abs=1e-14)
    with pytest.raises(ValueError, match="method must be one of .* got 'l3'"):
        structured.unit_scores(model, "l3")
    with pytest.raises(ValueError, match="needs a batch"):
        structured.unit_scores(model, "taylor")


def test_the_benchmark_runs_and_peers_give_the_same_weights():
    (case,) = suite.cases(True)
    rows = {row.competitor: row for row in bench.measure(case, quick=True)}
    assert rows["teachkit"].ratio == pytest.approx(1)
    peer = rows["Torch-Pruning"]
    assert peer.difference == 0 or "No module named 'torch_pruning'" in peer.note
    tables = suite.tables(True)
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
    assert {table.title.split(":")[0] for table in tables} == {
        "Where sparse formats break even",
        "One forward pass",
    }


@pytest.mark.parametrize("kind", structured.GRANULARITIES)
def test_kernels_are_drawn_for_every_granularity(kind):
    for sparsity in (0.0, 0.5, 0.9):
        picture = scenes.kernels(kind, sparsity)
        stay = int(picture.alt.rpartition(": ")[2].split(" of ")[0])
        assert stay == 108 if kind == "2:4" else abs(stay / 216 - (1 - sparsity)) <= 0.17


def test_the_tradeoff_is_a_mean_and_the_bound_picks_the_smallest():
    data, net = lab.data.digits().test, lab.models.mlp(hidden=(8,))
    small = structured.shrink(net, {"1": torch.arange(8) < 4})
    point = scenes.tradeoff([net, net], [net, small], data)
    one = structured.count(copy.deepcopy(small).float()).bytes
    whole = structured.count(copy.deepcopy(net).float()).bytes
    assert point.saved == pytest.approx((1 - one / whole) / 2)
    accuracy = [lab.evaluation.evaluate(n, data).accuracy for n in (net, small)]
    assert point.drop == pytest.approx((accuracy[0] - accuracy[1]) / 2)
    assert point.drop - point.low == pytest.approx(point.high - point.drop)
    found = [
        scenes.Point(s, d, d - 0.01, d + 0.01) for s, d in ((0.2, 0.0), (0.6, 0.01), (0.9, 0.2))
    ]
    points = {"a": found}
    for bound, best in ((0.5, 20), (1.0, 60), (20, 90), (-1, 0)):
        assert f"each saves: a {best} %." in scenes.size_accuracy(points, bound).alt


def test_magnitudes_join_groups():
    scores = magnitude.scores(lab.models.mlp(hidden=(8, 6)))
    with pytest.raises(ValueError, match="scope 'global', nothing is left of '1.weight'"):
        structured.group_masks(scores, 0.5, "row", "global")
    kept = structured.group_masks(scores, 0.5, "row", "global", on_empty="keep")
    assert bool(kept["1.weight"].any())
    assert masks.sparsity({n: m.any(1) for n, m in kept.items()}) == 0.5


# --- the walk by hand -------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.integers(0, 99),
    st.floats(0, 1),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_masks_by_hand_are_those_of_the_engine(shape, seed, sparsity, height, width):
    """Scores of few values: where groups tie the first ones stay."""
    score = torch.randint(3, shape, generator=dice(seed)).double()
    for kind in structured.GRANULARITIES:
        if kind == "2:4" or (len(shape) == 2 and kind in ("kernel", "position")):
            continue
        found = structured.group_masks(
            {"w": score}, sparsity, kind, block=(height, width), on_empty="allow"
        )
        by_hand = structured.group_mask_naive(score, sparsity, kind, (height, width))
        assert torch.equal(by_hand, found["w"])


def test_shrinking_by_hand_leaves_the_network_and_refuses_what_it_does_not_cut():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    ).train()
    before = copy.deepcopy(net.state_dict())
    x, keep = torch.randn(3, 1, 4, 4, generator=dice()), {"0": torch.arange(4) < 1}
    small = structured.shrink_chain(net, x, keep)
    assert small[3].in_features == 4
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for part in (nn.PReLU(4), nn.Conv2d(4, 4, 1, groups=4)):
        with pytest.raises(UncoveredError, match=f"{type(part).__name__} is not cut by hand"):
            structured.shrink_chain(nn.Sequential(net[0], part), x, keep)
    with pytest.raises(UncoveredError, match="LayerNorm is not covered"):
        structured.shrink_chain(nn.Sequential(net[0], nn.LayerNorm(2)), x, keep)
