"""Layer-wise OBS: the trace, the choice, the refit, and whole networks."""

import copy
import math
from unittest import mock

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teachkit import lab, masks, obs
from teachkit.core.layers import patches
from teachkit.engine import refit as fitting
from teachkit.engine import surgeon as engine
from teachkit.engine.grams import gram, layer_grams, wanda_scores
from teachkit.engine.refit import choose, refit_gram
from teachkit.engine.surgeon import Trace


@st.composite
def layers(draw, wide=7):
    """A weight (out, in), inputs (n, in) and a damping that makes H invertible."""
    rows, inputs = draw(st.integers(1, 5)), draw(st.integers(1, wide))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    n = draw(st.integers(1, 30))
    damping = draw(st.sampled_from([1e-3, 0.1]))
    X = torch.randn(n, inputs, generator=generator)
    mix = torch.randn(inputs, inputs, generator=generator)
    return torch.randn(rows, inputs, generator=generator), X @ mix, damping


def ridge(X, damping):
    return damping * float((X**2).sum()) / X.shape[1]


def objective(weight, X, damping, found):
    """‖Xw′ − Xw‖² + λ‖w′ − w‖² for each row."""
    step = found - weight
    return ((step @ X.T) ** 2).sum(1) + ridge(X, damping) * (step**2).sum(1)


@given(layers(), st.integers(1, 4), st.integers(1, 3))
def test_a_trace_is_surgery_with_a_fresh_inverse_each_step(layer, block, rows):
    weight, X, damping = layer
    with (
        mock.patch.object(engine, "BLOCK", block),
        mock.patch.object(engine, "TOGETHER", rows),
    ):
        order, losses = obs.trace_layer(weight, X, damping=damping)
    for r, w in enumerate(weight):
        want, costs, states = oracles.obs_row(w, X, ridge(X, damping), len(w))
        assert order[r].tolist() == want
        torch.testing.assert_close(losses[r], torch.tensor(costs), rtol=1e-8, atol=1e-12)
        for k, state in enumerate(states, 1):
            mask = torch.ones_like(w, dtype=torch.bool).index_fill(0, order[r, :k], False)
            found = obs.refit(w[None], X, mask[None], damping=damping)[0]
            torch.testing.assert_close(found, state, rtol=1e-8, atol=1e-10)


@given(layers())
def test_the_costs_of_a_trace_add_up_to_the_change_they_promise(layer):
    weight, X, damping = layer
    order, losses = obs.trace_layer(weight, X, damping=damping)
    for k in range(weight.shape[1] + 1):
        mask = torch.ones_like(weight, dtype=torch.bool).scatter(1, order[:, :k], False)
        found = obs.refit(weight, X, mask, damping=damping)
        torch.testing.assert_close(
            objective(weight, X, damping, found), losses[:, :k].sum(1), rtol=1e-8, atol=1e-10
        )


@given(layers(), st.randoms(use_true_random=False))
def test_refit_is_least_squares_and_never_worse_than_leaving_the_rest(layer, random):
    weight, X, damping = layer
    mask = torch.tensor([[random.random() < 0.6 for _ in row] for row in weight])
    found = obs.refit(weight, X, mask, damping=damping)
    for w, kept, got in zip(weight, mask, found, strict=True):
        want = oracles.least_squares(w, X, kept, ridge(X, damping))
        torch.testing.assert_close(got, torch.from_numpy(want), rtol=1e-7, atol=1e-9)
    left = objective(weight, X, damping, weight * mask)
    assert (objective(weight, X, damping, found) <= left * (1 + 1e-9) + 1e-12).all()


