"""The Fisher matrix: estimates, inverses, pruning."""

import math

import oracles
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from teachkit import fisher, lab, masks
from teachkit.core.criteria import PRUNES, SCORES
from teachkit.engine import blocks as wood
from teachkit.engine import gradients as single

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU]


def dice(seed):
    return torch.Generator().manual_seed(seed)


def case(seed, activation=nn.Tanh, outputs=3, samples=7):
    net = lab.models.mlp((4,), outputs, hidden=(5,), activation=activation, seed=seed)
    x = torch.randn(samples, 4, generator=dice(seed))
    return net, (x, torch.randint(0, outputs, (samples,), generator=dice(seed + 1)))


def random_gradients(seed, m, n):
    return torch.randn(m, n, generator=dice(seed))


def close(a, b, rel=1e-9):
    torch.testing.assert_close(a, b, rtol=rel, atol=rel * float(b.abs().max()) + 1e-300)


def convolutional(seed=0):
    layers = [nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(2)]
    layers += [nn.Dropout(), nn.Conv2d(2, 3, 2, bias=False), nn.Flatten(), nn.Linear(3, 3)]
    return lab.models.build(lambda: layers, seed), (
        torch.randn(4, 1, 4, 4, generator=dice(seed)),
        torch.tensor([0, 2, 1, 0]),
    )


SEEDS = st.integers(0, 10**6)


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(ACTIVATIONS), st.integers(1, 9))
def test_gradients_and_diagonal_are_single_backward_passes(seed, activation, samples):
    net, batch = case(seed, activation, samples=samples)
    want = fisher.gradients_naive(net, batch)
    close(fisher.gradients(net, batch), want)
    close(oracles.flat(fisher.diagonal(net, batch)), oracles.fisher_matrix(want).diagonal())


@settings(max_examples=10)
@given(SEEDS, st.sampled_from(ACTIVATIONS))
def test_true_fisher_is_the_sum_over_classes(seed, activation):
    net, batch = case(seed, activation)
    want = fisher.true_naive(net, batch)
    G = fisher.gradients(net, batch, kind="true")
    close(fisher.matrix(G), want)
    found = fisher.diagonal(net, batch, nn.CrossEntropyLoss(), kind="true")
    close(oracles.flat(found), want.diagonal())


@settings(max_examples=10)
@given(
    SEEDS,
    st.sampled_from([cross_entropy, mse_loss, binary_cross_entropy_with_logits]),
    st.integers(1, 7),
)
@example(0, mse_loss, 1)
def test_true_fisher_of_a_linear_model_is_the_whole_hessian(seed, loss, n):
    """Where outputs are linear in the weights, Gauss-Newton and Hessian are the same matrix."""
    outputs = 1 if loss is binary_cross_entropy_with_logits else 3
    net = lab.models.build(lambda: [nn.Linear(4, outputs, bias=False)], seed)
    x = torch.randn(n, 4, generator=dice(seed))
    y = torch.rand(n, outputs, generator=dice(seed + 1))
    batch = (x, y.argmax(1) if loss is cross_entropy else y.round())
    want = oracles.hessian(net, batch, loss)
    close(fisher.matrix(fisher.gradients(net, batch, loss, kind="true")), want)


@settings(max_examples=10)
@given(SEEDS)
def test_true_fisher_of_a_relu_net_has_the_hessians_diagonal(seed):
    net, batch = case(seed, nn.ReLU)
    names = [name for name, _ in net.named_parameters()]
    H = oracles.hessian(net, batch, cross_entropy).diagonal()
    parts = dict(zip(names, torch.split(H, [p.numel() for p in net.parameters()]), strict=True))
    for name, f in fisher.diagonal(net, batch, kind="true").items():
        close(f.reshape(-1), parts[name])


def test_true_fisher_of_a_tanh_net_is_not_the_hessians_diagonal():
    net, batch = case(0, nn.Tanh)
    H = oracles.hessian(net, batch, cross_entropy).diagonal()[:20]
    f = fisher.diagonal(net, batch, kind="true")["1.weight"].reshape(-1)
    assert float((f - H).abs().max() / H.abs().max()) > 0.01


@pytest.mark.parametrize("kind", ["empirical", "true", "sampled"])
@pytest.mark.parametrize("seed", [0, 1])
def test_diagonal_by_layers_is_the_mean_square_of_the_gradients(kind, seed):
    net, batch = convolutional(seed)
    G = fisher.gradients(net, batch, kind=kind, generator=dice(3))
    f = fisher.diagonal(net, batch, kind=kind, generator=dice(3))
    close(oracles.flat(f), (G * G).mean(0))
    assert {n: t.shape for n, t in f.items()} == {
        n: w.shape for n, w in masks.prunable(net).items()
    }


