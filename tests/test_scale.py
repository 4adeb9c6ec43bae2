"""A language model pruned block by block: formulas, twins, orderings that hold and that do not."""

import copy
import itertools
import re

import pytest
import torch
from drawers import Twin, normal, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import masks, obs, scale
from teachkit.core.layers import UncoveredError
from teachkit.engine import amounts, blockwise, onelayer, refit
from teachkit.engine.grams import add_gram, gram
from teachkit.lab import language, transformers
from teachkit.lab.fetching import DataError
from teachkit.lab.tokens import Characters, Language
from teachkit.show.lessons import scale as scenes
from teachkit.show.lessons import scale_figures as figures
from teachkit.show.lessons import scale_tasks as tasks

AMOUNTS = (0.0, 0.3, 0.5, 1.0, "2:4", "1:2", "4:8")


def drawn(W, X):
    """A layer, alone in its chain, and its inputs."""
    layer = nn.Linear(W.shape[1], len(W), bias=False)
    layer.weight.data = W.clone()
    return nn.Sequential(layer), X


def pruned(W, X, *given, **options):
    return scale.prune(*drawn(W, X), *given, progress=False, **options)[0][0].weight.detach()


def matrices(widths):
    return st.builds(
        lambda width, rows, seed: (
            normal(rows, width, seed=seed).double(),
            normal(3 * width, width, seed=seed + 1).double(),
        ),
        st.sampled_from(widths),
        st.integers(1, 5),
        seeds,
    )


TWINS = {
    "scale.wanda_naive": Twin(
        st.tuples(matrices((1, 4, 7)), st.floats(0, 1)).map(lambda it: (*it[0], it[1])),
        fast=lambda W, X, s: scale.prune(*drawn(W, X), "wanda", s, progress=False)[1]["0.weight"],
    ),
    "scale.sparsegpt_naive": Twin(
        st.tuples(matrices((8, 16)), st.sampled_from((0.0, 0.3, 0.5, "2:4", "1:8"))).map(
            lambda it: (*it[0], it[1])
        ),
        fast=lambda W, X, s: pruned(W, X, "sparsegpt", s),
    ),
}

ENTROPY = nn.functional.cross_entropy


def grouped(scores, kept=2):
    """Of every four neighbours in a row those with the largest scores."""
    parts = scores.reshape(len(scores), -1, 4)
    return (parts.argsort(2, descending=True).argsort(2) < kept).reshape(scores.shape)


def one_step(W, U, j, error):
    return W - torch.outer(error, U[j])


def lost(W, U, j, keep):
    return torch.where(keep, 0.0, W[:, j] / U[j, j])


# Wrong answers to the exercises, and the words that the check must find for them.
WRONG = {
    "14.1": [
        (ENTROPY, "take exp of it"),
        (lambda z, t: ENTROPY(z, t, reduction="none").exp().mean(), "the mean comes before exp"),
        (lambda z, t: (-z[torch.arange(len(t)), t].mean()).exp(), "come from softmax"),
        (lambda z, t: (ENTROPY(z, t) / 0.6931471805599453).exp(), "the natural one"),
        (lambda z, t: ENTROPY(z, z.argmax(1)).exp(), "not at the likeliest"),
        (lambda z, t: ENTROPY(z, t, reduction="sum").exp(), "the values differ"),
        (lambda z, t: ENTROPY(z, t, reduction="none").exp(), "the shape differs"),
        (lambda z, t: 2 ** ENTROPY(z, t), "the values differ"),
    ],
    "14.2": [
        (lambda W, x: grouped(W.abs()), "the inputs is not looked at"),
        (lambda W, x: ~grouped(W.abs() * x), "True keeps"),
        (lambda W, x: grouped((W.abs() * x).T).T, "groups lie along a row"),
        (lambda W, x: grouped(W * x), "signs do not count"),
        (lambda W, x: grouped(W.abs() * x, 1), "instead of exactly 16"),
        (lambda W, x: W * grouped(W.abs() * x), "must be boolean"),
        (lambda W, x: W.abs() * x > (W.abs() * x).median(1, keepdim=True).values, "not half of"),
    ],
    "14.3": [
        (lambda W, U, j, k: W * torch.where(torch.arange(5) == j, k[:, None], True), "do not move"),
        (lambda W, U, j, k: one_step(W, U, j, lost(W, U, j, k) * U[j, j]), "over U's diagonal"),
        (lambda W, U, j, k: one_step(W, U, j, -lost(W, U, j, k)), "the sign"),
        (lambda W, U, j, k: one_step(W, U, j, lost(W, U, j, ~k)), "True keeps"),
        (lambda W, U, j, k: one_step(W, U, j, W[:, j] / U[j, j]), "keep their weight do not move"),
        (lambda W, U, j, k: one_step(W, U.T, j, lost(W, U, j, k)), "the values differ"),
        (lambda W, U, j, k: one_step(W, U, j, lost(W, U, j, k) / U[j, j]), "the values differ"),
    ],
}