@given(layers(), st.floats(0, 1), st.sampled_from(["row", "layer"]), st.sampled_from([4, 8]))
def test_exactly_k_go_and_old_zeros_stay(layer, sparsity, scope, bits):
    weight, X, damping = layer
    weight, X = weight.to(torch.float32 if bits == 4 else torch.float64), X.float().double()
    weight[0, -1] = 0.0
    before = weight.clone()
    found = obs.prune_layer(weight, X, sparsity, damping=damping, scope=scope)
    assert found.dtype == weight.dtype
    assert torch.equal(weight, before)
    assert found[0, -1] == 0
    gone = (found == 0).sum(1)
    if scope == "row":
        k = masks.removed(weight.shape[1], sparsity)
        assert gone.tolist() == [max(k, int(z)) for z in (weight == 0).sum(1)]
    else:
        assert int(gone.sum()) == max(masks.removed(weight.numel(), sparsity), 1)
    with mock.patch.object(fitting, "BLOCK", 2):
        by_pass = obs.prune_layer_pass(weight, X, sparsity, damping=damping)
    assert int((by_pass == 0).sum()) == max(masks.removed(weight.numel(), sparsity), 1)
    assert by_pass[0, -1] == 0


@given(layers(), st.floats(0, 1))
def test_a_layer_takes_from_the_row_whose_next_weight_is_cheapest(layer, sparsity):
    weight, X, damping = layer
    order, losses = obs.trace_layer(weight, X, damping=damping)
    mask = choose({"w": weight}, {"w": Trace(order, losses)}, sparsity, "layer")["w"]
    taken = oracles.cheapest_fronts(losses.tolist(), masks.removed(weight.numel(), sparsity))
    for r, k in enumerate(taken):
        assert sorted(order[r, :k].tolist()) == (~mask[r]).nonzero().reshape(-1).tolist()
    want = obs.refit(weight, X, mask, damping=damping)
    found = obs.prune_layer(weight, X, sparsity, damping=damping, scope="layer")
    assert torch.equal(found, want)


def test_a_front_is_never_overtaken_where_a_later_removal_is_cheaper():
    losses = torch.tensor([[5.0, 1.0, 1.0], [2.0, 3.0, 9.0]])
    trace = {"w": Trace(torch.tensor([[2, 0, 1], [0, 1, 2]]), losses)}
    for k, want in enumerate([[0, 0], [0, 1], [0, 2], [1, 2], [2, 2], [3, 2], [3, 3]]):
        mask = choose({"w": torch.ones(2, 3)}, trace, k / 6, "layer")["w"]
        assert (~mask).sum(1).tolist() == want
        assert want[0] < 1 or not mask[0, 2]


@given(layers(), st.floats(0, 1), st.integers(1, 4))
def test_a_pass_decides_from_left_to_right(layer, sparsity, block):
    weight, X, damping = layer
    with mock.patch.object(fitting, "BLOCK", block):
        found = obs.prune_layer_pass(weight, X, sparsity, damping=damping)
    H = X.T @ X + ridge(X, damping) * torch.eye(X.shape[1])
    inverses = [torch.linalg.inv(H[j:, j:]) for j in range(len(H))]
    want, done = weight.clone(), 0
    for start in range(0, len(H), block):
        stop = min(start + block, len(H))
        costs = {
            (r, j): float(want[r, j]) ** 2 / float(inverses[j][0, 0])
            for r in range(len(want))
            for j in range(start, stop)
        }
        due = round(masks.removed(want.numel(), sparsity) * stop / len(H))
        gone = sorted(costs, key=costs.get)[: due - done]
        done = due
        for r, j in sorted(gone, key=lambda at: at[1]):
            want[r, j:] -= want[r, j] * inverses[j][0] / inverses[j][0, 0]
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-9)


@given(layers(), st.floats(0.1, 100))
def test_the_unit_of_the_inputs_does_not_matter(layer, scale):
    weight, X, damping = layer
    first, second = (obs.trace_layer(weight, X * c, damping=damping) for c in (1.0, scale))
    assert torch.equal(first.order, second.order)
    torch.testing.assert_close(second.losses, first.losses * scale**2, rtol=1e-6, atol=1e-9)