class Twice(nn.Module):
    """A layer used twice, a grouped convolution and a layer without data."""

    def __init__(self):
        super().__init__()
        self.a, self.idle, self.out = nn.Linear(4, 4), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.a(self.a(x).tanh()).tanh())


class Positions(nn.Module):
    """A Linear layer that sees several positions of each sample."""

    def __init__(self):
        super().__init__()
        self.a, self.idle, self.out = nn.Linear(2, 3), nn.Linear(2, 2), nn.Linear(3, 3)

    def forward(self, x):
        return self.out(self.a(x.reshape(len(x), 2, 2)).tanh().mean(1))


@pytest.mark.parametrize("make", [Twice, Positions])
@pytest.mark.parametrize("kind", ["empirical", "true"])
def test_other_modules(make, kind):
    _, batch = case(0)
    net = make().to(torch.float64)
    G = fisher.gradients(net, batch, kind=kind)
    f = fisher.diagonal(net, batch, kind=kind)
    close(oracles.flat(f), (G * G).mean(0))
    assert f["idle.weight"].eq(0).all()


@pytest.mark.parametrize("loss", [cross_entropy, mse_loss, binary_cross_entropy_with_logits])
def test_sampled_labels_approach_the_true_fisher(loss):
    outputs = 1 if loss is binary_cross_entropy_with_logits else 3
    net = lab.models.build(lambda: [nn.Linear(2, outputs)], 1)
    x = torch.ones(40000, 2)
    batch = (x, torch.zeros(40000, dtype=int) if loss is cross_entropy else net(x).detach())
    found = fisher.diagonal(net, batch, loss, kind="sampled", generator=dice(0))["0.weight"]
    want = fisher.diagonal(net, batch, loss, kind="true")["0.weight"]
    torch.testing.assert_close(found, want, rtol=0.05, atol=0)


def test_scores_are_half_f_w_squared():
    net, batch = case(2)
    f, found = fisher.diagonal(net, batch), fisher.scores(net, batch)
    for name, w in masks.prunable(net).items():
        close(found[name], f[name] * w.detach() ** 2 / 2)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 9))
def test_squares_of_a_layer_are_squares_of_its_gradients(seed, samples):
    layer, loss = nn.Linear(4, 3, bias=False).double(), cross_entropy
    x, y = torch.randn(samples, 4, generator=dice(seed)), torch.arange(samples) % 3
    delta = layer(x).detach().softmax(1) - nn.functional.one_hot(y, 3)
    G = fisher.gradients_naive(layer, (x, y), loss)
    close(fisher.squares(x, delta).reshape(-1), (G**2).sum(0))


def test_the_registered_functions_are_those_of_the_lesson():
    net, batch = case(3)
    for name, kind in {"true Fisher": "true", "sampled Fisher": "sampled"}.items():
        found = SCORES[name].function(net, batch)
        want = fisher.scores(net, batch, kind=kind, generator=dice(0))
        assert all(torch.equal(found[n], s) for n, s in want.items())
    assert SCORES["empirical Fisher"].function is fisher.scores
    assert PRUNES["Fisher blocks"].function is fisher.prune
    twice = PRUNES["Fisher blocks, 2 steps"].function(net, batch, 0.5)[1]
    want = fisher.prune(net, batch, 0.5, steps=2)[1]
    assert all(torch.equal(twice[n], m) for n, m in want.items())


MATRICES = (SEEDS, st.integers(1, 12), st.integers(1, 11), st.sampled_from([1e-3, 0.1, 10.0]))


@settings(max_examples=30)
@given(*MATRICES, st.integers(1, 12))
def test_inverses_by_blocks(seed, m, n, damping, block):
    G = random_gradients(seed, m, n)
    b = min(block, n)
    found = fisher.inverse_blocks(G, block, damping)
    close(fisher.recursion(G, block, damping), found, 1e-8)
    assert len(found) == math.ceil(n / b)
    for i, A in enumerate(found):
        part = G[:, i * b : (i + 1) * b]
        k = part.shape[1]
        close(A[:k, :k], torch.linalg.inv(oracles.fisher_matrix(part, damping)), 1e-8)


