"""What a set of removals does to the units on average, its split, and the repair."""

import copy

import pytest
import torch
from drawers import images, normal, seeds, sparsities
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teachkit import hessian, magnitude, masks, paradox
from teachkit.core.layers import UncoveredError
from teachkit.engine import shifts
from teachkit.lab import models


def network(seed, activation=nn.Tanh):
    net = models.mlp((1, 3, 1), 3, hidden=(4, 5), activation=activation, seed=seed)
    return net, (normal(9, 1, 3, 1, seed=seed), torch.arange(9) % 3)


def removal(net, seed, sparsity=0.4):
    return masks.keep_top(
        magnitude.random_scores(net, torch.Generator().manual_seed(seed)), sparsity
    )


def units(net, x):
    """Each layer's outputs, by layer, (numbers, units)."""
    seen = {}

    def note(name, conv):
        def hook(layer, given, output):
            seen[name] = (output.movedim(1, -1) if conv else output).flatten(0, -2).detach()

        return hook

    hooks = [
        m.register_forward_hook(note(n, isinstance(m, nn.Conv2d)))
        for n, m in net.named_modules()
        if isinstance(m, (nn.Linear, nn.Conv2d))
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


chains = st.builds(network, seeds, st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU]))


@settings(max_examples=25)
@given(chains | images(), seeds, st.booleans())
def test_every_unit_has_its_mean_again_and_with_spread_its_deviation(case, seed, spread):
    net, (x, _) = case
    kept = removal(net, seed)
    cut = masks.apply(net, kept)
    before = copy.deepcopy(cut.state_dict())
    mended = paradox.repair(net, cut, x, spread=spread)
    was, now, bare = (units(each, x) for each in (net, mended, cut))
    for name, z in now.items():
        torch.testing.assert_close(z.mean(0), was[name].mean(0), rtol=1e-7, atol=1e-9)
        varies = z.std(0, correction=0) > 1e-9 * was[name].std(0, correction=0)
        if spread:
            wanted = was[name].std(0, correction=0)[varies]
            torch.testing.assert_close(z.std(0, correction=0)[varies], wanted)
    assert len(bare) == len(now)
    for name, mask in kept.items():
        assert bool((mended.get_parameter(name)[~mask] == 0).all())
        if not spread:
            assert torch.equal(mended.get_parameter(name), cut.get_parameter(name))
    assert all(torch.equal(v, before[k]) for k, v in cut.state_dict().items())


@given(seeds)
def test_nothing_removed_is_nothing_to_repair(seed):
    net, (x, _) = network(seed)
    for spread in (False, True):
        mended = paradox.repair(net, masks.apply(net, {}), x, spread=spread)
        torch.testing.assert_close(mended(x), net(x))