@given(layers(), st.integers(0, 6))
def test_dead_inputs_cost_nothing_go_first_and_change_nothing(layer, at):
    weight, X, damping = layer
    at = min(at, weight.shape[1])
    dead = torch.full((len(weight), 1), 3.0)
    wider = torch.cat([weight[:, :at], dead, weight[:, at:]], 1)
    seen = torch.cat([X[:, :at], torch.zeros(len(X), 1), X[:, at:]], 1)
    order, losses = obs.trace_layer(wider, seen, damping=damping)
    short = obs.trace_layer(weight, X, damping=damping)
    assert (order[:, 0] == at).all()
    torch.testing.assert_close(losses[:, 1:], short.losses)
    assert losses[:, 0].eq(0).all()
    assert torch.equal(order[:, 1:] - (order[:, 1:] > at).long(), short.order)
    assert torch.equal(obs.prune_layer(wider, seen, 0.0, damping=damping), wider)


def test_free_weights_go_smallest_first_and_zeros_before_all():
    weight = torch.tensor([[5.0, 0.0, -1.0, 2.0]])
    X = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    order, losses = obs.trace_layer(weight, X)
    assert order.tolist() == [[1, 2, 3, 0]]
    assert losses[0, :3].tolist() == [0, 0, 0]
    assert losses[0, 3] == pytest.approx(25, rel=1e-5)
    nothing = obs.trace_layer(weight, torch.zeros(2, 4))
    assert nothing.order.tolist() == [[1, 2, 3, 0]]


def test_zeros_go_before_dead_inputs_of_other_rows():
    weight, X = torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.0]])
    for prune in (obs.prune_layer, obs.prune_layer_pass):
        scope = {"scope": "layer"} if prune is obs.prune_layer else {}
        assert torch.equal(prune(weight, X, 0.25, **scope), weight)
        assert prune(weight, X, 0.5, **scope).count_nonzero() == 2


def test_refit_leaves_old_zeros_alone_even_where_the_mask_keeps_them():
    weight, X = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    found = obs.refit(weight, X, torch.tensor([[True, False, True]]))
    assert found[0, 0] == 0
    assert found[0, 2] > 2


def test_gram_adds_up_in_double_precision_and_in_pieces():
    X = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    H = gram(X, chunk=7)
    assert H.dtype == torch.float64
    torch.testing.assert_close(H, X.double().T @ X.double(), rtol=1e-14, atol=0.0)


def test_wide_layers_take_many_blocks_and_agree_with_the_twin():
    generator = torch.Generator().manual_seed(5)
    X, weight = torch.randn(400, 150, generator=generator), torch.randn(2, 150, generator=generator)
    order, losses = obs.trace_layer(weight, X)
    want, costs, _ = oracles.obs_row(weight[1], X, ridge(X, 1e-6), 150)
    assert order[1].tolist() == want
    torch.testing.assert_close(losses[1], torch.tensor(costs), rtol=1e-9, atol=0.0)


@given(st.data())
def test_a_convolution_is_linear_on_its_patches(data):
    groups, padding = (
        data.draw(st.integers(1, 2)),
        data.draw(st.sampled_from([0, 1, (2, 1), "same"])),
    )
    stride = 1 if padding == "same" else data.draw(st.integers(1, 2))
    mode = data.draw(st.sampled_from(["zeros", "reflect", "circular"]))
    size, dilation = data.draw(st.sampled_from([(1, 2), 3])), data.draw(st.integers(1, 2))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    layer = nn.Conv2d(
        *(2, 4, size, stride, padding, dilation, groups), bias=False, padding_mode=mode
    )
    x = torch.randn(3, 2, 7, 6)
    rows = patches(layer, x).transpose(0, 1).flatten(1, 2)  # (groups, all positions, read)
    parts = [p @ w.T for p, w in zip(rows, layer.weight.flatten(1).chunk(groups), strict=True)]
    want = layer(x)
    found = torch.cat(parts, 1).reshape(3, *want.shape[2:], 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, want)
    H = layer_grams(nn.Sequential(layer), x)["0.weight"]
    torch.testing.assert_close(H, rows.mT @ rows)
    pruned, kept = obs.prune_layers(nn.Sequential(layer), (x, torch.zeros(3)), 0.4, scope="row")
    for w, p, group in zip(
        layer.weight.detach().flatten(1).chunk(groups),
        pruned[0].weight.detach().flatten(1).chunk(groups),
        rows,
        strict=True,
    ):
        torch.testing.assert_close(p, obs.prune_layer(w, group, 0.4))
    assert torch.equal(kept["0.weight"], pruned[0].weight != 0)