@settings(max_examples=30)
@given(*MATRICES)
def test_full_inverse_diagonal_and_solve(seed, m, n, damping):
    G, v = random_gradients(seed, m, n), random_gradients(seed + 1, n, 2)
    F = oracles.fisher_matrix(G, damping)
    A = torch.linalg.inv(F)
    close(fisher.matrix(G, damping), F)
    close(fisher.inverse(G, damping), A, 1e-8)
    close(fisher.inverse_diagonal(G, damping), A.diagonal(), 1e-8)
    close(fisher.solve(G, v, damping), A @ v, 1e-8)
    close(fisher.solve(G, v[:, 0], damping), A @ v[:, 0], 1e-8)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 40), st.floats(0, 1), st.sampled_from(["empirical", "true"]))
def test_prune_is_the_step_with_explicit_inverses(seed, block, sparsity, kind):
    net, batch = case(seed)
    F = oracles.fisher_matrix(fisher.gradients(net, batch, kind=kind))
    w = oracles.flat(masks.prunable(net)).detach()
    pruned, kept = fisher.prune(net, batch, sparsity, block=block, damping=0.01, kind=kind)
    number = torch.arange(len(w)) // block
    F = torch.where(number[:, None] == number, F, 0.0) + 0.01 * torch.eye(len(w))
    want = fisher.prune_naive(w, F, masks.removed(len(w), sparsity))
    close(oracles.flat(masks.prunable(pruned)).detach(), want, 1e-8)
    assert torch.equal(oracles.flat(kept), want != 0)


def test_one_removal_moves_the_others_as_the_surgeon_does():
    net, batch = case(4)
    w = oracles.flat(masks.prunable(net)).detach()
    A = fisher.inverse(fisher.gradients(net, batch), 0.01)
    q = int((w**2 / A.diagonal()).argmin())
    for update in ("joint", "single"):
        pruned, _ = fisher.prune(net, batch, 1 / len(w), block=99, damping=0.01, update=update)
        found = oracles.flat(masks.prunable(pruned)).detach()
        close(found, (w - w[q] * A[:, q] / A[q, q]).index_fill(0, torch.tensor([q]), 0), 1e-8)


def test_no_update_leaves_the_others_alone():
    net, batch = case(4)
    pruned, kept = fisher.prune(net, batch, 0.5, update="none")
    masked = masks.apply(net, kept)
    assert all(
        torch.equal(p, q) for p, q in zip(pruned.parameters(), masked.parameters(), strict=True)
    )


@settings(max_examples=15)
@given(SEEDS, st.floats(0, 1), st.integers(1, 4), st.floats(0, 1))
def test_steps_keep_exactly_k_and_old_zeros(seed, sparsity, steps, before):
    net, batch = case(seed)
    earlier = masks.keep_top(masks.prunable(net), before)
    net = masks.apply(net, earlier)
    saved = {n: p.clone() for n, p in net.named_parameters()}
    pruned, kept = fisher.prune(net, batch, sparsity, steps=steps, damping=1e-3, block=8)
    n = sum(mask.numel() for mask in kept.values())
    assert sum(int((~mask).sum()) for mask in kept.values()) == masks.removed(n, sparsity)
    for name, w in masks.prunable(pruned).items():
        assert w[~kept[name]].eq(0).all()
        assert w[~earlier[name]].eq(0).all()
    assert all(torch.equal(p, saved[name]) for name, p in net.named_parameters())


def test_steps_follow_the_cubic():
    net, batch = case(5)
    half, _ = fisher.prune(net, batch, 0.8 - 0.8 * 0.5**3)
    want, _ = fisher.prune(half, batch, 0.8)
    found, _ = fisher.prune(net, batch, 0.8, steps=2)
    for p, q in zip(found.parameters(), want.parameters(), strict=True):
        close(p.detach(), q.detach())


def test_single_precision_stays_single_and_twice_is_the_same():
    net, (x, y) = case(1)
    net, batch = net.float(), (x.float(), y)
    first, _ = fisher.prune(net, batch, 0.5, steps=2)
    again, _ = fisher.prune(net, batch, 0.5, steps=2)
    for p, q in zip(first.parameters(), again.parameters(), strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, q)
    assert fisher.diagonal(net, batch)["1.weight"].dtype == torch.float32


def test_a_model_without_weights_and_one_with_a_single_weight():
    batch = (torch.ones(2, 1), torch.tensor([0, 0]))
    assert fisher.diagonal(nn.Flatten(), batch) == {}
    assert fisher.prune(nn.Flatten(), batch, 0.5)[1] == {}
    _, kept = fisher.prune(nn.Linear(1, 1, bias=False), batch, 1.0)
    assert kept["weight"].tolist() == [[False]]


