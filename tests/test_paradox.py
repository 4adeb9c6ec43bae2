"""The paradox: single changes, their joint effect, and the controls."""

import math

import oracles
import pytest
import torch
from drawers import Twin, chains, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from teachkit import lab, magnitude, masks, obd, paradox, taylor

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU]


def network(seed, activation=nn.Tanh, widths=(4, 5), batch_norm=False):
    generator = torch.Generator().manual_seed(seed)
    layers, before = [nn.Flatten()], 3
    for width in widths:
        layers += [nn.Linear(before, width), *[nn.BatchNorm1d(width)] * batch_norm, activation()]
        before = width
    net = nn.Sequential(*layers, nn.Linear(before, 3)).double().eval()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    return net, (x, torch.arange(11) % 3)


networks = st.builds(
    network,
    st.integers(0, 10**6),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from([(), (4,), (4, 5)]),
    st.booleans(),
)


def cut_off(case, seed):
    return case[0], masks.apply(case[0], random_masks(case[0], seed)), case[1][0]


TWINS = {
    "paradox.repair_naive": Twin(
        st.builds(cut_off, chains(), seeds),
        fast=lambda *given: list(paradox.repair(*given).parameters()),
        plain=lambda *given: list(paradox.repair_naive(*given).parameters()),
    )
}


def random_masks(net, seed=0, sparsity=0.4):
    return masks.keep_top(
        magnitude.random_scores(net, torch.Generator().manual_seed(seed)), sparsity
    )


@settings(max_examples=25)
@given(networks)
def test_leave_one_out_is_one_removal_at_a_time(case):
    net, batch = case
    found, want = paradox.leave_one_out(net, batch), oracles.leave_one_out(net, batch)
    assert list(found) == list(want) == list(masks.prunable(net))
    for name, change in found.items():
        torch.testing.assert_close(change, want[name], rtol=1e-9, atol=1e-12)


def test_leave_one_out_with_one_output_and_a_loss_of_numbers():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid()).double()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = (x, (x[:, :1] > 0).double())
    found = paradox.leave_one_out(net, batch, functional.binary_cross_entropy)
    cut = masks.apply(net, {"2.weight": torch.tensor([[True, False, True, True]])})
    want = taylor.actual_change(
        net,
        batch,
        {"2.weight": cut[2].weight.data - net[2].weight.data},
        functional.binary_cross_entropy,
    )
    assert float(found["2.weight"][0, 1]) == pytest.approx(want)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3)).double()
    with pytest.raises(ValueError, match="the model has a Conv2d"):
        paradox.leave_one_out(conv, (torch.ones(3, 1, 3, 3).double(), torch.arange(3)))