def test_a_dead_unit_keeps_its_zeros_and_gets_its_mean():
    net, (x, _) = network(3)
    kept = masks.keep_top(magnitude.scores(net), 0.0) | {"1.weight": torch.ones(4, 3).bool()}
    kept["1.weight"][2] = False
    mended = paradox.repair(net, masks.apply(net, kept), x, spread=True)
    z = units(mended, x)["1"]
    assert float(z[:, 2].std()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(z.mean(0), units(net, x)["1"].mean(0))
    assert bool((mended[1].weight[2] == 0).all())


@settings(max_examples=25)
@given(chains | images(), seeds)
def test_mean_inputs_and_the_step_of_the_biases(case, seed):
    net, (x, _) = case
    delta = {
        n: normal(*w.shape, seed=seed + i) for i, (n, w) in enumerate(masks.prunable(net).items())
    }
    a, step = shifts.mean_inputs(net, x), shifts.mean_step(net, x, delta)
    first = next(iter(delta))
    moved = copy.deepcopy(net)
    moved.get_parameter(first).data += delta[first]
    layer = first.rpartition(".")[0]
    shifted = units(moved, x)[layer].mean(0) - units(net, x)[layer].mean(0)
    torch.testing.assert_close(step[f"{layer}.bias"], shifted, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        (delta[first] * a[first]).flatten(1).sum(1), shifted, rtol=1e-7, atol=1e-9
    )


@settings(max_examples=20)
@given(st.builds(network, seeds), seeds)
def test_the_split_adds_up_and_is_that_of_the_whole_hessian(case, seed):
    net, batch = case
    kept = removal(net, seed)
    it, H = paradox.split(net, batch, kept), hessian.of_model(net, batch)
    delta = masks.change(net, kept)
    b = shifts.mean_step(net, batch[0], delta)
    as_vector = lambda step: torch.cat(  # noqa: E731
        [step.get(n, torch.zeros_like(p)).reshape(-1).detach() for n, p in net.named_parameters()]
    )
    d, m = as_vector(delta), as_vector(b)
    want = [0.5 * m @ H @ m, m @ H @ (d - m), 0.5 * (d - m) @ H @ (d - m)]
    assert list(it) == pytest.approx([float(v) for v in want], rel=1e-7, abs=1e-9)
    assert sum(it) == pytest.approx(float(0.5 * d @ H @ d), rel=1e-7, abs=1e-9)


def test_inputs_of_mean_zero_leave_nothing_to_the_first_layers_mean():
    net = nn.Sequential(nn.Linear(3, 2))
    x = normal(8, 3, seed=1)
    batch = (x - x.mean(0), torch.arange(8) % 2)
    it = paradox.split(net, batch, removal(net, 1, 0.5))
    assert it.mean == pytest.approx(0, abs=1e-12)
    assert it.mixed == pytest.approx(0, abs=1e-12)
    assert it.rest > 0


@given(seeds, sparsities)
def test_agreement_lies_between_zero_and_one_and_is_one_for_one_sign(seed, sparsity):
    net, (x, _) = network(seed, nn.ReLU)
    kept = removal(net, seed, max(sparsity, 0.05))
    assert 0 <= paradox.agreement(net, x, kept) <= 1 + 1e-12
    x = x.abs()  # then all mean inputs are positive, and a removal pushes against its weight's sign
    positive = {n: w <= 0 for n, w in masks.prunable(net).items()}
    assert paradox.agreement(net, x, positive) == pytest.approx(1)


def test_agreement_by_hand():
    net = nn.Linear(3, 1)
    net.weight.data = torch.tensor([[1.0, -1.0, 2.0]])
    x, gone = torch.ones(4, 3), {"weight": torch.tensor([[False, False, True]])}
    assert paradox.agreement(net, x, gone) == pytest.approx(0)
    gone["weight"][0, 2] = False
    assert paradox.agreement(net, x, gone) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="push no unit"):
        paradox.agreement(net, x, {"weight": torch.ones(1, 3, dtype=torch.bool)})


@settings(max_examples=20)
@given(st.builds(network, seeds), seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_directed_set_pushes_as_asked(case, seed, share):
    net, (x, _) = case
    kept = removal(net, seed, 0.3)
    drawn = paradox.directed(net, x, kept, share, torch.Generator().manual_seed(seed))
    a, delta = shifts.mean_inputs(net, x), masks.change(net, kept)
    for name, mask in drawn.items():
        push = (-net.get_parameter(name) * a[name]).detach()
        way = (delta[name] * a[name]).sum(1, keepdim=True).sign()
        with_it = int(((push * way)[~mask] > 0).sum())
        m, there = int((~kept[name]).sum()), int((push * way > 0).sum())
        assert with_it == min(round(share * m), there)
        assert int((~mask).sum()) <= m


def test_what_is_not_covered_is_refused_by_name():
    x = normal(4, 2, seed=1)
    bare = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(UncoveredError, match="layer '0' has no bias that could take up the mean"):
        paradox.repair(bare, bare, x)
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    with pytest.raises(UncoveredError, match="runs more than once"):
        paradox.repair(twice, twice, x)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    shared = nn.Sequential(one, other)
    with pytest.raises(UncoveredError, match="is shared"):
        paradox.repair(shared, shared, x)
    kept = {"0.weight": torch.zeros(2, 2, dtype=torch.bool)}
    for function in (
        paradox.agreement,
        lambda *given: paradox.directed(*given, 1.0, torch.Generator()),
    ):
        with pytest.raises(UncoveredError, match="is shared"):
            function(shared, x, kept)
    with pytest.raises(UncoveredError, match="is shared"):
        paradox.split(shared, (x, torch.arange(4) % 2), kept)
    idle = nn.Sequential(nn.Linear(2, 2))
    idle[0].spare = nn.Linear(2, 2)
    with pytest.raises(UncoveredError, match="the layer of '0.spare.weight' does not run on x"):
        paradox.agreement(idle, x, kept)
    with pytest.raises(ValueError, match="0.bias"):
        paradox.agreement(nn.Sequential(nn.Linear(2, 2)), x, {"0.bias": torch.zeros(2).bool()})
    turned = nn.Sequential(nn.ConvTranspose1d(1, 1, 2), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(UncoveredError, match="layer '0' is not covered: ConvTranspose1d"):
        paradox.repair(turned, turned, x[:, None])
    with pytest.raises(ValueError, match="pruned must be the model with other weights"):
        paradox.repair(nn.Linear(2, 2), nn.Linear(2, 3), x)
