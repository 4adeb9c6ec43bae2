"""Each option is heard, and each default, bound and tie is the one that the page says."""

from functools import partial

import pytest
import torch
from drawers import networks, normal, seeds, sizes, sparsities
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import fisher, lab, magnitude, masks, obd, obs, paradox, schedule
from teachkit.core import layers, ranking
from teachkit.engine import blocks, estimates, inverse, layerwise, refit
from teachkit.lab import evaluation, models, rounds

dampings = st.sampled_from([1e-6, 1e-3, 0.5, 3.0])


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def few():
    data = lab.data.digits()
    return lab.data.Data(tuple(p[:100] for p in data.train), tuple(p[:50] for p in data.test))


# Optimal Brain Damage ----------------------------------------------------------------------------


@given(networks, sparsities)
def test_obd_prunes_in_the_scope_that_is_asked(drawn, sparsity):
    net, batch = drawn
    scores = masks.zeros_last(obd.scores(net, batch), net)
    for scope in ("global", "layer"):
        _, kept = obd.prune(net, batch, sparsity, scope=scope)
        want = masks.keep_top(scores, sparsity, scope)
        assert all(torch.equal(kept[n], mask) for n, mask in want.items())
    _, kept = obd.prune(net, batch, sparsity)
    assert int(sum((~m).sum() for m in kept.values())) == masks.removed(
        sum(m.numel() for m in kept.values()), sparsity
    )


def test_recipe_ranks_and_retrains_with_the_loss_that_is_given():
    data, net, heard = few(), models.mlp(hidden=(6,)), []
    smooth = partial(cross_entropy, label_smoothing=0.3)

    def criterion(model, batch, loss):
        heard.append(loss)
        return magnitude.scores(model)

    options = {"epochs": 2, "seed": 3, "progress": False}
    run = obd.recipe(net, data, [0.5, 0.5], criterion=criterion, loss=smooth, **options)
    assert heard == [smooth, smooth]
    choose = rounds.by_criterion(criterion, smooth)
    assert same(
        run.model, rounds.retrain(net, data, choose, [0.5, 0.5], loss=smooth, **options).model
    )
    plain = obd.recipe(net, data, [0.5, 0.5], criterion=criterion, **options)
    assert not same(run.model, plain.model)


def test_recipe_trains_five_epochs_a_round_unless_told():
    data, net = few(), models.mlp(hidden=(4,))
    unsaid = obd.recipe(net, data, [0.5], progress=False)
    assert same(unsaid.model, obd.recipe(net, data, [0.5], epochs=5, progress=False).model)
    assert not same(unsaid.model, obd.recipe(net, data, [0.5], epochs=6, progress=False).model)