@settings(max_examples=25)
@given(networks)
def test_signed_changes_are_the_mean_over_samples(case):
    net, batch = case
    mean, sd = paradox.changes(net, batch)
    found = paradox.second_order(net, batch)
    first = paradox.first_order(net, batch)
    dialled = paradox.mean_plus_spread(net, batch, weight=0.3)
    for name, t in found.items():
        torch.testing.assert_close(t, mean[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(t - first[name], obd.scores(net, batch)[name])
        torch.testing.assert_close(dialled[name], mean[name] + 0.3 * sd[name])
        assert torch.equal(paradox.absolute(net, batch)[name], t.abs())
        assert torch.equal(paradox.spread(net, batch)[name], sd[name])


@settings(max_examples=25)
@given(networks, st.integers(0, 100))
def test_sums_per_sample_and_the_bound_on_their_spread(case, seed):
    net, (x, y) = case
    kept = random_masks(net, seed)
    found = paradox.sum_per_sample(net, (x, y), kept)
    gone = ~oracles.flat(kept)
    singles = [
        oracles.sample_derivatives(net, (x[n : n + 1], y[n : n + 1]), functional.cross_entropy)
        for n in range(len(x))
    ]
    want = torch.stack([single["change"][gone].sum() for single in singles])
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-11)
    sd = paradox.spread(net, (x, y))
    alone = oracles.flat(sd)[gone]
    assert found.std(correction=0) <= alone.sum() + 1e-9  # SD(Σ c) ≤ Σ SD(c)
    if alone.square().sum() > 1e-12:
        unit = float(alone.square().sum().sqrt())
        assert paradox.coherence(net, (x, y), kept) == pytest.approx(
            float(found.std(correction=0)) / unit, rel=1e-6
        )


def test_sums_per_sample_with_a_convolution():
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    x = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept, y = random_masks(net), torch.arange(6) % 3
    mean = paradox.changes(net, (x, y)).mean
    want = sum(float(mean[name][~mask].sum()) for name, mask in kept.items())
    assert float(paradox.sum_per_sample(net, (x, y), kept).mean()) == pytest.approx(want)


@settings(max_examples=20)
@given(networks, st.integers(0, 100))
def test_the_account_adds_up(case, seed):
    net, batch = case
    kept = random_masks(net, seed)
    found = paradox.account(net, batch, kept)
    gone = sum(float(t[~kept[name]].sum()) for name, t in paradox.second_order(net, batch).items())
    assert found.promised == pytest.approx(gone, rel=1e-9, abs=1e-12)
    assert found.promised + found.cross + found.higher == pytest.approx(found.actual)
    assert found.loss == pytest.approx(lab.evaluation.evaluate(net, batch).loss)


def test_weights_that_do_the_same_are_coherent():
    """Two equal inputs: their changes are equal for every sample, so m of them reach √m."""
    net = nn.Linear(4, 1, bias=False).double()
    net.weight.data.fill_(0.5)
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = (x.expand(50, 4), torch.ones(50, 1).double())
    kept = {"weight": torch.zeros(1, 4, dtype=torch.bool)}
    assert paradox.coherence(net, batch, kept, functional.mse_loss) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="change no sample's loss"):
        paradox.coherence(
            net, batch, {"weight": torch.ones(1, 4, dtype=torch.bool)}, functional.mse_loss
        )


def test_stepwise_is_one_shot_in_one_step_and_nested_in_many():
    net, batch = network(3)
    ((_, once),) = paradox.stepwise(net, batch, 0.5, 1)
    want = masks.keep_top(paradox.second_order(net, batch), 0.5)
    assert all(torch.equal(once[n], m) for n, m in want.items())
    n = sum(m.numel() for m in once.values())
    steps = list(paradox.stepwise(net, batch, 1.0, n))
    assert [sum(int((~m).sum()) for m in kept.values()) for _, kept in steps] == list(
        range(1, n + 1)
    )
    for (_, before), (after, kept) in zip(steps, steps[1:], strict=False):  # noqa: RUF007
        assert all(bool((kept[k] <= m).all()) for k, m in before.items())
        assert all(bool((after.get_parameter(k)[~m] == 0).all()) for k, m in kept.items())
    first = paradox.second_order(net, batch)
    worst = min(((float(t.min()), k) for k, t in first.items()))[1]
    assert not bool(steps[0][1][worst].all())
    with pytest.raises(ValueError, match="steps must be a whole number from 1, got 0"):
        list(paradox.stepwise(net, batch, 0.5, 0))


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0, 1))
def test_a_matched_set_has_as_many_from_every_bin(seed, bins, sparsity):
    net, _ = network(seed, widths=(4,))
    kept, key = random_masks(net, seed, sparsity), magnitude.scores(net)
    drawn = paradox.matched(kept, key, torch.Generator().manual_seed(seed), bins=bins)
    for name, mask in kept.items():
        order = key[name].reshape(-1).argsort()
        for part in torch.tensor_split(order, min(bins, len(order))):
            assert int(drawn[name].reshape(-1)[part].sum()) == int(mask.reshape(-1)[part].sum())
        assert drawn[name].shape == mask.shape
    every = paradox.matched(kept, key, torch.Generator(), bins=10**6)
    assert all(torch.equal(every[n], m) for n, m in kept.items())


def test_a_negative_weight_of_the_spread_is_refused():
    net, batch = network(1)
    for bad in (-1, math.nan):
        with pytest.raises(ValueError, match="weight must be a finite number of 0 or more"):
            paradox.mean_plus_spread(net, batch, weight=bad)