def small(seed=0, **options):
    sizes = {"width": 8, "depth": 2, "heads": 2, "context": 12} | options
    return transformers.transformer(7, seed=seed, **sizes).double()


def tiny_llama():
    net = transformers.llama(11, width=16, depth=2, heads=4, kv=2, inner=24).double()
    for i, p in enumerate(net.parameters()):
        p.data += 0.3 * normal(*p.shape, seed=i)
    return net


def tokens(n=6, T=10, V=7, seed=0):
    return torch.randint(V, (n, T), generator=torch.Generator().manual_seed(seed))


def prune(*given, **options):
    return scale.prune(*given, progress=False, **options)


# The numbers by hand ---------------------------------------------------------------------------------


def test_a_large_input_decides_for_wanda_and_not_for_magnitude():
    W, X = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    assert scale.wanda_scores(W, X).tolist() == [[5.0, 2.0]]
    assert pruned(W, X, "wanda", 0.5).tolist() == [[1.0, 0.0]]
    assert pruned(W, X, "magnitude", 0.5).tolist() == [[0.0, -2.0]]


def test_wanda_chooses_in_each_output_and_magnitude_in_the_matrix():
    W, X = torch.tensor([[1.0, 2.0], [30.0, 40.0]]), torch.eye(2)
    assert pruned(W, X, "wanda", 0.5).tolist() == [[0.0, 2.0], [0.0, 40.0]]
    assert pruned(W, X, "wanda", 0.5, scope="layer").tolist() == [[0.0, 0.0], [30.0, 40.0]]
    assert pruned(W, X, "magnitude", 0.5).tolist() == [[0.0, 0.0], [30.0, 40.0]]
    assert pruned(W, X, "magnitude", 0.5, scope="row").tolist() == [[0.0, 2.0], [0.0, 40.0]]


def test_two_inputs_that_agree_share_a_weight():
    """w = (1, 1) on inputs that are equal: (0, 2) computes the same."""
    X = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    made = pruned(torch.tensor([[1.0, 1.0]]), X, "sparsegpt", 0.5, damping=1e-6)
    torch.testing.assert_close(made, torch.tensor([[0.0, 2.0]]), atol=1e-3, rtol=0)
    found = pruned(torch.tensor([[1.0, 2.0]]), X, "magnitude", 0.5, refit=True, damping=1e-6)
    torch.testing.assert_close(found, torch.tensor([[0.0, 3.0]]), atol=1e-3, rtol=0)