@given(networks, seeds, st.integers(2, 5))
def test_hutchinsons_error_is_the_deviation_over_the_root_of_the_directions(drawn, seed, m):
    net, batch = drawn
    dice = torch.Generator().manual_seed(seed)
    made = estimates.hutchinson(net, batch, directions=m, generator=dice)
    dice = torch.Generator().manual_seed(seed)
    for name, w in masks.prunable(net).items():
        signs = [torch.randint(0, 2, w.shape, generator=dice) * 2.0 - 1 for _ in range(m)]

        def slope(weight, name=name):
            output = torch.func.functional_call(net, {name: weight}, (batch[0],))
            return cross_entropy(output, batch[1])

        products = [torch.autograd.functional.hvp(slope, w.detach(), v)[1] * v for v in signs]
        draws = torch.stack(products)
        torch.testing.assert_close(made.mean[name], draws.mean(0), atol=1e-10, rtol=1e-6)
        want = ((draws - draws.mean(0)) ** 2).sum(0).div(m - 1).sqrt() / m**0.5
        torch.testing.assert_close(made.error[name], want, atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_layer_with_a_hook_of_either_kind_does_more(hook):
    layer = nn.Linear(2, 2)
    assert layers.does_more(layer) == ""
    getattr(layer, hook)(lambda *_: None)
    assert "hook" in layers.does_more(layer)
    with pytest.raises(layers.UncoveredError, match="Linear carries a forward hook"):
        list(layers.chain(nn.Sequential(nn.ReLU(), layer)))


# Optimal Brain Surgeon ---------------------------------------------------------------------------


@given(sizes, seeds, dampings)
def test_damping_is_relative_to_the_mean_of_the_diagonal(n, seed, damping):
    X = normal(n + 3, n, seed=seed)
    H = X.T @ X
    want = H + damping * H.diagonal().mean() * torch.eye(n)
    torch.testing.assert_close(inverse.damped(H, damping), want)
    torch.testing.assert_close(refit.damped(H, damping), want)
    torch.testing.assert_close(obs.inverse(H, damping=damping) @ want, torch.eye(n))


@given(sizes, seeds, dampings)
def test_dead_inputs_are_not_in_the_mean_that_damping_is_relative_to(n, seed, damping):
    H = torch.zeros(n + 2, n + 2)
    X = normal(n + 3, n, seed=seed)
    H[1:-1, 1:-1] = X.T @ X
    A = refit.damped(H, damping)
    assert A[0, 0] == A[-1, -1] == 1
    assert not A[0, 1:].any()
    torch.testing.assert_close(A[1:-1, 1:-1], refit.damped(X.T @ X, damping))


def test_a_curvature_may_differ_from_its_transpose_by_a_thousandth_of_its_largest_entry():
    H = 2 * torch.eye(3)
    H[0, 1] = 0.0019
    torch.testing.assert_close(inverse.damped(H, 0.0)[1, 0], torch.tensor(0.00095))
    H[0, 1] = 0.0021
    with pytest.raises(ValueError, match="H must be symmetric, but entries differ by 0.0021"):
        inverse.damped(H, 0.0)


@given(sizes, sizes, seeds, st.booleans())
def test_old_zeros_go_first_then_what_stands_on_dead_inputs(rows, width, seed, one_pass):
    W, X = normal(rows, width + 1, seed=seed), normal(width + 4, width + 1, seed=seed + 1)
    X[:, -1] = 0  # dead, with the largest weights
    W[:, -1] = 9 + W[:, -1].abs()
    W[0, :-1] = 0
    old, n = W == 0, W.numel()
    method = {"scope": "layer", "method": "pass" if one_pass else "exact"}
    left = layerwise.prune_layer(W, X, int(old.sum()) / n, **method) != 0
    assert torch.equal(left, ~old)
    dead = old.clone()
    dead[:, -1] = True
    left = layerwise.prune_layer(W, X, int(dead.sum()) / n, **method) != 0
    assert torch.equal(left, ~dead)
    if not one_pass:
        order = layerwise.trace_layer(W, X).order
        assert (order[1:, 0] == width).all()
        assert order[0, -1] == width  # here all others were zero before, and go before it


@pytest.mark.parametrize(
    ("scope", "method"),
    [("row", "pass"), ("global", "pass"), ("row", "one pass"), ("column", "exact")],
)
def test_a_scope_that_a_method_does_not_have_is_refused(scope, method):
    net, x = nn.Linear(2, 2), normal(5, 2, seed=0)
    for call, given_ in (
        (layerwise.prune_layer, (net.weight, x)),
        (layerwise.prune_layers, (net, (x, torch.zeros(5)))),
    ):
        with pytest.raises(ValueError, match="'pass'|scope must be"):
            call(*given_, 0.5, scope=scope, method=method)


# Fisher ------------------------------------------------------------------------------------------


@given(sizes, sizes, seeds, dampings)
def test_every_fisher_adds_its_damping_once(m, n, seed, damping):
    G = normal(m, n, seed=seed)
    F = G.T @ G / m + damping * torch.eye(n)
    torch.testing.assert_close(fisher.matrix(G, damping), F)
    within = {"rtol": 1e-6, "atol": 1e-9}
    if damping >= 1e-3:
        torch.testing.assert_close(fisher.inverse(G, damping) @ F, torch.eye(n), **within)
        torch.testing.assert_close(fisher.solve(G, F[0], damping), torch.eye(n)[0], **within)
    L = blocks.factor((G.T @ G / m)[None], damping)[0]
    torch.testing.assert_close(L @ L.T, F)


def test_fishers_saliency_of_an_old_zero_is_below_all_others():
    F = torch.eye(2)[None].repeat(2, 1, 1)
    scores = blocks.saliencies(F, torch.tensor([0.0, 1e-200, 2.0]), 1.0)
    assert scores.tolist() == pytest.approx([-1.0, 0.0, 4.0])


def test_agreement_hears_the_signs():
    exact = {"w": torch.tensor([1.0, -2.0]), "v": torch.tensor([[4.0]])}
    mirrored = {name: -t for name, t in exact.items()}
    assert fisher.agreement(mirrored, exact) == (-1.0, -1.0)


# Paradox, ranking, lab ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_moments_have_the_numbers_of_the_weights(dtype):
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).to(dtype)
    batch = normal(4, 3, seed=0).to(dtype), torch.tensor([0, 1, 0, 1])
    for spread in (paradox.changes(net, batch), *obd.per_sample(net, batch)):
        for part in spread:
            assert {t.dtype for t in part.values()} == {dtype}
            assert {t.dtype for t in obd.diagonal(net, batch).values()} == {dtype}