def batch(shape=(1, 8, 8), n=40):
    x, y = lab.data.digits().train
    return x[:n], y[:n]


@pytest.mark.parametrize("name", ["mlp", "lenet5", "vgg_like"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("scope", "method"), [("layer", "exact"), ("global", "exact"), ("layer", "pass")]
)
def test_networks_lose_exactly_k_and_stay_as_they_were(name, dtype, scope, method):
    if name == "lenet5":
        net = nn.Sequential(*list(lab.models.lenet5((1, 8, 8)))[:7])  # without the wide layer
    else:
        net = lab.models.MODELS[name]((1, 8, 8))
    net = net.to(dtype).train()
    x, y = batch()
    before = copy.deepcopy(net.state_dict())
    pruned, kept = obs.prune_layers(net, (x.to(dtype), y), 0.8, scope=scope, method=method)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training
    assert pruned is not net
    total = sum(m.numel() for m in kept.values())
    if scope == "global":
        assert sum(int((~m).sum()) for m in kept.values()) == masks.removed(total, 0.8)
    else:
        assert all(int((~m).sum()) == masks.removed(m.numel(), 0.8) for m in kept.values())
    weights = masks.prunable(pruned)
    assert list(kept) == list(weights)
    assert all(torch.equal(w != 0, kept[k]) for k, w in weights.items())
    others = {k: v for k, v in pruned.state_dict().items() if k not in kept}
    assert all(torch.equal(v, before[k]) for k, v in others.items())


@pytest.mark.parametrize("scope", ["row", "layer", "global"])
def test_nothing_and_everything(scope):
    net = lab.models.mlp(seed=1)
    same, kept = obs.prune_layers(net, batch(), 0.0, scope=scope)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), net.parameters(), strict=True))
    assert masks.sparsity(kept) == 0
    empty, kept = obs.prune_layers(net, batch(), 1.0, scope=scope)
    assert masks.sparsity(kept) == 1
    assert all(w.eq(0).all() for w in masks.prunable(empty).values())


def test_pruning_further_keeps_the_zeros_and_counts_them():
    net = lab.models.mlp(seed=1)
    once, first = obs.prune_layers(net, batch(), 0.5)
    for method in ("exact", "pass"):
        twice, second = obs.prune_layers(once, batch(), 0.7, method=method)
        assert all((~first[k] & second[k]).sum() == 0 for k in first)
        assert all(torch.equal(w != 0, second[k]) for k, w in masks.prunable(twice).items())
        less, fewer = obs.prune_layers(once, batch(), 0.2, method=method)
        assert masks.sparsity(fewer) == pytest.approx(0.2, abs=1e-3)
        assert all(torch.equal(w != 0, first[k]) for k, w in masks.prunable(less).items())


def test_layers_compete_by_their_relative_error():
    """Multiplying a layer and dividing the next changes no function, so it must change no mask."""
    net = lab.models.mlp(hidden=(12,), seed=2)
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[1].weight *= 64
        scaled[1].bias *= 64
        scaled[3].weight /= 64
    first, second = (obs.prune_layers(m, batch(), 0.6, scope="global")[1] for m in (net, scaled))
    assert all(torch.equal(first[k], second[k]) for k in first)
    counts = [int((~m).sum()) / m.numel() for m in first.values()]
    assert abs(counts[0] - counts[1]) > 0.02  # the layers do differ