def test_the_pattern_is_chosen_inside_the_pass():
    """With 1:2: the second pair is judged by what the first has left to it, not by its old weights."""
    W, X = (
        torch.tensor([[1.0, 1.1, 1.0, 1.2]]),
        torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0.1], [0, 0, 0, 1]]),
    )
    before = amounts.keep(W.abs(), amounts.parsed("1:2"), "row")
    assert before.tolist() == [[False, True, False, True]]
    made = pruned(W.double(), X.double(), "sparsegpt", "1:2", damping=1e-6)
    assert (made != 0).tolist() == [[False, True, True, False]]
    assert float(made[0, 2]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("asked", ["2:4", "1:4"])
def test_blocks_of_the_pass_end_with_whole_groups(asked, monkeypatch):
    W, X = normal(3, 12, seed=1).double(), normal(40, 12, seed=2).double()
    whole = scale.sparsegpt_naive(W, X, asked)
    for block in (4, 6, 3, 128):
        monkeypatch.setattr(refit, "BLOCK", block)
        torch.testing.assert_close(pruned(W, X, "sparsegpt", asked), whole)


def test_blocks_of_a_fraction_are_those_of_the_paper(monkeypatch):
    W, X = normal(4, 12, seed=1).double(), normal(40, 12, seed=2).double()
    monkeypatch.setattr(refit, "BLOCK", 4)
    made = pruned(W, X, "sparsegpt", 0.5)
    torch.testing.assert_close(made, scale.sparsegpt_naive(W, X, 0.5, block=4))
    assert not torch.allclose(made, scale.sparsegpt_naive(W, X, 0.5, block=12))


def test_obs_removes_what_layerwise_obs_removes():
    W, X = normal(4, 8, seed=3).double(), normal(30, 8, seed=4).double()
    want = obs.prune_layer(W, X, 0.5, damping=0.01)
    torch.testing.assert_close(pruned(W, X, "obs", 0.5), want)
    want = obs.prune_layer(W, X, 0.5, damping=0.01, scope="layer")
    torch.testing.assert_close(pruned(W, X, "obs", 0.5, scope="layer"), want)


# What holds for every method -------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "amount"), itertools.product(scale.METHODS, AMOUNTS))
def test_exactly_what_was_asked_goes(method, amount):
    net = small()
    before = copy.deepcopy(net.state_dict())
    made, kept = prune(net, tokens(), method, amount)
    assert list(kept) == [n for own in scale.layers_of(net) for n in own]
    asked = amounts.parsed(amount)
    share = asked.n / asked.m if isinstance(amount, str) else 1 - asked
    for name, mask in kept.items():
        w = made.get_parameter(name)
        assert bool((w[~mask] == 0).all())
        if onelayer.METHODS[method].scope == "row" and not isinstance(amount, str):
            assert set(mask.sum(1).tolist()) == {
                mask.shape[1] - masks.removed(mask.shape[1], asked)
            }
        else:
            assert int(mask.sum()) == pytest.approx(share * mask.numel(), abs=0.51)
        if isinstance(amount, str):
            assert bool((mask.reshape(-1, asked.m).sum(1) == asked.n).all())
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    others = set(before) - set(kept)
    assert others
    assert all(torch.equal(made.state_dict()[key], before[key]) for key in others)


@pytest.mark.parametrize("method", scale.METHODS)
def test_zeros_stay_and_count(method):
    dice = torch.Generator().manual_seed(9)  # another one than the second draw's
    once, first = prune(small(), tokens(), "random", 0.4, generator=dice)
    _, kept = prune(once, tokens(), method, 0.6)
    scope = onelayer.METHODS[method].scope
    for name, mask in kept.items():
        zeros = first[name].logical_not()
        if scope == "layer":
            assert not bool((mask & zeros).any())
            assert int(mask.sum()) == mask.numel() - masks.removed(mask.numel(), 0.6)
        else:  # in a row with more zeros than are asked, some must be "kept"
            full = zeros.sum(1) <= masks.removed(mask.shape[1], 0.6)
            assert not bool((mask & zeros)[full].any())


@pytest.mark.parametrize("method", ["random", "magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("amount", [0.5, "2:4"])
def test_the_refit_is_the_best_update_of_its_mask(method, amount):
    W, X = normal(5, 12, seed=5).double(), normal(50, 12, seed=6).double()
    plain, mask = prune(*drawn(W, X), method, amount)
    better = pruned(W, X, method, amount, refit=True)
    kept = mask["0.weight"]
    assert torch.equal(better != 0, kept)
    H = X.T @ X
    A = H + 0.01 * H.diagonal().mean() * torch.eye(12)
    slope = (better - W) @ A
    assert float(slope[kept].abs().max()) < 1e-9 * float(H.max())
    plain = plain[0].weight.detach()
    assert scale.output_error(W, better, X) < scale.output_error(W, plain, X)


@given(seeds, st.sampled_from((0.3, 0.5, 0.7)))
@settings(max_examples=20)
def test_more_is_looked_at_less_is_lost(seed, sparsity):
    """On its own inputs: the update of the pass beats none, and exact OBS by rows beats Wanda's masks."""
    mix = normal(12, 12, seed=seed + 2).double()
    W, X = normal(6, 12, seed=seed).double(), normal(60, 12, seed=seed + 1).double() @ mix
    lost = {
        name: scale.output_error(W, pruned(W, X, name, sparsity, **options), X)
        for name, options in (("wanda", {}), ("obs", {}), ("random", {"refit": True}))
    }
    assert lost["obs"] < lost["wanda"]
    assert lost["obs"] < lost["random"]


def test_random_follows_its_generator_and_blocks_draw_for_themselves():
    def dice():
        return torch.Generator().manual_seed(3)

    one, two = (prune(small(), tokens(), "random", 0.5, generator=dice())[1] for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = prune(small(), tokens(), "random", 0.5)[1]
    assert any(not torch.equal(one[name], other[name]) for name in one)
    first, second = (one[f"blocks.{i}.attention.q.weight"] for i in range(2))
    assert not torch.equal(first, second)


# Block by block --------------------------------------------------------------------------------------


def test_a_block_is_pruned_on_what_the_pruned_blocks_give():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = normal(40, 6, seed=1).double()
    made, _ = prune(net, x, "sparsegpt", 0.5)
    h = torch.tanh(nn.functional.linear(x, made[0].weight, net[0].bias))
    torch.testing.assert_close(
        made[2].weight.detach(), pruned(net[2].weight.detach(), h, "sparsegpt", 0.5)
    )
    dense = torch.tanh(net[0](x)).detach()
    other = pruned(net[2].weight.detach(), dense, "sparsegpt", 0.5)
    assert not torch.allclose(made[2].weight, other)


@pytest.mark.parametrize("needs", ["norms", "gram"])
def test_the_sums_are_those_of_the_inputs(needs):
    net, x, seen = tiny_llama(), tokens(V=11), {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        for own in scale.layers_of(net)
        for name, layer in own.items()
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    sums = {k: v for stop in blockwise.walk(net, x, needs, chunk=4) for k, v in stop.look().items()}
    assert set(sums) == set(seen)
    for name, found in sums.items():
        H = gram(seen[name].flatten(0, 1))
        torch.testing.assert_close(found, H if needs == "gram" else H.diagonal())


@pytest.mark.parametrize(("make", "kinds"), [(small, 4), (tiny_llama, 4)])
def test_layers_that_read_the_same_share_the_work(make, kinds, monkeypatch):
    net, done = make(), []
    real = blockwise.add_gram
    monkeypatch.setattr(blockwise, "add_gram", lambda H, x: (done.append(x.shape), real(H, x)))
    for stop in blockwise.walk(net, tokens(), "gram"):
        stop.look()
        assert len(done) == kinds * (stop.number + 1)


def test_how_many_samples_run_together_changes_nothing():
    net, x = tiny_llama(), tokens(n=7, V=11)
    one, two = (prune(net, x, "sparsegpt", "2:4", chunk=chunk)[0] for chunk in (1, 8))
    for name, w in one.named_parameters():
        torch.testing.assert_close(w, two.get_parameter(name))


def test_sums_of_half_precision_are_added_up_in_float64():
    x = normal(5000, 8, seed=0).bfloat16()
    H = torch.zeros(8, 8, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        add_gram(H, x)
    torch.testing.assert_close(H, gram(x.double()), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_model_of_half_precision_is_pruned(method):
    net = small().bfloat16()
    made, kept = prune(net, tokens(), method, "2:4")
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
    assert all(bool((made.get_parameter(n)[~m] == 0).all()) for n, m in kept.items())
    assert scale.perplexity(made, tokens()) > 1


def test_autocast_reaches_the_activations_and_not_the_decisions():
    net, x = small().float(), tokens()
    exact, kept = prune(net, x, "sparsegpt", "2:4")
    with torch.autocast("cpu", torch.bfloat16):
        rough, other = prune(net, x, "sparsegpt", "2:4")
    same = sum(int((kept[name] == other[name]).sum()) for name in kept)
    assert 0.9 < same / sum(mask.numel() for mask in kept.values()) < 1
    for name in kept:
        w = rough.get_parameter(name)
        assert w.dtype == torch.float32
        assert not torch.equal(w, w.bfloat16().float())
        torch.testing.assert_close(w.norm(), exact.get_parameter(name).norm(), rtol=0.05, atol=0)


class Told(nn.Module):
    """A block that is told more than its input, and says more than its output."""

    def __init__(self, wide):
        super().__init__()
        self.inner = nn.Linear(wide, wide, bias=False)

    def forward(self, h, mask, *, places):
        return torch.tanh(self.inner(h) * mask + places), "more"


class Teller(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.layers = nn.ModuleList([Told(4) for _ in range(3)])

    def forward(self, x):
        h, mask = self.first(x), x[:, :1].abs()
        for layer in self.layers:
            h = layer(h, mask, places=x.mean(1, keepdim=True))[0]
        return h


def test_what_a_block_is_told_beside_its_input_stays_with_its_samples():
    torch.manual_seed(3)
    net, x = Teller().double(), normal(12, 4, seed=4).double()
    made, kept = prune(net, x, "sparsegpt", 0.5, chunk=5)
    assert list(kept) == [f"layers.{i}.inner.weight" for i in range(3)]
    want, h, mask = copy.deepcopy(net), net.first(x).detach(), x[:, :1].abs()
    for layer in want.layers:
        layer.inner.weight.data = pruned(layer.inner.weight.detach(), h, "sparsegpt", 0.5)
        h = layer(h, mask, places=x.mean(1, keepdim=True))[0].detach()
    torch.testing.assert_close(made(x), want(x))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.blocks[0](x)


class Skipped(Twice):
    def forward(self, x):
        return self.blocks[0](x) + self.blocks[1](x)


class Idle(Twice):
    def forward(self, x):
        return self.blocks[0](x)


class Sly(Twice):
    def forward(self, x):
        return self.blocks[1](self.blocks[0](x)) + x @ self.blocks[0].weight


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Twice, r"'blocks.0' runs 2 times in a pass"),
        (Idle, r"'blocks.1' runs 0 times"),
        (Skipped, r"what 'blocks.0' gives is not what 'blocks.1' gets"),
        (Sly, r"'blocks.0.weight' is read without a call"),
    ],
)
def test_what_is_no_chain_is_refused_by_name(kind, said):
    with pytest.raises(UncoveredError, match=said):
        prune(kind(), torch.randn(5, 3), "wanda", 0.5)


def test_attention_of_torch_is_refused_by_name():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(
        UncoveredError, match=r"'0.self_attn.in_proj_weight' is not a Linear layer's"
    ):
        prune(nn.Sequential(layer, layer), torch.randn(2, 3, 8), "wanda", 0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": "half"}, r"'n:m' with n of every m inputs that stay, e.g. '2:4', got 'half'"),
        ({"sparsity": "5:4"}, r"got '5:4'"),
        ({"sparsity": "2:3"}, r"8 inputs, not a multiple of m=3"),
        ({"sparsity": 1.5}, r"sparsity must lie in \[0, 1\], got 1.5"),
        ({"sparsity": {"head.weight": 0.5}}, r"sparsity has the key 'head.weight'"),
        ({"sparsity": {}}, r"sparsity is missing for 'blocks.0.attention.q.weight', one of 12"),
        (
            {"method": "sparsegpt", "scope": "row"},
            r"scope must be 'layer' for 'sparsegpt', got 'row'",
        ),
        ({"method": "lucky"}, r"method must be one of"),
        ({"blocks": "layers"}, r"blocks must name the list of the model's blocks, got 'layers'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        prune(small(), tokens(), **options)


def test_the_embedding_and_the_head_stay():
    net = tiny_llama()
    made, kept = prune(net, tokens(V=11), "magnitude", 0.5)
    assert not any("head" in name or "embedding" in name for name in kept)
    assert made.head.weight is made.embedding.weight
    assert torch.equal(made.head.weight, net.head.weight)


# A long job goes on ----------------------------------------------------------------------------------


def test_a_job_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    net, x, done = small(depth=3), tokens(), []
    whole, kept = prune(net, x, "sparsegpt", 0.5)
    real = blockwise.prune_block

    def counted(stop, *rest):
        if len(done) == 2 and stop.number == 2:
            done.append("stopped")
            raise KeyboardInterrupt
        done.append(stop.number)
        return real(stop, *rest)

    monkeypatch.setattr(blockwise, "prune_block", counted)
    with pytest.raises(KeyboardInterrupt):
        prune(net, x, "sparsegpt", 0.5, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0000.safetensors",
        "0001.safetensors",
    ]
    again, masks_again = prune(net, x, "sparsegpt", 0.5, folder=tmp_path)
    assert done == [0, 1, "stopped", 2]
    assert all(torch.equal(w, again.get_parameter(n)) for n, w in whole.named_parameters())
    assert all(torch.equal(kept[name], masks_again[name]) for name in kept)


def test_random_draws_the_same_after_a_stop(tmp_path):
    whole = prune(small(), tokens(), "random", 0.5, folder=tmp_path)[1]
    (tmp_path / "0001.safetensors").unlink()
    again = prune(small(), tokens(), "random", 0.5, folder=tmp_path)[1]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 0.6}, "sparsity"),
        ({"method": "wanda"}, "method"),
        ({"damping": 0.1}, "damping"),
        ({"tokens": tokens(seed=1)}, "tokens"),
        ({"model": small(seed=1)}, "weights"),
    ],
)
def test_the_folder_of_another_job_is_refused(options, said, tmp_path):
    given = {"model": small(), "tokens": tokens(), "method": "sparsegpt", "sparsity": 0.5}
    prune(**given, folder=tmp_path)
    with pytest.raises(ValueError, match=rf"0000.safetensors is of another run: {said}"):
        prune(**(given | options), folder=tmp_path)


def test_a_damaged_result_is_refused(tmp_path):
    prune(small(), tokens(), "magnitude", 0.5, folder=tmp_path)
    file = tmp_path / "0001.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"no whole safetensors file .*delete it"):
        prune(small(), tokens(), "magnitude", 0.5, folder=tmp_path)


# Outliers --------------------------------------------------------------------------------------------


def stretched(net, name, at, factor):
    factors = torch.ones(len(next(j for j in transformers_joints(net) if j.key == name).makers[0]))
    factors[at] = factor
    return scale.stretched(net, {name: factors.double()})


def transformers_joints(net):
    from teachkit.lab.stretching import joints

    return list(joints(net))


@pytest.mark.parametrize("make", [small, tiny_llama])
def test_a_stretched_network_computes_the_same(make):
    net, x = make(), tokens()
    for joint in transformers_joints(net):
        other = stretched(net, joint.key, 1, 40.0)
        torch.testing.assert_close(other(x), net(x))
        norms, before = (scale.input_norms(each, x)[joint.key] for each in (other, net))
        read = joint.spread(torch.arange(len(joint.makers[0])) == 1)
        torch.testing.assert_close(norms[read], 40 * before[read])
        torch.testing.assert_close(norms[~read], before[~read])


def test_an_outlier_changes_what_magnitude_keeps_and_not_what_the_others_keep():
    net, x, name = small(), tokens(), "blocks.0.mlp.up.weight"
    other = stretched(net, name, 2, 40.0)
    for method, same in (("magnitude", False), ("wanda", True), ("sparsegpt", True), ("obs", True)):
        one, two = (prune(each, x, method, 0.5, damping=1e-9)[1][name] for each in (net, other))
        assert torch.equal(one, two) is same, method


def test_where_all_inputs_are_of_one_size_magnitude_is_wanda():
    net, x = tiny_llama(), tokens(V=11)
    flat = scale.equalised(net, scale.input_norms(net, x))
    torch.testing.assert_close(flat(x), net(x))
    norms = scale.input_norms(flat, x)
    for name, size in norms.items():
        if "attention.o" not in name:
            torch.testing.assert_close(size, torch.ones_like(size))
    found = prune(flat, x, "magnitude", 0.5, scope="row")[1]
    want = prune(net, x, "wanda", 0.5)[1]
    first = [name for name in want if name.startswith("blocks.0") and "attention.o" not in name]
    assert len(first) == 6
    assert all(torch.equal(found[name], want[name]) for name in first)
    plain = prune(net, x, "magnitude", 0.5, scope="row")[1]
    assert not all(torch.equal(plain[name], want[name]) for name in first)


def test_owl_keeps_the_mean_and_gives_more_to_outliers():
    rule = scale.owl_densities([0.01, 0.05, 0.03, 0.01], 0.4, 0.08)
    assert sum(rule) / 4 == pytest.approx(0.4)
    assert max(rule) - min(rule) == pytest.approx(0.16)
    assert rule[1] > rule[2] > rule[0] == rule[3]
    assert scale.owl_densities([0.2, 0.2], 0.4, 0.08) == [0.4, 0.4]
    with pytest.raises(ValueError, match="spread must leave all densities"):
        scale.owl_densities([0.0, 1.0], 0.9, 0.3)


def test_owl_counts_the_scores_above_a_multiple_of_their_mean():
    net = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.Identity(), nn.Linear(4, 4, bias=False)
    ).double()
    net[0].weight.data = torch.eye(4).double() + 0.01
    net[2].weight.data[:] = 1.0
    rule = scale.owl(net, torch.eye(4).double(), 0.5, times=3.0, spread=0.1)
    assert rule == pytest.approx({"0.weight": 0.4, "2.weight": 0.6})
    kept = prune(net, torch.eye(4).double(), "wanda", rule, scope="layer")[1]
    assert [int(mask.sum()) for mask in kept.values()] == [10, 6]


# Heads and channels, removed for real ----------------------------------------------------------------


@pytest.mark.parametrize("make", [small, tiny_llama])
def test_a_smaller_transformer_computes_what_zeros_compute(make):
    net, x = make(), tokens()
    scores = scale.unit_scores(net, x)
    keep = {name: score > score.median() for name, score in scores.items()}
    little = scale.without_units(net, keep)
    zeroed = copy.deepcopy(net)
    for name, mask in keep.items():
        layer = zeroed.get_submodule(f"{name}.{'down' if 'mlp' in name else 'o'}")
        columns = layer.weight.shape[1] // len(mask)
        layer.weight.data[:, ~mask.repeat_interleave(columns)] = 0
    torch.testing.assert_close(little(x), zeroed(x))
    assert not torch.allclose(little(x), net(x))
    count, fewer = (
        sum(p.numel() for p in each.blocks.parameters() if p.ndim == 2) for each in (net, little)
    )
    assert fewer == count // 2


def test_the_score_of_a_unit_is_the_size_of_what_it_writes():
    """With orthogonal outputs: the root of the mean square of the change when the unit goes."""
    net, x = small(depth=1), tokens()
    scores = scale.unit_scores(net, x)["blocks.0.mlp"]
    seen = []
    net.blocks[0].mlp.register_forward_hook(lambda *given: seen.append(given[2]))
    net(x)
    for j in (0, 5):
        net.blocks[0].mlp.down.weight.data[:, j], w = 0, net.blocks[0].mlp.down.weight[:, j].clone()
        net(x)
        net.blocks[0].mlp.down.weight.data[:, j] = w.detach()
        change = (seen[0] - seen[-1]).square().sum(-1).mean().sqrt()
        assert float(change) == pytest.approx(float(scores[j]))


def test_units_that_cannot_go_are_refused():
    with pytest.raises(
        ValueError, match=r"keep has the key 'mlp'; allowed are \['blocks.0.attention'"
    ):
        scale.without_units(small(), {"mlp": torch.ones(32) > 0})
    with pytest.raises(ValueError, match="keep must leave one head or more"):
        scale.without_units(small(), {"blocks.0.attention": torch.zeros(2) > 0})
    with pytest.raises(
        TypeError, match="model must be a transformer of lab.transformers, got Linear"
    ):
        scale.without_units(nn.Linear(2, 2), {})


# How good, and what it says --------------------------------------------------------------------------


def test_perplexity_is_that_of_the_next_token():
    net, x = small(), tokens()
    logits = net(x)[:, :-1].reshape(-1, 7)
    want = cross_entropy(logits, x[:, 1:].reshape(-1)).exp()
    for chunk in (1, 4, 100):
        assert scale.perplexity(net, x, chunk=chunk) == pytest.approx(float(want), rel=1e-6)


def test_perplexity_leaves_the_mode_alone_and_refuses_single_tokens():
    net = small().train()
    scale.perplexity(net, tokens())
    assert net.training
    with pytest.raises(ValueError, match=r"tokens must be \(n, T\) with n ≥ 1 and T ≥ 2"):
        scale.perplexity(net, tokens(T=1))
    with pytest.raises(ValueError, match=r"model must give logits \(n, T, V\)"):
        scale.perplexity(nn.Sequential(nn.Embedding(7, 3), nn.Flatten()), tokens())


@pytest.fixture(scope="module")
def shakespeare():
    torch.set_default_dtype(torch.float64)
    return language.shakespeare()


def test_the_small_model_has_read_shakespeare(shakespeare):
    held = language.halves(shakespeare.encode(language.text("shakespeare")))[1]
    pieces = language.pieces(held, 128, 8)
    assert (
        scale.perplexity(shakespeare.model, pieces) < 7 < 60 < scale.perplexity(untrained(), pieces)
    )
    said = scale.says(shakespeare, "ROMEO:\n", 40)
    assert said.startswith("ROMEO:\n")
    assert len(said) == len("ROMEO:\n") + 40
    known = set(re.findall(r"\w+", language.text("shakespeare")))
    assert sum(word in known for word in re.findall(r"\w+", said)) >= 6


def untrained():
    return transformers.transformer().double()


def test_what_a_model_says_is_the_likeliest_each_time_and_looks_back_so_far():
    letters = Characters("abcdefg")
    net = small()
    heard = Language(net, letters.encode, letters.decode)
    said = scale.says(heard, "abc", 4)
    tokens = letters.encode(said)
    for at in range(3, 7):
        assert int(net(tokens[None, :at])[0, -1].argmax()) == int(tokens[at])
    short = scale.says(heard, "abcdefg", 1, context=2)
    assert short == "abcdefg" + scale.says(heard, "fg", 1)[-1]
    assert scale.says(heard, "ab", 0) == "ab"
    with pytest.raises(ValueError, match="prompt must not be empty"):
        scale.says(heard, "", 4)


def test_on_the_small_model_the_update_counts_for_more_than_the_criterion(shakespeare):
    """The ordering of the large models turns round: magnitude before Wanda; least squares before both."""
    train, held = language.halves(shakespeare.encode(language.text("shakespeare")))
    x = language.windows(train, 128, 16, torch.Generator().manual_seed(1))
    pieces = language.pieces(held, 128, 32)
    found = {}
    for name, options in (
        ("magnitude", {}),
        ("wanda", {}),
        ("sparsegpt", {}),
        ("refit", {"refit": True}),
    ):
        method = "magnitude" if name == "refit" else name
        net, _ = prune(shakespeare.model, x, method, 0.7, **options)
        found[name] = scale.perplexity(net, pieces, chunk=32)
    assert found["refit"] < found["sparsegpt"] < found["magnitude"]
    assert found["sparsegpt"] < found["wanda"]


# What the lesson shows ------------------------------------------------------------------------------


def test_the_live_cell_says_in_a_sentence_what_is_missing(monkeypatch):
    monkeypatch.setattr(scenes.smollm2, "kept", lambda: None)
    assert scenes.live("x") == scenes.ABSENT
    assert "lab.data.smollm2()" in scenes.ABSENT


def test_the_live_cell_prunes_the_model_that_is_there(monkeypatch):
    speaker = Language(small(), lambda text: tokens(1, 200)[0], lambda ids: " ".join(map(str, ids)))
    monkeypatch.setattr(scenes.smollm2, "kept", lambda: "here")
    monkeypatch.setattr(scenes.data, "smollm2", lambda: speaker._replace(encode=speaker.encode))
    monkeypatch.setattr(scenes.scale, "says", lambda it, prompt, count: f"{prompt} {count}\n b")
    said = repr(scenes.live("a", 3, 12)).splitlines()
    assert [line.split("  ")[0] for line in said[2:]] == [
        "dense", "50 % by magnitude", "50 % by Wanda"
    ]  # fmt: skip
    assert all(line.endswith("a 3 b") for line in said[2:])


@pytest.mark.parametrize("answer", ["", "a" * 129, 3, None])
def test_a_calibration_text_that_is_none_is_refused(answer):
    with pytest.raises(ValueError, match="return a text of 2 to 128 characters"):
        tasks.calibrated(answer)


def test_a_calibration_text_is_judged_on_two_texts():
    with pytest.raises(ValueError, match="has the character '7'"):
        tasks.calibrated("77")
    poor = tasks.calibrated("aaaa")
    assert not poor.good
    assert "at most half as much is asked for" in poor.words
    good = tasks.calibrated(language.text("shakespeare")[20_000:20_128])
    assert good.good
    assert re.search(r"Score: [5-7]\d % of magnitude", good.words)


def test_what_the_figures_compute():
    rows = [
        {"seed": s, "way": w, "sparsity": 0.5, "loss": s + 0.1 * (w == "b")}
        for s in (0, 1, 2)
        for w in "ab"
    ]
    assert figures.paired(rows, "b", "a")[0.5].mean == pytest.approx(0.1)
    assert figures.column(rows, "way")["a"].mean == pytest.approx(1.0)
    net, x = small(), tokens()
    X = figures.inputs_of(net, "blocks.1.mlp.up", x)
    norms = scale.input_norms(net, x)["blocks.1.mlp.up.weight"]
    torch.testing.assert_close(X.square().mean(0).sqrt(), norms, check_dtype=False)
    W = net.get_parameter("blocks.1.mlp.up.weight").detach()
    for way in figures.WAYS:
        assert float((figures.alone(W, X, way, 0.5) == 0).double().mean()) == pytest.approx(0.5)
