"""Optimal Brain Surgeon: formulas, the fast removal, curvature, pruning, XOR and MONK's."""

import itertools
import math
import re

import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy, cross_entropy, mse_loss

from teachkit import lab, masks, obs
from teachkit.engine import dense
from teachkit.engine import surgeon as engine
from teachkit.experiments import classics, xor
from teachkit.experiments import removals as bench
from teachkit.lab import levenberg

SEEDS = st.integers(0, 10**6)


def quadratic(n, seed, condition=1e3):
    """A positive definite matrix of this condition number, and weights."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, -math.log10(condition), n, dtype=torch.float64)
    H = (Q * scales) @ Q.T
    return (H + H.T) / 2, torch.randn(n, generator=generator, dtype=torch.float64)


def close(a, b, rtol=1e-8):
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().sum()))


@given(st.integers(1, 9), SEEDS)
def test_saliency_and_update_are_the_best_single_removal(n, seed):
    H, w = quadratic(n, seed)
    P = obs.inverse(H)
    close(P @ H, torch.eye(n, dtype=torch.float64), 1e-9)
    for q in range(n):
        after, cost = oracles.constrained_minimum(H, w, [q])
        assert float(obs.saliencies(w, P)[q]) == pytest.approx(cost, rel=1e-7)
        close(w + obs.update(w, P, q), after, 1e-7)
        assert float((w + obs.update(w, P, q))[q]) == 0.0


@given(st.integers(2, 9), SEEDS)
def test_downdate_is_the_inverse_of_the_survivors(n, seed):
    H, _ = quadratic(n, seed)
    P = obs.downdate(obs.downdate(obs.inverse(H), 0), n - 1)
    inner = list(range(1, n - 1))
    assert P[[0, n - 1]].eq(0).all()
    assert P[:, [0, n - 1]].eq(0).all()
    if inner:
        close(P[inner][:, inner], torch.linalg.inv(H[inner][:, inner]), 1e-8)


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(0, 8), st.sampled_from([1, 2, 64]), SEEDS)
def test_surgeon_is_its_slow_twin(n, k, block, seed):
    assume(k <= n)
    H, w = quadratic(n, seed)
    found = obs.surgeon(H, w, k, block=block)
    weights, order, increases = oracles.surgeon(H, w, k)
    assert found.order.tolist() == order
    assert found.weights[order].eq(0).all()
    close(found.weights, weights, 1e-7)
    close(found.increases, torch.tensor(increases), 1e-6)


@settings(max_examples=15)
@given(st.integers(20, 60), st.floats(0.1, 1), st.sampled_from([1, 5, 64]), SEEDS)
def test_what_stays_is_the_constrained_minimum(n, share, block, seed):
    H, w = quadratic(n, seed, 1e6)
    k = round(share * n)
    found = obs.surgeon(H, w, k, block=block)
    gone = found.order.tolist()
    assert len(set(gone)) == k
    assert found.weights[gone].eq(0).all()
    weights, cost = oracles.constrained_minimum(H, w, gone)
    close(found.weights, weights, 1e-6)
    assert float(found.increases.sum()) == pytest.approx(cost, rel=1e-6)
    plain = obs.surgeon_naive(H, w, k)  # the formulas as they are read
    assert plain.order.tolist() == gone
    close(plain.weights, weights, 1e-5)
    close(plain.increases, found.increases, 1e-5)


@given(st.integers(1, 9), st.integers(0, 9), SEEDS)
def test_several_at_once_are_the_constrained_minimum(n, k, seed):
    assume(k <= n)
    H, w = quadratic(n, seed)
    S = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]
    after, cost = obs.remove(w, obs.inverse(H), S)
    weights, want = oracles.constrained_minimum(H, w, S.tolist())
    close(after, weights, 1e-7)
    assert after[S].eq(0).all()
    assert cost == pytest.approx(want, rel=1e-7, abs=1e-14)


@settings(max_examples=15)
@given(st.integers(2, 7), SEEDS)
def test_no_set_is_cheaper_than_the_best_one(n, seed):
    H, w = quadratic(n, seed)
    for k in range(1, n + 1):
        sets, costs = obs.exhaustive(H, w, k)
        assert len(sets) == math.comb(n, k)
        wanted = [oracles.constrained_minimum(H, w, S)[1] for S in sets.tolist()]
        close(costs, torch.tensor(wanted, dtype=torch.float64), 1e-7)
        assert float(obs.surgeon(H, w, k).increases.sum()) >= float(costs.min()) * (1 - 1e-9)
    assert float(obs.exhaustive(H, w, 1)[1].min()) == pytest.approx(
        float(obs.surgeon(H, w, 1).increases[0])
    )


def test_damping_is_relative_to_the_diagonal():
    H, w = quadratic(6, 1)
    damped = H + 0.1 * H.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    close(obs.inverse(H, damping=0.1), torch.linalg.inv(damped))
    a, b = obs.surgeon(1000 * H, w, 3, damping=0.1), obs.surgeon(damped, w, 3)
    assert a.order.tolist() == b.order.tolist()
    close(a.weights, b.weights)
    close(obs.inverse(torch.zeros(2, 2), damping=0.5), 2 * torch.eye(2, dtype=torch.float64))


@given(st.integers(1, 6), st.floats(0, 2), SEEDS)
def test_the_damping_that_the_error_names_helps(n, damping, seed):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(n, n, generator=generator, dtype=torch.float64)
    H = H + H.T
    try:
        obs.inverse(H, damping=damping)
    except ValueError as error:
        enough = float(re.search(r"damping of ([\d.e+-]+) or more", str(error)).group(1))
        assert enough > damping
        obs.inverse(H, damping=enough)


def test_zero_weights_go_first_and_cost_nothing():
    H, w = quadratic(8, 2)
    w[[2, 5, 6]] = 0.0
    few, many = obs.surgeon(H, w, 2), obs.surgeon(H, w, 4)
    assert few.order.tolist() == [2, 5]
    assert torch.equal(few.weights, w)
    assert few.increases.tolist() == [0.0, 0.0]
    assert many.order.tolist()[:3] == [2, 5, 6]
    assert many.weights[[2, 5, 6]].eq(0).all()


def test_single_precision_is_computed_in_double():
    H, w = quadratic(120, 3, 1e5)
    double, single = obs.surgeon(H, w, 60), obs.surgeon(H.float(), w.float(), 60)
    assert single.weights.dtype == torch.float32
    assert len(set(double.order.tolist()) & set(single.order.tolist())) >= 58
    exact = oracles.constrained_minimum(
        H.float().double(), w.float().double(), single.order.tolist()
    )
    assert float((single.weights - exact[0]).norm() / exact[0].norm()) < 1e-5


def test_a_drifting_inverse_is_computed_anew(monkeypatch):
    H, w = quadratic(100, 4, 1e4)
    clean, calls = obs.surgeon(H, w, 90), []
    honest = engine.Elimination.remove

    def sloppy(self, count):
        gone = honest(self, count)
        self.P = self.P * (1 + 1e-3)
        return gone

    monkeypatch.setattr(engine.Elimination, "remove", sloppy)
    real = engine.inverse
    monkeypatch.setattr(engine, "inverse", lambda A, **k: calls.append(len(A)) or real(A, **k))
    found = obs.surgeon(H, w, 90, block=30)
    assert calls == [100, 70, 40, 10]
    assert found.order.tolist() == clean.order.tolist()
    close(found.weights, clean.weights, 1e-9)


def test_a_healthy_inverse_is_carried_along(monkeypatch):
    H, w = quadratic(100, 4, 1e4)
    calls, real = [], engine.inverse
    monkeypatch.setattr(engine, "inverse", lambda A, **k: calls.append(len(A)) or real(A, **k))
    obs.surgeon(H, w, 90, block=10)
    assert calls == [100]


def test_the_last_step_takes_rounding_errors_away(monkeypatch):
    H, w = quadratic(60, 5, 1e4)
    honest = engine.Elimination.remove

    def sloppy(self, count):
        gone = honest(self, count)
        self.W = self.W * (1 + 1e-5)
        return gone

    monkeypatch.setattr(engine.Elimination, "remove", sloppy)
    found = obs.surgeon(H, w, 30)
    close(found.weights, oracles.constrained_minimum(H, w, found.order.tolist())[0], 1e-8)


def test_a_pivot_lost_to_rounding_is_no_end():
    H, w = quadratic(40, 5, 1e13)
    found = obs.surgeon(H, w, 30, block=10)
    assert len(set(found.order.tolist())) == 30
    assert torch.isfinite(found.weights).all()


TWO = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: obs.inverse(torch.ones(2, 2)), "smallest eigenvalue is .* A damping of 1.1e-06"),
        (
            lambda: obs.surgeon(torch.diag(torch.tensor([1.0, -0.5])), ONES, 1),
            "A damping of 0.73 or",
        ),
        (lambda: obs.surgeon(torch.zeros(2, 2), ONES, 1), "not positive definite"),
        (
            lambda: obs.inverse(TWO, damping=-1),
            "damping must be a finite number of 0 or more, got -1",
        ),
        (lambda: obs.inverse(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), "symmetric, but .* by 2"),
        (lambda: obs.inverse(torch.ones(2, 3)), r"square matrix, got shape \(2, 3\)"),
        (lambda: obs.inverse(TWO * math.nan), "H has 4 NaN"),
        (lambda: obs.surgeon(TWO, ONES * math.inf, 1), "weights has 2 NaN or infinite"),
        (lambda: obs.surgeon(TWO, torch.ones(3), 1), r"weights must have shape \(2,\)"),
        (lambda: obs.surgeon(TWO, ONES, 3), "k must be a whole number from 0 to 2, got 3"),
        (lambda: obs.surgeon(TWO, ONES, 1, block=0), "block must be a whole number from 1"),
        (lambda: obs.update(ONES, TWO, 2), "q must be a whole number from 0 to 1, got 2"),
        (lambda: obs.downdate(obs.downdate(TWO, 1), 1), "weight 1 is gone already"),
        (lambda: obs.saliencies(ONES, -TWO), "negative diagonal entry, -2"),
        (lambda: obs.remove(ONES, TWO, [2]), r"positions must lie from 0 to 1, got \[2\]"),
        (lambda: obs.remove(ONES, TWO, [1, 1]), r"positions must differ, got \[1, 1\]"),
        (
            lambda: obs.remove(ONES, torch.tensor([[1.0, 2.0], [2.0, 1.0]]), [0, 1]),
            r"inverse must be positive definite at the positions \[0, 1\]; .* is -1",
        ),
        (
            lambda: obs.remove(ONES, torch.tensor([[1.0, 2.0], [2.0, 1.0]]), [0]),
            r"inverse must be positive definite as the inverse of .*; .* is -1",
        ),
        (lambda: obs.remove(ONES, torch.diag(torch.tensor([1.0, -1.0])), [0]), "is -1"),
        (lambda: obs.remove(ONES, obs.downdate(TWO, 0), [0, 1]), r"at the positions \[0, 1\]"),
        (lambda: obs.exhaustive(torch.eye(21), torch.ones(21), 1), "from 1 to 20, got 21"),
    ],
)
def test_bad_matrices_and_weights_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_masks_are_no_positions():
    with pytest.raises(TypeError, match=r"whole numbers, got torch.bool"):
        obs.remove(ONES, TWO, torch.tensor([True, False]))


def test_gone_weights_have_infinite_saliency():
    assert obs.saliencies(ONES, obs.downdate(TWO, 0)).tolist() == [math.inf, 1.0]


def logistic(output, target):
    return binary_cross_entropy(output.sigmoid(), target)


LOSSES = {
    "cross-entropy": (cross_entropy, 3, lambda y: y),
    "squared error": (mse_loss, 3, lambda y: nn.functional.one_hot(y, 3).double()),
    "binary cross-entropy": (logistic, 1, lambda y: (y[:, None] > 0).double()),
}


def small(outputs=3, activation=nn.Tanh, samples=7):
    net = lab.models.mlp((4,), outputs, hidden=(3,), activation=activation).double()
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return net, (x, torch.arange(samples) % 3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("biases", [False, True])
def test_curvatures_are_their_oracles(name, biases, monkeypatch):
    loss, outputs, targets = LOSSES[name]
    net, (x, y) = small(outputs)
    batch = (x, targets(y))
    params = list(masks.prunable(net, biases=biases).values())
    every = list(net.parameters())
    where = torch.cat([torch.full((p.numel(),), any(p is q for q in params)) for p in every])
    H = oracles.hessian(net, batch, loss)[where][:, where]
    close(obs.curvature(net, batch, loss, biases=biases), H, 1e-10)
    monkeypatch.setattr(dense, "CHUNK", 60)  # several chunks
    found = obs.curvature(net, batch, loss, kind="gauss-newton", biases=biases)
    close(found, oracles.gauss_newton(net, batch, loss, params), 1e-10)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12
    fisher = obs.curvature(net, batch, loss, kind="fisher", biases=biases)
    close(fisher, oracles.fisher(net, batch, loss, params), 1e-10)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    net, batch = lab.models.mlp((4,), 3, hidden=()).double(), small()[1]
    close(obs.curvature(net, batch, kind="gauss-newton"), obs.curvature(net, batch), 1e-10)


def test_curvature_needs_a_mean_loss_and_a_small_net():
    net, batch = small()
    with pytest.raises(
        ValueError, match="the loss must be the mean over the samples: on 7 samples"
    ):
        obs.curvature(net, batch, lambda o, y: cross_entropy(o, y, reduction="sum"), kind="fisher")
    with pytest.raises(ValueError, match="the loss must give one number"):
        obs.curvature(net, batch, lambda o, y: cross_entropy(o, y, reduction="none"), kind="fisher")
    with pytest.raises(ValueError, match=r"266200 weights is a matrix of 566.9 GB; at most 5000"):
        obs.curvature(lab.models.lenet_300_100(), (torch.ones(1, 1, 28, 28), torch.tensor([0])))
    with pytest.raises(ValueError, match="kind must be one of .* got 'hessian'"):
        obs.curvature(net, batch, kind="hessian")
    with pytest.raises(ValueError, match="1 NaN"):
        obs.curvature(
            net,
            (
                batch[0]
                .clone()
                .index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(math.nan).double()),
                batch[1],
            ),
        )


@pytest.mark.parametrize("kind", ["exact", "gauss-newton", "fisher"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.55, 1.0])
def test_prune_removes_exactly_and_leaves_the_model_alone(kind, sparsity):
    net, batch = small()
    before = {n: p.clone() for n, p in net.named_parameters()}
    damping = 30.0 if kind == "exact" else 1e-3
    pruned, kept = obs.prune(net, batch, sparsity, kind=kind, damping=damping, steps=2)
    assert sum(int((~m).sum()) for m in kept.values()) == masks.removed(21, sparsity)
    for name, m in kept.items():
        assert pruned.get_parameter(name)[~m].eq(0).all()
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    assert net.training
    assert torch.equal(pruned.get_parameter("1.bias"), before["1.bias"])
    again = obs.prune(net, batch, sparsity, kind=kind, damping=damping, steps=2)[0]
    assert all(
        torch.equal(p, q) for p, q in zip(pruned.parameters(), again.parameters(), strict=True)
    )


def test_prune_is_the_surgeon_on_its_curvature():
    net, batch = small()
    H = obs.curvature(net, batch, kind="gauss-newton", biases=True)
    w = torch.cat([p.detach().reshape(-1) for p in masks.prunable(net, biases=True).values()])
    want = obs.surgeon(H, w, masks.removed(len(w), 0.4), damping=0.01).weights
    pruned, kept = obs.prune(net, batch, 0.4, biases=True, damping=0.01)
    close(
        torch.cat([p.detach().reshape(-1) for p in masks.prunable(pruned, biases=True).values()]),
        want,
    )
    assert set(kept) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_prune_takes_a_curvature_that_is_known():
    net, batch = small()
    H = obs.curvature(net, batch, kind="gauss-newton")
    a, b = obs.prune(net, batch, 0.5, H=H)[0], obs.prune(net, batch, 0.5)[0]
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 1, got 2"):
        obs.prune(net, batch, 0.5, H=H, steps=2)
    with pytest.raises(ValueError, match=r"H must have shape \(21, 21\), got \(5, 5\)"):
        obs.prune(net, batch, 0.5, H=H[:5, :5])
    untouched = obs.prune(net, batch, 0.0, kind="exact", damping=0.0)[0]  # needs no inverse
    assert torch.equal(untouched.get_parameter("1.weight"), net.get_parameter("1.weight"))


def test_prune_keeps_old_zeros_and_counts_them():
    net, batch = small()
    first = obs.prune(net, batch, 0.5)[0]
    for sparsity in (0.2, 0.5, 0.8):
        second, kept = obs.prune(first, batch, sparsity)
        assert sum(int((~m).sum()) for m in kept.values()) == masks.removed(21, sparsity)
        for (_, a), (_, b) in zip(
            masks.prunable(first).items(), masks.prunable(second).items(), strict=True
        ):
            assert b[a == 0].eq(0).all()
    assert torch.equal(second.get_parameter("3.bias"), net.get_parameter("3.bias"))


def test_prune_without_weights_and_with_single_precision():
    empty = nn.Sequential(nn.Flatten())
    assert obs.prune(empty, (torch.ones(2, 3), torch.tensor([0, 1])), 0.5)[1] == {}
    net, (x, y) = small()
    pruned, _ = obs.prune(net.float(), (x.float(), y), 0.5, progress=True)
    assert pruned.get_parameter("1.weight").dtype == torch.float32


def module(theta, inputs):
    """One network (n,) of the classics as a torch module with the same outputs, (N, 1)."""
    hidden = (len(theta) - 1) // (inputs + 2)
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1), nn.Sigmoid())
    net.to(theta.dtype)
    nn.utils.vector_to_parameters(theta, net.parameters())  # in the order W, b, v, c
    return net.eval()


def test_levenberg_reaches_a_minimum_and_keeps_zeros():
    batch = lab.data.xor().train
    x, y = batch[0].double(), batch[1].double()
    n = classics.count(2, 2)
    start = classics.starts(range(5), n).double()
    keep = torch.ones(5, n, dtype=torch.bool)
    keep[:, 3] = False
    fit = levenberg.fit(lambda t: classics.respond(t, x), start, y, decay=1e-2, keep=keep)
    assert fit.theta[:, 3].eq(0).all()
    assert float(fit.gradient.max()) < 1e-8
    for theta, objective in zip(fit.theta, fit.objective, strict=True):
        net = module(theta, 2)
        value = mse_loss(net(x)[:, 0], y) / 2 + 5e-3 * theta.square().sum()
        assert float(objective) == pytest.approx(float(value.detach()))
        parts = torch.autograd.grad(value, list(net.parameters()))
        g = torch.cat([p.reshape(-1) for p in parts]) + 1e-2 * theta
        assert float(g[keep[0]].abs().max()) < 1e-7


def test_levenberg_refuses_bad_input():
    for call, says in (
        ({"theta": torch.ones(3)}, r"theta must have shape \(networks, n\), got \(3,\)"),
        ({"decay": -1.0}, "decay must be a finite number of 0 or more, got -1"),
        ({"keep": torch.ones(1, 2)}, "keep must be boolean of shape"),
        ({"steps": -1}, "steps must be a whole number"),
    ):
        given = {"theta": torch.ones(1, 2), "target": torch.ones(4)} | call
        with pytest.raises(ValueError, match=says):
            levenberg.fit(lambda t: (t, t), **given)


@given(st.integers(1, 3), st.integers(1, 4), SEEDS)
def test_responses_are_those_of_the_module(hidden, inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(2, classics.count(inputs, hidden), generator=generator, dtype=torch.float64)
    x = torch.randn(5, inputs, generator=generator, dtype=torch.float64)
    output, J = classics.respond(theta, x)
    for b, i in itertools.product(range(2), range(5)):
        net = module(theta[b], inputs)
        value = net(x[i : i + 1])[0, 0]
        assert float(output[b, i]) == pytest.approx(float(value.detach()))
        parts = torch.autograd.grad(value, list(net.parameters()))
        close(J[b, i], torch.cat([p.reshape(-1) for p in parts]))


def test_a_trail_removes_one_weight_at_a_time_by_the_published_rules():
    x, y = (part.double() for part in lab.data.xor().train)
    theta = xor.nets(6).double()[:2]
    keep = torch.ones_like(theta, dtype=torch.bool)
    H = classics.gauss_newton(theta, x, keep)
    net = module(theta[0], 2)
    params = list(net.parameters())
    GN = oracles.gauss_newton(net, (x, y[:, None]), lambda o, t: mse_loss(o, t) / 2, params)
    close(H[0], GN + classics.RIDGE * torch.eye(9, dtype=torch.float64))
    for method in classics.METHODS:
        q, step = classics.choice(theta, H, keep, method)
        for b in range(2):
            P = torch.linalg.inv(H[b])
            scores = {
                "OBS": obs.saliencies(theta[b], (P + P.T) / 2),
                "OBD": 0.5 * H[b].diagonal() * theta[b] ** 2,
                "magnitude": theta[b].abs(),
            }[method]
            assert int(q[b]) == int(scores.argmin())
            zeroing = torch.zeros(9, dtype=torch.float64)
            zeroing[q[b]] = -theta[b, q[b]]
            want = obs.update(theta[b], (P + P.T) / 2, int(q[b])) if method == "OBS" else zeroing
            close(step[b], want, 1e-7)
        passed = classics.trail(theta, (x, y), method)
        assert (passed.theta != 0).sum(2).tolist() == [[9 - i] * 2 for i in range(10)]
        assert passed.accuracy[0].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="method must be one of"):
        classics.choice(theta, H, keep, "obs")


def test_remaining_counts_down_to_the_first_loss():
    accuracy = torch.tensor([[1.0, 1.0, 0.9], [1.0, 0.9, 0.9], [0.8, 1.0, 0.9], [0.5, 0.5, 0.9]])
    path = classics.Trail(torch.arange(12.0).reshape(4, 3, 1), accuracy)
    assert classics.remaining(path).tolist() == [2, 3, 0]
    assert classics.at_remaining(path)[:, 0].tolist() == [3.0, 1.0, 11.0]


@pytest.mark.parametrize(("k", "most"), [(1, 15), (2, 15), (3, 5)])
def test_monks_networks_shrink_as_published(k, most):
    theta, started = classics.monks_nets(k, 3)
    assert 3 <= started <= 24
    trails = classics.monks_trails(k, theta)
    left = {m: classics.remaining(t).double().mean() for m, t in trails.items()}
    assert float(left["OBS"]) <= most
    assert left["OBS"] < left["OBD"] < left["magnitude"] + 10
    small = classics.at_remaining(trails["OBS"])
    test = lab.data.monks(k).test
    assert (classics.accuracy(small, test) >= classics.accuracy(theta, test) - 0.03).all()


def test_monks_nets_says_when_nothing_is_learned():
    with pytest.raises(ValueError, match="only 0 of 16 networks learned problem 2"):
        classics.monks_nets(2, 2, decay=10.0)


def test_xor_counts_every_removal():
    theta = xor.nets(8)
    found = xor.removals(theta)
    assert found.deletable["OBS"].all()
    assert found.solved["OBS"].all()
    assert not found.any_solved["magnitude"].any()  # no weight can simply be zeroed
    for method in classics.METHODS:
        assert (found.deletable[method] <= found.any_deletable).all()
        assert (found.solved[method] <= found.any_solved[method]).all()


def test_wiring_names_the_weights_that_stay():
    theta = torch.zeros(39)
    theta[[4, 36, 38]] = torch.tensor([0.5, -2.0, 1.0])
    said = classics.wiring(theta, classics.monks_inputs())
    assert said == ["a2=2 to h1: 0.50", "h1 to output: -2.00", "bias of output: 1.00"]


def test_what_the_benchmark_compares_is_the_same_removal():
    H, w = bench.quadratic(30, 1e4)
    after, order = bench.downdate_in_place(H, w, 15)
    found = obs.surgeon(H, w, 15)
    assert order == found.order.tolist() == bench.recomputed_order(H, w, 15)
    close(after, found.weights, 1e-8)
    assert float(torch.linalg.cond(H)) == pytest.approx(1e4, rel=1e-6)
    (row,) = bench.speed_rows((30,), 1)
    assert row["removed"] == 15
    assert min(row["seconds"], row["downdate / ours"], row["recompute / ours"]) > 0
    net, batch = small()
    assert [row["bytes"] for row in bench.cost_rows(net, batch)] == [0, 8 * 21, 8 * 21**2]


def test_drift_is_small_in_double_precision_and_said_in_single():
    rows = {(row["condition"], row["way"]): row for row in bench.drift_rows(40, (1e4, 1e12))}
    assert rows[1e4, "surgeon, float64"]["objective"] < 1e-10
    assert rows[1e12, "surgeon, float64"]["objective"] < 1e-5
    assert rows[1e12, "surgeon, float64"]["same"] > 0.9
    assert rows[1e4, "downdate, float32"]["objective"] < 1e-3
    assert math.isinf(rows[1e12, "downdate, float32"]["objective"])