def test_refit_layers_takes_any_masks_and_leaves_what_has_none():
    net, data = lab.models.mlp(seed=3), batch()
    kept = masks.keep_top({k: w.abs() for k, w in masks.prunable(net).items()}, 0.6)
    name = next(iter(kept))
    fitted = obs.refit_layers(net, data, {name: kept[name]})
    want = obs.refit(net[1].weight.detach(), data[0].flatten(1), kept[name])
    torch.testing.assert_close(fitted[1].weight.detach(), want)
    assert torch.equal(fitted[3].weight, net[3].weight)
    with pytest.raises(ValueError, match=r"masks has the key '1.bias'"):
        obs.refit_layers(net, data, {"1.bias": torch.ones(64, dtype=torch.bool)})


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 4), (5, 3)),
        (nn.Conv1d(2, 4, 3, padding=1), (5, 2, 6)),
        (nn.Conv2d(2, 4, 3, groups=2), (5, 2, 6, 4)),
    ],
)
def test_wanda_is_weight_times_norm_of_input(layer, shape):
    layer, x = layer.double(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    scores = wanda_scores(layer, (x, torch.zeros(5)))["weight"].flatten(1)
    rows, groups = patches(layer, x), getattr(layer, "groups", 1)
    for i, w in enumerate(layer.weight.detach().flatten(1)):
        for j, value in enumerate(w):
            norm = rows[:, i * groups // 4, :, j].norm()
            torch.testing.assert_close(scores[i, j], value.abs() * norm)
    pruned, kept = obs.prune_layers(layer, (x, torch.zeros(5)), 0.5)
    assert torch.equal(pruned.weight != 0, kept["weight"])


class Twice(nn.Module):
    """One weight in two layers, one of which is called twice; a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.idle = (nn.Linear(4, 4) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(self.a(x)))


def test_shared_and_idle_layers():
    torch.manual_seed(0)
    net, x = Twice(), torch.randn(6, 4)
    H = layer_grams(net, x)
    once = net.a(x).detach()
    seen = torch.cat([x, once, net.a(once).detach()])
    torch.testing.assert_close(H["a.weight"], gram(seen)[None])
    assert H["idle.weight"].eq(0).all()
    pruned, kept = obs.prune_layers(net, (x, torch.zeros(6)), 0.5)
    assert pruned.b.weight is pruned.a.weight
    assert int((~kept["idle.weight"]).sum()) == 8


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda W, X: obs.trace_layer(W, X[:2], damping=0.0), "singular.*more damping.*damping=0"),
        (lambda W, X: obs.trace_layer(W, X * math.nan), "inputs has 40 NaN or infinite values"),
        (lambda W, X: obs.trace_layer(W / 0, X), "weight has 12 NaN or infinite"),
        (
            lambda W, X: obs.trace_layer(W, X[:, :2]),
            r"inputs must have the shape \(n, 4\).*\(10, 2\)",
        ),
        (
            lambda W, X: obs.trace_layer(W[0], X),
            r"weight must have the shape \(out, in\), got \(4,\)",
        ),
        (lambda W, X: obs.trace_layer(W, X[:0]), r"n ≥ 1, got \(0, 4\)"),
        (lambda W, X: gram(torch.zeros(1, 10**5)), "100000 inputs takes 80.0 GB; at most 8192"),
        (
            lambda W, X: obs.trace_layer(W, X, damping=-1),
            "damping must be a finite number of 0 or more, got -1",
        ),
        (lambda W, X: obs.trace_layer(W, X, damping=math.nan), "damping must be .* got nan"),
        (lambda W, X: obs.prune_layer(W, X, 1.5), r"sparsity must lie in \[0, 1\], got 1.5"),
        (lambda W, X: obs.prune_layer(W, X, 0.5, scope="net"), "scope must be .* got 'net'"),
        (lambda W, X: obs.prune_layer(W, X, 0.5, method="fast"), "method must be .* got 'fast'"),
        (lambda W, X: obs.prune_layer(W, X, 0.5, method="pass"), "'pass' with scope 'layer'"),
        (lambda W, X: obs.refit(W, X, W[:2] > 0), r"has shape \(2, 4\), not \(3, 4\)"),
        (
            lambda W, X: obs.refit(W, X[:2], W < 9, damping=0.0),
            "kept inputs is singular in 3 rows.*more damping",
        ),
    ],
)
def test_bad_layers_are_refused(call, says):
    generator = torch.Generator().manual_seed(0)
    W, X = torch.randn(3, 4, generator=generator), torch.randn(10, 4, generator=generator)
    with pytest.raises(ValueError, match=says):
        call(W, X)


def test_nearly_singular_inputs_are_refused_without_damping():
    X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    X = torch.cat([X, X[:, :1] + 1e-9 * X[:, 1:2]], 1)
    with pytest.raises(ValueError, match="singular"):
        obs.trace_layer(torch.ones(1, 4), X, damping=0.0)
    assert obs.trace_layer(torch.ones(1, 4), X).order.shape == (1, 4)


def test_bad_networks_are_refused_by_name():
    x, y = batch()
    other = nn.Sequential(nn.Linear(8, 8), nn.Flatten(2), nn.ConvTranspose1d(1, 1, 1))
    with pytest.raises(ValueError, match="layer '2' is a ConvTranspose1d; .* takes Linear, Conv1d"):
        obs.prune_layers(other, (x, y), 0.5)
    assert not other[0]._forward_pre_hooks
    with pytest.raises(ValueError, match="20000 inputs takes 3.2 GB; at most 8192"):
        obs.prune_layers(nn.Linear(20_000, 1), (torch.ones(1, 20_000), torch.ones(1)), 0.5)
    grouped = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2))
    with pytest.raises(ValueError, match=r"no grouped convolution; '0.weight' has 2 groups"):
        obs.prune_layers(grouped, (x.expand(-1, 2, -1, -1), y), 0.5, method="pass")
    net = lab.models.mlp()
    with pytest.raises(ValueError, match="got scope 'global' with method 'pass'"):
        obs.prune_layers(net, (x, y), 0.5, scope="global", method="pass")
    with pytest.raises(ValueError, match="x and y of one length, at least 1"):
        obs.prune_layers(net, (x[:0], y[:0]), 0.5)
    net[1].register_forward_hook(lambda *args: args[2] / 0 * 0)
    with pytest.raises(ValueError, match=r"the input of layer '3' has .* NaN"):
        obs.prune_layers(net, (x, y), 0.5)
    assert not net[3]._forward_pre_hooks
    assert obs.prune_layers(nn.Sequential(nn.Flatten()), (x, y), 0.5)[1] == {}


def test_the_refit_of_a_full_mask_moves_nothing():
    W, X = torch.randn(2, 3), torch.randn(5, 3)
    assert torch.equal(refit_gram(W, gram(X), W < 99, 1e-6), W)


def test_exact_surgery_beats_magnitude_and_the_pass_on_real_inputs():
    """64-64-32-10 after 10 epochs, 80 % of each layer removed, nothing retrained."""
    net, _ = lab.training.fit(lab.models.mlp(), lab.data.digits(), epochs=10, progress=False)
    data = lab.data.digits()
    kept = masks.keep_top({k: w.abs() for k, w in masks.prunable(net).items()}, 0.8, "layer")
    acc = [
        lab.evaluation.evaluate(m, data.test).accuracy
        for m in (
            masks.apply(net, kept),
            obs.prune_layers(net, data.train, 0.8, method="pass")[0],
            obs.prune_layers(net, data.train, 0.8)[0],
        )
    ]
    assert acc[0] < acc[1] < acc[2]
