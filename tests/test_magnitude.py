"""The data-free criteria, the exact threshold, densities and Han's recipe."""

import copy
import math
import warnings
from unittest import mock

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teachkit import experiments, lab, magnitude, masks
from teachkit.core import criteria, selection
from teachkit.core.selection import SMALL, kth_smallest, largest
from teachkit.experiments import han
from teachkit.lab.curves import spearman
from teachkit.lab.data import Data


@pytest.mark.parametrize("name", lab.models.MODELS)
def test_scores_are_absolute_weights_under_the_right_keys(name):
    model = lab.models.MODELS[name]((1, 8, 8))
    weights = masks.prunable(model)
    for scores in (magnitude.scores(model), magnitude.random_scores(model, torch.Generator())):
        assert {n: s.shape for n, s in scores.items()} == {n: w.shape for n, w in weights.items()}
        assert not any(s.requires_grad for s in scores.values())
    assert all(torch.equal(s, weights[n].abs()) for n, s in magnitude.scores(model).items())


def test_random_scores_follow_their_generator_alone():
    model = lab.models.mlp()
    draws = [
        magnitude.random_scores(model, torch.Generator().manual_seed(s))["1.weight"]
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    state = torch.get_rng_state()
    magnitude.random_scores(model, torch.Generator())
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(TypeError, match="generator must be a torch.Generator, got 3"):
        magnitude.random_scores(model, 3)


def test_random_scores_are_uniform():
    w = magnitude.random_scores(lab.models.lenet_300_100(), torch.Generator().manual_seed(5))[
        "1.weight"
    ]
    assert 0 <= float(w.min()) <= float(w.max()) < 1
    assert float(w.mean()) == pytest.approx(0.5, abs=5 * (1 / 12 / w.numel()) ** 0.5)


def inputs(kind, n, rng):
    """Inputs that are hard for a selection by sampling."""
    return {
        "normal": lambda: rng.standard_normal(n),
        "equal": lambda: np.full(n, -2.0),
        "ties": lambda: rng.integers(-3, 4, n).astype(float),
        "sorted": lambda: np.sort(rng.standard_normal(n)),
        "two clusters": lambda: np.where(rng.random(n) < 0.5, 1e-6, 1e6) * rng.standard_normal(n),
        "zeros": lambda: np.where(rng.random(n) < 0.9, 0.0, rng.standard_normal(n)),
        "denormals": lambda: rng.standard_normal(n) * 1e-40,
        "outlier": lambda: np.r_[np.full(n - 1, 1.0), 7.0],
        "infinite": lambda: np.where(rng.random(n) < 0.3, np.inf, rng.standard_normal(n)),
    }[kind]()


KINDS = [
    *("normal", "equal", "ties", "sorted", "two clusters", "zeros", "denormals", "outlier"),
    "infinite",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@settings(max_examples=8)
@given(
    st.integers(0, 2**20),
    st.floats(0, 1),
    st.sampled_from([1, 50, 66_000, 200_000, SMALL + 1]),
    st.sampled_from([1, SMALL]),
)
def test_threshold_is_the_kth_value(kind, dtype, seed, share, n, small):
    w = torch.from_numpy(inputs(kind, n, np.random.default_rng(seed))).to(dtype)
    k = 1 + int(share * (n - 1))
    want = w.abs().kthvalue(k).values.item()
    parts = {"a": w[: n // 3].reshape(1, -1), "b": w[n // 3 :]}
    with mock.patch.object(selection, "SMALL", small):
        assert magnitude.threshold(w, k) == want
        assert magnitude.threshold(parts, k) == want
        signed = kth_smallest([w.float().numpy()], k)
    assert signed == w.float().kthvalue(k).values.item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
@settings(max_examples=12)
@given(
    st.integers(0, 2**20),
    st.floats(0, 1),
    st.sampled_from([2, 50, 5000, 140_000]),
    st.booleans(),
    st.sampled_from([1, 100, SMALL]),
)
def test_the_largest_are_those_of_a_stable_sort(kind, dtype, seed, share, n, absolute, small):
    values = inputs(kind, n, np.random.default_rng(seed))
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        values = np.nan_to_num(values).astype(dtype) if dtype == np.int16 else values.astype(dtype)
    k = int(share * n)
    with mock.patch.object(selection, "SMALL", small):
        flags = largest([values[: n // 3], values[n // 3 :]], k, absolute=absolute)
    key = np.abs(values) if absolute else values
    order = np.argsort(-key.astype(float), kind="stable")
    assert sorted(order[:k]) == flags.nonzero()[0].tolist()


@pytest.mark.parametrize("edges", [(4.0, 4.1), (0.0, 1e-9), (0.01, 9.0)])
def test_flags_are_right_where_the_bracket_misses(monkeypatch, edges):
    values = np.abs(np.random.default_rng(3).standard_normal(20_000)).round(3)
    monkeypatch.setattr(selection, "SMALL", 100)
    monkeypatch.setattr(
        selection, "bracket", lambda v, *_: edges if len(v[0]) == 20_000 else (0, 9)
    )
    monkeypatch.setattr(selection, "SMALL", 19_999)
    for k in (1, 700, 10_000, 19_999):
        order = np.argsort(-values, kind="stable")
        assert sorted(order[:k]) == largest([values], k).nonzero()[0].tolist()


def test_devices_dtypes_and_layouts_of_scores_may_differ():
    scores = {"a": torch.tensor([[1.0, 4.0], [3.0, 2.0]]).T, "b": torch.tensor([5, -7])}
    kept = masks.keep_top(scores, 0.5)
    assert kept["a"].tolist() == [[False, True], [True, False]]
    assert kept["b"].tolist() == [True, False]
    kept = masks.keep_top(scores, 0.5, absolute=True)
    assert kept["a"].tolist() == [[False, False], [True, False]]
    assert kept["b"].tolist() == [True, True]
    by_layer = masks.keep_top(scores, 0.5, "layer", absolute=True)
    assert by_layer["b"].tolist() == [False, True]
    within = {"b": torch.tensor([False, True])}
    kept = masks.keep_top(scores, 0.5, within=within, absolute=True)
    assert kept["b"].tolist() == [False, True]
    assert kept["a"].tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_bracket_that_misses_costs_time_and_not_exactness(monkeypatch, end):
    rng = np.random.default_rng(3)
    w = rng.standard_normal(100_000)
    edges = (4.0, 4.1) if end == "last" else (0.0, 1e-9)
    monkeypatch.setattr(selection, "bracket", lambda *_: edges)
    monkeypatch.setattr(selection, "SMALL", 1)
    for k in (1, 40_000, 99_000, 100_000):
        assert kth_smallest([w], k, absolute=True) == np.sort(np.abs(w))[k - 1]


@pytest.mark.parametrize("n", [10, 100_000])
def test_nan_and_ranks_that_do_not_exist_are_refused(n):
    w = torch.ones(n)
    w[n // 2] = math.nan
    with pytest.raises(ValueError, match="NaN has no rank; there are 1 of them"):
        magnitude.threshold(w, n // 2)
    for k in (0, n + 1):
        with pytest.raises(ValueError, match=f"k must be a whole number from 1 to {n}, got {k}"):
            magnitude.threshold(torch.ones(n), k)
    with pytest.raises(TypeError, match=r"one floating dtype, got \['torch.int64'\]"):
        magnitude.threshold(torch.arange(n), 1)
    with pytest.raises(TypeError, match="got nothing"):
        magnitude.threshold({}, 1)
    with pytest.raises(TypeError, match="'torch.float32', 'torch.float64'"):
        magnitude.threshold([torch.ones(2).float(), torch.ones(2).double()], 1)


@pytest.mark.parametrize("kind", ["normal", "equal", "ties", "zeros", "denormals", "two clusters"])
@settings(max_examples=6)
@given(st.integers(0, 2**20), st.floats(0, 1))
def test_masks_without_scores_are_those_of_the_scores(kind, seed, sparsity):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(301, 300), nn.Linear(300, 7)).double()
    for w in masks.prunable(model).values():
        w.data = torch.from_numpy(inputs(kind, w.numel(), rng)).reshape(w.shape)
    with warnings.catch_warnings(action="ignore"):
        found = magnitude.keep_largest(model, sparsity)
    want = masks.keep_top(magnitude.scores(model), sparsity)
    assert list(found) == list(want)
    assert all(torch.equal(found[name], mask) for name, mask in want.items())


def test_masks_of_nothing_and_of_few():
    assert magnitude.keep_largest(nn.Flatten(), 0.5) == {}
    model = nn.Linear(3, 1)
    assert masks.sparsity(magnitude.keep_largest(model, 1.0)) == 1
    assert masks.sparsity(magnitude.keep_largest(model, 0.0)) == 0


def test_large_scores_are_selected_as_small_ones_are():
    scores = {"w": torch.from_numpy(np.random.default_rng(0).integers(-9, 9, 300_000) / 4.0)}
    kept = masks.keep_top(scores, 0.7)["w"]
    order = scores["w"].argsort(descending=True, stable=True)
    assert set(kept.nonzero()[:, 0].tolist()) == set(order[:90_000].tolist())


@settings(max_examples=20)
@given(st.integers(0, 2**20), st.sampled_from(["normal", "ties", "zeros"]))
def test_lamp_scores_are_their_oracle(seed, kind):
    rng = np.random.default_rng(seed)
    model = nn.Linear(5, 4).double()
    model.weight.data = torch.from_numpy(inputs(kind, 20, rng)).reshape(4, 5)
    found = magnitude.lamp_scores(model)["weight"]
    want = magnitude.lamp_naive(model.weight.detach().flatten().tolist())
    torch.testing.assert_close(found.flatten(), torch.tensor(want, dtype=torch.float64))
    assert float(found.max()) in (0.0, 1.0)


def test_lamp_scores_do_not_depend_on_the_scale():
    model = lab.models.mlp().double()
    want = magnitude.lamp_scores(model)
    for w in masks.prunable(model).values():
        w.data *= 1e-200
    found = magnitude.lamp_scores(model)
    assert all(torch.allclose(found[n], s, rtol=1e-9) for n, s in want.items())
    model[1].weight.data.zero_()
    assert float(magnitude.lamp_scores(model)["1.weight"].max()) == 0


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=5),
    st.floats(0, 1),
    st.sampled_from(["uniform", "erk", "lamp"]),
)
def test_quotas_add_up_and_follow_their_rule(widths, sparsity, rule):
    model = lab.models.mlp((3, 2), 4, hidden=widths).double()
    sizes = {n: w.numel() for n, w in masks.prunable(model).items()}
    total = sum(sizes.values()) - masks.removed(sum(sizes.values()), sparsity)
    found = magnitude.quotas(model, sparsity, rule)
    assert list(found) == list(sizes)
    assert sum(found.values()) == total
    assert all(0 <= found[n] <= size for n, size in sizes.items())
    kept = masks.keep_quota(magnitude.scores(model), found)
    assert {n: int(m.sum()) for n, m in kept.items()} == found
    if rule == "lamp":
        assert total < len(sizes) or not magnitude.empty_layers(kept)
        return
    shapes = [tuple(w.shape) for w in masks.prunable(model).values()]
    want = magnitude.quotas_naive(shapes, total, rule)
    assert all(abs(a - b) < 1 + 1e-6 for a, b in zip(found.values(), want, strict=True))


def test_erk_of_a_convolution_counts_the_kernel():
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 10))
    shares = {"0.weight": 16 + 8 + 3 + 3, "2.weight": 64 + 10}  # 1152 and 640 weights
    found = magnitude.quotas(model, 1 - 416 / 1792, "erk")
    assert found == {name: 4 * share for name, share in shares.items()}
    with pytest.raises(ValueError, match=r"rule must be one of .*'erk', 'lamp'\), got 'ERK'"):
        magnitude.quotas(model, 0.5, "ERK")


def test_an_empty_layer_is_named():
    model = lab.models.mlp(hidden=(64, 8), seed=0)
    model[3].weight.data *= 1e-3
    with pytest.warns(UserWarning, match=r"no weight, .*\['3.weight'\]"):
        kept = magnitude.keep_largest(model, 0.99)
    assert magnitude.empty_layers(kept) == ["3.weight"]
    for rule in ("uniform", "erk", "lamp"):
        quotas = magnitude.quotas(model, 0.99, rule)
        kept = masks.keep_quota(magnitude.scores(model), quotas)
        with warnings.catch_warnings(action="error"):
            assert magnitude.warn_empty(kept) is kept
        assert magnitude.empty_layers(kept) == []
    with warnings.catch_warnings(action="error"):
        magnitude.keep_largest(model, 1.0)  # all gone was asked for


@pytest.mark.parametrize("q", [0.0, 0.3, 0.7, 1.0, 1.8, 3.0])
def test_removed_share_is_that_of_gaussian_weights(q):
    layer = nn.Linear(1000, 500, bias=False)
    nn.init.normal_(layer.weight, std=0.37, generator=torch.Generator().manual_seed(1))
    found = masks.sparsity(magnitude.han_masks(layer, q))
    p = magnitude.removed_share(q)
    assert abs(found - p) <= 5 * (p * (1 - p) / 500_000) ** 0.5 + 1e-6


def test_removed_share_is_not_proportional():
    assert magnitude.removed_share(2.0) == pytest.approx(0.9545, abs=1e-4)  # 2 · 68 % is 136 %
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="quality must be a finite number of 0 or more"):
            magnitude.removed_share(bad)
    with pytest.raises(TypeError, match="got '1'"):
        magnitude.removed_share("1")


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.floats(0, 2), st.floats(0, 2))
def test_han_masks_are_their_oracle(seed, q, p):
    model = lab.models.mlp((4,), 3, hidden=(5,)).double()
    generator = torch.Generator().manual_seed(seed)
    for w in masks.prunable(model).values():
        w.data = torch.randn(w.shape, generator=generator) * (
            torch.rand(w.shape, generator=generator) < 0.7
        )
    names = list(masks.prunable(model))
    found = magnitude.han_masks(model, {names[0]: q, names[1]: p})
    for name, quality in zip(names, (q, p), strict=True):
        w = model.get_parameter(name).detach()
        assert found[name].flatten().tolist() == oracles.han(w.flatten().tolist(), quality)
    same = magnitude.han_masks(model, q)
    each = magnitude.han_masks(model, dict.fromkeys(names, q))
    assert all(torch.equal(same[n], each[n]) for n in names)


def test_han_masks_of_a_layer_left_out_and_of_zeros():
    model = lab.models.mlp((4,), 3, hidden=(5,))
    model[1].weight.data[0] = 0.0
    kept = magnitude.han_masks(model, {"3.weight": 9.0})
    assert int(kept["1.weight"].sum()) == 16
    assert int(kept["3.weight"].sum()) == 0
    model[1].weight.data.zero_()
    assert not magnitude.han_masks(model, 0.0)["1.weight"].any()
    with pytest.raises(ValueError, match="quality has the key 'fc'; allowed are"):
        magnitude.han_masks(model, {"fc": 1.0})
    with pytest.raises(
        ValueError, match=r"quality\['1.weight'\] must be a finite number of 0 or more"
    ):
        magnitude.han_masks(model, {"1.weight": -1.0})


def test_han_prunes_retrains_and_keeps_what_it_says():
    data = lab.data.digits()
    small = Data((data.train[0][:300], data.train[1][:300]), data.test)
    model, _ = lab.training.fit(
        lab.models.mlp().to(data.train[0].dtype), small, epochs=10, progress=False
    )
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings(action="error"):
        net, kept, rounds = magnitude.han(model, small, [0.5, 0.5, 0.8], epochs=2, progress=False)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(bool((net.get_parameter(n)[~m] == 0).all()) for n, m in kept.items())
    sparsities = [r.sparsity for r in rounds]
    assert sparsities == sorted(sparsities)
    assert rounds[-1].kept == {n: int(m.sum()) for n, m in kept.items()}
    assert rounds[-1].retrained == lab.evaluation.evaluate(net, small.test).accuracy
    first = magnitude.han_masks(model, magnitude.by_layer(model, 0.5))
    cut = lab.evaluation.evaluate(masks.apply(model, first), small.test).accuracy
    assert rounds[0] == (
        masks.sparsity(first),
        cut,
        rounds[0].retrained,
        {n: int(m.sum()) for n, m in first.items()},
        0.5,
    )
    again = magnitude.han(model, small, [0.5, 0.5, 0.8], epochs=2, progress=False)[2]
    assert again == rounds


def test_retraining_runs_at_a_tenth_of_the_rate():
    rates = [maker.keywords["lr"] for maker in (lab.training.Adam, magnitude.TenthAdam)]
    assert rates[1] == pytest.approx(rates[0] / 10)


def test_sensitivity_is_one_layer_at_a_time():
    data = lab.data.digits()
    model = lab.models.mlp().to(data.test[0].dtype)
    found = magnitude.sensitivity(model, data.test, [0.0, 0.6, 1.0])
    for name, w in masks.prunable(model).items():
        for sparsity, accuracy in zip((0.0, 0.6, 1.0), found[name], strict=True):
            order = w.detach().abs().flatten().argsort()
            net = copy.deepcopy(model)
            net.get_parameter(name).data.view(-1)[order[: round(sparsity * w.numel())]] = 0.0
            assert accuracy == lab.evaluation.evaluate(net, data.test).accuracy


def test_han_passes_on_what_it_is_asked(monkeypatch):
    data, seen = lab.data.digits(), []

    def spy(model, batch, **options):
        seen.append((batch, options))
        return model, None

    monkeypatch.setattr(lab.rounds, "fit", spy)
    monkeypatch.setattr(lab.rounds, "accuracy", lambda net, batch, **_: 0.25)
    made = {
        "epochs": 3,
        "batch_size": 7,
        "optimizer": torch.optim.SGD,
        "scheduler": torch.optim.lr_scheduler.StepLR,
    }

    def loss(*given):
        raise AssertionError("only the training needs it")

    factors = {"3.weight": 0.5}
    net, kept, rounds = magnitude.han(
        lab.models.mlp(), data, [0.5, 0.5], loss=loss, seed=4, factors=factors, **made
    )
    for i, (batch, options) in enumerate(seen):
        assert batch is data.train
        assert {name: options[name] for name in made} == made
        assert (options["seed"], options["loss"]) == (4 + i, loss)
    assert options["masks"] is kept
    assert [r.retrained for r in rounds] == [0.25, 0.25]
    first = magnitude.han_masks(lab.models.mlp(), magnitude.by_layer(net, 0.5, factors))
    assert rounds[0].kept == {n: int(m.sum()) for n, m in first.items()}


@pytest.mark.parametrize("rule", ["global", *magnitude.RULES])
def test_keep_by_rule_is_the_ranking_within_the_quota(rule):
    model = lab.models.mlp()
    kept = magnitude.keep_by_rule(model, 0.9, rule)
    if rule == "global":
        want = magnitude.keep_largest(model, 0.9)
    else:
        want = masks.keep_quota(magnitude.scores(model), magnitude.quotas(model, 0.9, rule))
    assert all(torch.equal(mask, want[name]) for name, mask in kept.items())
    with pytest.raises(ValueError, match="rule must be 'global' or one of .* got 'best'"):
        magnitude.keep_by_rule(model, 0.9, "best")


def test_factors_are_by_tensor():
    model = lab.models.mlp()
    assert magnitude.by_layer(model, 2.0) == {"1.weight": 2.0, "3.weight": 2.0, "5.weight": 1.2}
    assert magnitude.by_layer(model, 2.0, {"1.weight": 0.5}) == {
        "1.weight": 1.0,
        "3.weight": 2.0,
        "5.weight": 2.0,
    }
    with pytest.raises(
        ValueError, match=r"factors has the key '0.weight'; allowed are \['1.weight'"
    ):
        magnitude.by_layer(model, 1.0, {"0.weight": 1.0})
    with pytest.raises(
        ValueError, match=r"factors\['1.weight'\] must be a finite number .* got -1"
    ):
        magnitude.by_layer(model, 1.0, {"1.weight": -1})


def test_the_scan_measures_with_its_loss_and_threshold():
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 1).double()
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = (x[:, :1] > 0.5).double()
    loss = nn.functional.binary_cross_entropy_with_logits
    for threshold in (0.0, 0.4):
        found = magnitude.sensitivity(model, (x, y), [0.0], loss=loss, threshold=threshold)
        want = lab.evaluation.evaluate(model, (x, y), loss, threshold=threshold).accuracy
        assert found == {"weight": [want]}


def test_weights_that_are_no_tensors_are_refused():
    for bad in ([1.0, 2.0], np.ones(3), "abc", None, 3):
        with pytest.raises(TypeError, match="weights must be tensors of one floating dtype, got"):
            magnitude.threshold(bad, 1)


def test_scores_of_half_precision_tell_the_weights_apart():
    generator = torch.Generator().manual_seed(0)
    net = lab.models.lenet_300_100((1, 8, 8)).to(torch.bfloat16)
    kept = masks.keep_top(magnitude.random_scores(net, generator), 0.999, "layer")["1.weight"]
    early = int(kept.flatten()[: kept.numel() // 2].sum())
    assert int(kept.sum()) == 19
    assert 3 <= early <= 16  # where many scores tie, the first ones stay
    lamp = magnitude.lamp_scores(net.half())["1.weight"]
    alive = net[1].weight.detach() != 0
    assert bool((lamp[alive] > 0).all())


def test_the_experiment_prunes_as_its_settings_say(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 28, 28, generator=generator, dtype=torch.float32)
    data = Data((x[:40], torch.arange(40) % 10), (x[40:], torch.arange(20) % 10))
    monkeypatch.setattr("teachkit.experiments.mnist", lambda: data)
    quick = {"epochs": 1, "qualities": [0.5, 1.0], "retraining_epochs": 1}
    row = han.run("lenet_300_100", "full rate", 0, **quick)
    assert row["settings"] == han.SETTINGS["lenet_300_100"] | quick
    assert sum(row["weights"].values()) == 266_200
    assert [len(row[name]) for name in ("kept", "pruned", "retrained")] == [2, 2, 2]
    other = han.run("lenet_300_100", "rate / 10", 1, **quick)
    sizes = [[sum(kept.values()) for kept in r["kept"]] for r in (row, other)]
    want = [(266_200 / a + 266_200 / b) / 2 for a, b in zip(*sizes, strict=True)]
    assert han.factors([row, other]) == pytest.approx(want)
    gone = [r["retrained"][1] - r["dense"] for r in (row, other)]
    assert han.changes([row, other]).mean[1] == pytest.approx(sum(gone) / 2)
    share = 100 * row["kept"][1]["1.weight"] / 235_200
    assert han.shares([row, row], 1)[0] == pytest.approx(share)
    control = han.run("lenet_300_100", "dense, full rate", 0, **quick)
    assert han.factors([control]) == [1.0, 1.0]
    assert control["dense"] == row["dense"]
    assert control["pruned"][0] == row["dense"]


@pytest.mark.parametrize("net", han.SETTINGS)
def test_the_saved_experiment_is_what_the_settings_say(net):
    for row in experiments.table(f"han_{net}"):
        assert row["settings"] == han.SETTINGS[net]
        assert all(len(row[k]) == len(row["settings"]["qualities"]) for k in ("kept", "retrained"))


def test_the_criteria_are_registered_and_need_no_data():
    model = lab.models.mlp()
    for name in ("magnitude", "LAMP", "random"):
        entry = criteria.SCORES[name]
        assert (entry.passes, entry.needs) == (0, ())
        first, again = (entry.function(model, None) for _ in range(2))
        assert all(torch.equal(again[n], s) for n, s in first.items())
    assert criteria.SCORES["magnitude"].function is magnitude.scores
    assert criteria.SCORES["LAMP"].function is magnitude.lamp_scores
    pruned, kept = criteria.PRUNES["magnitude without scores"].function(model, None, 0.7)
    want = masks.keep_top(magnitude.scores(model), 0.7)
    assert all(torch.equal(kept[n], m) for n, m in want.items())
    assert masks.sparsity(masks.nonzero(pruned)) == masks.sparsity(want)


@pytest.mark.parametrize("seed", range(6))
def test_the_random_criterion_is_no_half_magnitude(seed):
    """Draws of the seed that made the weights would rank as the weights do."""
    model = lab.models.lenet_300_100((1, 8, 8), seed=seed)
    for name, score in magnitude.random(model).items():
        w = model.get_parameter(name).detach().flatten()
        for v in (w, w.abs()):
            assert abs(spearman(v, score.flatten())) < 5 / len(v) ** 0.5


@settings(max_examples=20)
@given(st.integers(0, 2**20), st.floats(0, 3))
def test_a_mask_of_han_is_its_oracle(seed, q):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 5, generator=generator) * (torch.rand(4, 5, generator=generator) < 0.7)
    assert magnitude.han_mask(w, q).flatten().tolist() == oracles.han(w.flatten().tolist(), q)
    assert not magnitude.han_mask(torch.zeros(3), q).any()