@given(st.permutations([-1e38, -1e-38, 0.0, 1e-38, 3e-38, 1.0, 1e5, 1e30, 3e30]), st.integers(0, 9))
def test_bfloat16_is_ranked_over_its_whole_range(values, k):
    s = torch.tensor(values, dtype=torch.bfloat16)
    kept = ranking.keep_quota({"w": s}, {"w": k})["w"]
    assert s[kept].sort().values.tolist() == s.sort().values[len(s) - k :].tolist()


def test_an_output_at_the_threshold_is_class_0():
    x = torch.tensor([[0.5], [0.5 + 1e-9], [0.5 - 1e-9]])
    assert evaluation.predictions(x).tolist() == [0, 1, 0]
    assert evaluation.predictions(x.flatten(), 0.5 + 1e-9).tolist() == [0, 0, 0]
    y = torch.tensor([0, 1, 0])
    assert lab.evaluation.accuracy(nn.Identity(), (x, y)) == 1


@pytest.mark.parametrize(("size", "padding"), [(8, 2), (15, 2), (16, 0), (17, 0)])
def test_lenet5_is_padded_below_16_pixels(size, padding):
    for shape in ((1, size, 40), (1, 40, size)):
        net = models.lenet5(shape)
        assert [net[i].padding for i in (0, 3)] == [(padding, padding)] * 2
        assert net(torch.zeros(2, *shape)).shape == (2, 10)


# Progress ----------------------------------------------------------------------------------------


def watched(**options):
    """Everything that can show a bar."""
    data, net = few(), models.mlp((3,), 2, hidden=(2,))
    batch = normal(4, 3, seed=0), torch.tensor([0, 1, 0, 1])
    return {
        "surgeon": lambda: obs.prune(net, batch, 0.5, damping=0.1, **options),
        "fit": lambda: lab.training.fit(models.mlp(hidden=(2,)), data, epochs=1, **options),
        "recipe": lambda: obd.recipe(models.mlp(hidden=(2,)), data, [0.5], epochs=0, **options),
        "gradual": lambda: schedule.gradual(
            models.mlp(hidden=(2,)),
            data,
            obd.scores,
            schedule.constant(0.5),
            steps=1,
            epochs=0,
            **options,
        ),
    }


@pytest.mark.parametrize("what", watched())
def test_a_bar_is_shown_if_it_is_asked_for(what, capsys, bars_at_once):
    watched(progress=False)[what]()
    assert capsys.readouterr().err == ""
    watched(progress=True)[what]()
    assert "it/s" in capsys.readouterr().err


@pytest.mark.parametrize("progress", [True, False])
def test_products_show_their_bar_if_it_is_asked_for(progress, bars_at_once, capsys):
    net, batch = nn.Linear(3, 2), (normal(4, 3, seed=0), torch.tensor([0, 1, 0, 1]))
    obd.diagonal(net, batch, method="products", progress=progress)
    obd.by_products(net, batch, progress=progress)
    assert ("products" in capsys.readouterr().err) is progress


@pytest.mark.parametrize("damping", [0, 0.0, -1.0, float("nan")])
def test_what_divides_by_the_damping_refuses_none(damping):
    G = normal(3, 2, seed=0)
    for call in (
        lambda: fisher.recursion(G, 1, damping),
        lambda: fisher.inverse_diagonal(G, damping),
        lambda: fisher.solve(G, G[0], damping),
    ):
        with pytest.raises(ValueError, match="damping must be"):
            call()


@pytest.mark.parametrize("block", [0, -1])
def test_a_fisher_of_empty_blocks_is_refused_by_name(block):
    net, batch = nn.Linear(3, 2), (normal(4, 3, seed=0), torch.tensor([0, 1, 0, 1]))
    for call in (
        lambda: blocks.blocks(net, batch, block=block),
        lambda: blocks.cut(batch[0], block),
    ):
        with pytest.raises(ValueError, match="^block must be a whole number from 1"):
            call()