@pytest.mark.parametrize(
    ("error", "call", "says"),
    [
        (ValueError, lambda n, b: fisher.diagonal(n, b, kind="exact"), "kind must be one of"),
        (
            TypeError,
            lambda n, b: fisher.diagonal(n, b, kind="sampled"),
            "torch.Generator, got None",
        ),
        (
            ValueError,
            lambda n, b: fisher.diagonal(n, b, nn.functional.nll_loss, kind="true"),
            "distribution of labels is known for .* got nll_loss",
        ),
        (
            ValueError,
            lambda n, b: fisher.diagonal(n, b, binary_cross_entropy_with_logits, kind="true"),
            r"one output\), got binary.* with outputs of shape \(\d+, [2-9]\)",
        ),
        (
            ValueError,
            lambda n, b: fisher.diagonal(n, b, lambda z, y: cross_entropy(z, y, reduction="sum")),
            "must be the mean over the samples",
        ),
        (ValueError, lambda n, b: fisher.prune(n, b, 0.5, damping=0), "singular with damping 0"),
        (ValueError, lambda n, b: fisher.prune(n, b, 1.5), r"sparsity must lie in \[0, 1\]"),
        (ValueError, lambda n, b: fisher.prune(n, b, 0.5, update="some"), "update must be one of"),
        (ValueError, lambda n, b: fisher.prune(n, b, 0.5, steps=0), "steps must be a whole number"),
        (ValueError, lambda n, b: fisher.prune(n, b, 0.5, block=0), "block must be a whole number"),
        (ValueError, lambda n, b: fisher.prune(n, b, 0.5, damping=-1.0), "got -1.0"),
        (TypeError, lambda n, b: fisher.prune(n, b, 0.5, damping="much"), "got 'much'"),
        (ValueError, lambda n, b: fisher.diagonal(n, (b[0] * math.nan, b[1])), "NaN"),
        (ValueError, lambda n, b: fisher.gradients(nn.Flatten(), b), "no prunable weight"),
    ],
)
def test_bad_input_is_refused(error, call, says):
    with pytest.raises(error, match=says):
        call(*case(0))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda F, w: wood.updated(F, w, w > 0, 0.1, "Joint"), "one of .*'none'.*, got 'Joint'"),
        (lambda F, w: wood.saliencies(F, w, -1), "damping must be .* 0 or more, got -1"),
        (lambda F, w: wood.saliencies(F, w, math.nan), "damping must be .*, got nan"),
        (
            lambda F, w: wood.updated(F, w, w > 0, math.nan, "joint"),
            "damping must be .*, got nan",
        ),
    ],
)
def test_steps_of_the_pruning_check_their_own_input(call, says):
    with pytest.raises(ValueError, match=says):
        call(3 * torch.eye(2, dtype=torch.float64)[None], torch.ones(2, dtype=torch.float64))


def test_bad_matrices_are_refused():
    G = random_gradients(0, 3, 4)
    with pytest.raises(ValueError, match="1 of 1 blocks of the Fisher matrix are singular"):
        fisher.inverse_blocks(G, 4, 0.0)
    with pytest.raises(ValueError, match="number above 0, got 0"):
        fisher.inverse_diagonal(G, 0)
    with pytest.raises(ValueError, match="takes 0.8 GB; at most 5000 weights"):
        fisher.inverse(torch.zeros(1, 10000), 1.0)
    with pytest.raises(ValueError, match=r"must have shape \(m, n\)"):
        fisher.matrix(torch.zeros(3))
    with pytest.raises(ValueError, match="vector must have 4 rows"):
        fisher.solve(G, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="NaN"):
        fisher.recursion(G * math.inf, 2, 1.0)


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(single, "STORE_LIMIT", 1000)
    monkeypatch.setattr(wood, "BLOCK_LIMIT", 1000)
    net, batch = case(0)
    with pytest.raises(ValueError, match="7 gradients of 35 weights take"):
        fisher.gradients(net, batch)
    with pytest.raises(ValueError, match="35 weights in blocks of 10 take"):
        fisher.blocks(net, batch, block=10)


def test_chunks_do_not_change_the_result(monkeypatch):
    net, batch = convolutional()
    wanted = fisher.gradients(net, batch), fisher.diagonal(net, batch)["4.weight"]
    monkeypatch.setattr(single, "CHUNK", 1)
    close(fisher.gradients(net, batch), wanted[0])
    close(fisher.diagonal(net, batch)["4.weight"], wanted[1])
