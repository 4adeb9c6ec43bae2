"""Training that prunes: formulas against sampling, enumeration and integrals; networks that come back."""

import itertools
import math
import random
import re

import numpy as np
import pytest
import torch
from drawers import normal, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import digamma
from torch import nn
from torch.nn.functional import cross_entropy, linear

from teachkit import lab, masks, structured
from teachkit import sparse_training as sparse
from teachkit.core.layers import UncoveredError
from teachkit.engine import gates, sampled
from teachkit.experiments import sparse_limits as limits
from teachkit.lab.jointly import jointly
from teachkit.show.lessons import sparse_training as scenes
from teachkit.show.lessons import sparse_training_figures as figures

numbers = st.floats(-4, 4)
positive = st.floats(0, 3)
DRAWS = 200_000


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(n, seed=0):
    return torch.rand(n, generator=dice(seed), dtype=torch.float64)


def few(n=200):
    data = lab.data.digits()
    return lab.data.Data(tuple(p[:n] for p in data.train), tuple(p[:100] for p in data.test))


def small(seed=0):
    return lab.models.mlp(hidden=(12, 8), seed=seed)


QUICK = {"epochs": 3, "batch_size": 16, "progress": False, "on_empty": "allow"}


# L1 --------------------------------------------------------------------------------------------------


@given(numbers, positive)
def test_the_proximal_step_is_the_closed_solution(w, t):
    def cost(v):
        return 0.5 * (v - w) ** 2 + t * abs(v)

    found = minimize_scalar(cost, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    step = float(sparse.soft_threshold(torch.tensor(w, dtype=torch.float64), t))
    assert cost(step) <= found.fun + 1e-12
    assert cost(step) <= min(cost(step + 1e-4), cost(step - 1e-4))


@given(seeds, st.integers(1, 5), positive)
def test_the_group_step_is_stationary_and_is_the_soft_threshold_for_groups_of_one(seed, m, t):
    W = normal(6, m, seed=seed).double()
    factor = sparse.group_factor(W, t)
    V = W * factor[:, None]
    size, norm = V.norm(dim=1), W.norm(dim=1)
    slope = V - W + t * m**0.5 * V / size.clamp(min=1e-300)[:, None]
    alive = factor > 0
    assert float(slope[alive].abs().sum()) == pytest.approx(0, abs=1e-9)
    assert bool((norm[~alive] <= t * m**0.5 + 1e-12).all())  # the subgradient at zero reaches W
    if m == 1:
        torch.testing.assert_close(V, sparse.soft_threshold(W, t))


def test_the_group_norm_weighs_a_group_by_the_root_of_its_size():
    assert sparse.group_norm(torch.tensor([[3.0, 4.0]])).item() == pytest.approx(5 * 2**0.5)
    assert sparse.group_norm(torch.tensor([[-3.0]])).item() == 3


# L0 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_alpha", "beta"), [*itertools.product((-3.0, -0.4, 0.0, 2.2), (0.3, 2 / 3, 2))]
)
def test_the_atoms_and_the_expectation_are_what_is_sampled(log_alpha, beta):
    at = torch.tensor(log_alpha, dtype=torch.float64)
    z = sparse.gate(at, uniform(DRAWS), beta)
    shut, full = sparse.atoms(at, beta)
    for share, chance in (((z == 0), shut), ((z == 1), full), ((z != 0), None)):
        p = float(sparse.open_chance(at, beta) if chance is None else chance)
        error = (p * (1 - p) / DRAWS) ** 0.5
        assert float(share.double().mean()) == pytest.approx(p, abs=5 * error + 1e-9)


@given(st.floats(-5, 5), st.floats(0.2, 2))
def test_atoms_and_density_are_one_together(log_alpha, beta):
    shut, full = sparse.atoms(torch.tensor(log_alpha, dtype=torch.float64), beta)
    between, _ = quad(
        lambda z: float(sparse.density(torch.tensor(z, dtype=torch.float64), log_alpha, beta)), 0, 1
    )
    assert float(shut + full) + between == pytest.approx(1, abs=1e-6)
    assert float(shut) == pytest.approx(
        1 - float(sparse.open_chance(torch.tensor(log_alpha), beta)), abs=1e-6
    )


def test_the_density_is_that_of_the_samples_between():
    z = sparse.gate(torch.tensor(0.5, dtype=torch.float64), uniform(DRAWS, 4))
    for a, b in ((0.02, 0.2), (0.2, 0.6), (0.6, 0.98)):
        mass, _ = quad(lambda at: float(sparse.density(torch.tensor(at), 0.5)), a, b)
        assert float(((z > a) & (z < b)).double().mean()) == pytest.approx(mass, abs=0.006)


@given(st.floats(12, 40), st.floats(1e-3, 1 - 1e-3))
def test_gates_of_chance_one_and_zero_are_open_and_shut(far, u):
    u = torch.tensor([u], dtype=torch.float64)
    for log_alpha, state in ((far, 1.0), (-far, 0.0)):
        at = torch.tensor([log_alpha], dtype=torch.float64, requires_grad=True)
        assert sparse.gate(at, u).item() == state == sparse.settled_gate(at).item()
        assert sparse.open_chance(at).item() == pytest.approx(state, abs=1e-4)
        assert torch.isfinite(torch.autograd.grad(sparse.gate(at, u).sum(), at)[0]).all()
    edges = sparse.gate(torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert edges.tolist() == [0, 1]


def test_the_gate_moves_with_its_parameter_where_it_is_neither_open_nor_shut():
    at = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    u = torch.tensor([0.001, 0.5, 0.999], dtype=torch.float64)
    slope = torch.autograd.grad(sparse.gate(at, u).sum(), at)[0]
    assert slope.tolist() == pytest.approx([0, 1.2 * 0.25 * 1.5, 0])  # (ζ − γ) σ′(0) / β


def test_the_expected_number_of_weights_is_that_of_sampled_networks():
    net, x = small(), few().train[0][:2]
    for per in ("weight", "unit"):
        wires = gates.wiring(net, x, per)
        start = {key: normal(len(a), seed=3) for key, a in gates.row(wires, net, 0.0).items()}
        drawn = sampled.Sampled(net, start, lambda θ, φ: {}, lambda θ, φ: {})
        want = float(gates.total_gates(wires, sparse.open_chance, drawn))
        counts = []
        for seed in range(200):
            z = {k: sparse.gate(a.double(), uniform(len(a), 1000 + seed)) for k, a in start.items()}
            made = gates.multiplied(dict(net.named_parameters()), wires, z)
            counts.append(sum(int((w != 0).sum()) for w in made.values()))
        assert np.mean(counts) == pytest.approx(want, abs=5 * np.std(counts) / 200**0.5)


# Variational dropout ---------------------------------------------------------------------------------


def divergence(log_alpha):
    """E log|ε| − ½ log α by the trapezoid rule of scipy, so that it is 0 for α = ∞."""
    s = math.exp(log_alpha / 2)

    def f(t):
        return math.log(abs(1 + s * t)) * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    parts = [(a, b) for a, b in ((-40, -1 / s), (-1 / s, 40)) if a < b]
    whole = sum(quad(f, max(a, -40), b, limit=500)[0] for a, b in parts)
    return whole - log_alpha / 2 - (math.log(2) + digamma(0.5)) / 2


@given(st.floats(-5, 8))
@settings(max_examples=20)
def test_the_divergence_is_the_integral(log_alpha):
    assert sparse.kl_exact(log_alpha) == pytest.approx(divergence(log_alpha), abs=1e-7)


def test_the_approximation_errs_by_less_than_a_hundredth():
    at = np.linspace(-8, 8, 161)
    close = sparse.kl(torch.tensor(at)).numpy()
    error = np.abs(close - [sparse.kl_exact(float(each)) for each in at])
    assert 0.0090 < error.max() < 0.0095  # 0.0094 at log α = −3.5
    assert bool((np.diff(close) < 0).all())


@given(seeds)
def test_log_ratio_is_the_ratio_of_variance_and_square(seed):
    w, v = normal(5, seed=seed).double(), normal(5, seed=seed + 1).double()
    ratio = sparse.log_ratio(w, v)
    inside = ratio.abs() < 8
    want = (v.exp() / w**2).log()
    torch.testing.assert_close(ratio[inside], want[inside], atol=1e-3, rtol=1e-3)
    assert float(ratio.abs().max()) <= 8


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 2), nn.Conv2d(2, 3, 2, padding=1), nn.Conv1d(2, 2, 2)]
)
def test_local_noise_has_the_moments_of_noisy_weights(layer):
    """Mean and variance at each output over many draws, the noise on the weights or at the outputs."""
    layer = layer.double()
    shape = {nn.Linear: (3,), nn.Conv2d: (2, 3, 3), nn.Conv1d: (2, 4)}[type(layer)]
    x = normal(1, *shape, seed=2).double().expand(3000, *shape)
    net = nn.Sequential(layer)
    local = sparse.noise(net, 0.7, shared=False).train()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        apart = local(x)
        shared = sparse.noise(net, 0.7).train()
        each = torch.cat([shared(x[:1]) for _ in range(3000)])
    scale = float(each.std(0).max())
    torch.testing.assert_close(apart.mean(0), net(x[:1])[0].detach(), atol=0.1 * scale, rtol=0)
    torch.testing.assert_close(apart.std(0), each.std(0), atol=0.1 * scale, rtol=0)
    assert float(shared(x).std(0).max()) == pytest.approx(0, abs=1e-12)  # one draw for the batch


def test_local_noise_is_the_formula_of_kingma():
    layer, x, V = (
        nn.Linear(3, 2).double(),
        normal(4, 3, seed=1).double(),
        normal(2, 3, seed=2).double() ** 2,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        with sampled.blurred(nn.Sequential(layer), {"0.weight": V}):
            pass
        net = nn.Sequential(layer)
        with sampled.blurred(net, {"0.weight": V}):
            found = net(x)
        torch.manual_seed(5)
        want = (
            linear(x, layer.weight, layer.bias)
            + (x**2 @ V.T + 1e-8).sqrt() * torch.randn(4, 2).double()
        )
    assert found.shape == want.shape
    assert not layer._forward_hooks


# Gradients of what chance does -----------------------------------------------------------------------


def three_weights():
    """The loss of a net with three weights, as a function of its gates or of its weights, row by row."""
    w, x = torch.tensor([0.8, -1.1, 0.6]).double(), normal(8, 2, seed=3).double()
    y = torch.sin(3 * x[:, 0]) - x[:, 1]

    def loss(v):  # v (n, 3): hidden = tanh(v₁ x₁ + v₂ x₂), out = v₃ hidden
        hidden = torch.tanh(v[:, :2] @ x.T)
        return ((v[:, 2:] * hidden - y) ** 2).mean(1)

    return loss, lambda m: loss(m * w), w


PHI = torch.tensor([0.4, -0.3, 1.0]).double()


def coins(n, seed=0):
    p = torch.sigmoid(PHI)
    return (torch.rand(n, 3, generator=dice(seed), dtype=torch.float64) < p).double()


def unbiased(rows, want):
    error = rows.std(0) / len(rows) ** 0.5
    assert bool(((rows.mean(0) - want).abs() < 5 * error).all())
    assert bool((error < 0.1 * want.abs().max()).all())  # the interval is narrow enough to fail


def test_the_sum_over_outcomes_is_the_expectation_and_its_slope():
    _, f, _ = three_weights()
    value, gradient = sparse.exact_coins(f, PHI)
    assert float(value) == pytest.approx(float(f(coins(DRAWS)).mean()), abs=0.01)
    for i in range(3):
        step = torch.zeros(3).double()
        step[i] = 1e-5
        up, down = (sparse.exact_coins(f, PHI + s * step)[0] for s in (1, -1))
        assert float(gradient[i]) == pytest.approx(float(up - down) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_score_function_is_unbiased_and_a_baseline_leaves_it_so(baseline):
    _, f, _ = three_weights()
    unbiased(sparse.score_function(f, PHI, coins(DRAWS), baseline), sparse.exact_coins(f, PHI)[1])


def test_a_baseline_makes_the_variance_small_and_straight_through_has_a_bias():
    _, f, _ = three_weights()
    m, (value, want) = coins(DRAWS), sparse.exact_coins(f, PHI)
    plain = sparse.score_function(f, PHI, m).var(0).sum()
    less = sparse.score_function(f, PHI, m, float(value)).var(0).sum()
    assert float(less) < 0.5 * float(plain)
    through = sparse.straight_through(f, PHI, m)
    error = through.std(0) / DRAWS**0.5
    assert float(((through.mean(0) - want).abs() / error).max()) > 50
    assert float(through.var(0).sum()) < float(less)


def test_straight_through_has_no_bias_where_f_is_linear():
    rows = sparse.straight_through(
        lambda m: m @ torch.tensor([1.0, -2.0, 3.0]).double(), PHI, coins(4)
    )
    want = sparse.exact_coins(lambda m: m @ torch.tensor([1.0, -2.0, 3.0]).double(), PHI)[1]
    torch.testing.assert_close(rows, want.expand(4, 3))


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_both_gradients_of_noise_are_unbiased_and_the_reparametrised_one_varies_less(sigma):
    f, _, w = three_weights()
    eps = torch.randn(DRAWS, 3, generator=dice(), dtype=torch.float64)
    value, want = sparse.exact_noise(f, w, sigma)
    slope = sparse.noise_slope(f, w, sigma, eps)
    score = sparse.noise_score(f, w, sigma, eps, float(value))
    unbiased(slope, want)
    error = score.std(0) / DRAWS**0.5
    assert bool(((score.mean(0) - want).abs() < 5 * error).all())
    assert float(slope.var(0).sum()) < 0.2 * float(score.var(0).sum())


def test_the_gate_is_differentiated_without_bias():
    """The reparametrised gradient of a hard-concrete gate, against differences of the mean."""
    _, f, _ = three_weights()
    u = torch.rand(DRAWS, 3, generator=dice(2), dtype=torch.float64)
    at = PHI.expand(DRAWS, 3).clone().requires_grad_()
    rows = torch.autograd.grad(f(sparse.gate(at, u)).sum(), at)[0]
    for i in range(3):
        step = torch.zeros(3).double()
        step[i] = 0.05
        up, down = (f(sparse.gate(PHI + s * step, u)).mean() for s in (1, -1))
        assert float(rows[:, i].mean()) == pytest.approx(float(up - down) / 0.1, abs=2e-3)


def test_the_noise_of_a_gradient_falls_with_the_samples_that_draw_it():
    net, (x, y) = small(), few(64).train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        still = sparse.gradient_noise(sparse.noise(net, 0.0), (x, y), 20)
        shared = sparse.gradient_noise(sparse.noise(net, 0.5), (x, y), 200)
        apart = sparse.gradient_noise(sparse.noise(net, 0.5, shared=False), (x, y), 200)
    value = cross_entropy(net(x), y)
    g = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))])
    assert still == pytest.approx((float((g**2).sum()), 0), abs=1e-9)
    assert apart[1] < 0.25 * shared[1]
    assert apart[0] == pytest.approx(shared[0], rel=0.5)


# Networks that are trained with noise ----------------------------------------------------------------


def test_without_noise_the_network_is_as_it_was():
    net, (x, _) = small(), few().test
    for shared in (True, False):
        noisy = sparse.noise(net, 0.0, shared=shared)
        torch.testing.assert_close(noisy.train()(x), net(x), atol=1e-3 * (not shared), rtol=0)
        assert torch.equal(sparse.noise(net, 0.9, shared=shared).eval()(x), net(x))
    kept = sparse.perturbed(net, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), net.parameters(), strict=True))


def test_perturbed_weights_are_the_weights_times_a_normal_number():
    net = lab.models.mlp(hidden=(200,))
    drawn = sparse.perturbed(net, 0.5, dice(1))
    a, b = net[1].weight.detach(), drawn[1].weight.detach()
    ratio = (b / a)[a.abs() > 1e-3]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)
    assert float(ratio.std()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(drawn[1].bias, net[1].bias)
    eps = torch.randn(a.shape, generator=dice(1), dtype=a.dtype)
    torch.testing.assert_close(b, a * (1 + 0.5 * eps))
    other = sparse.perturbed(net, 0.5, dice(2))[1].weight
    assert not torch.equal(b, other)
    assert torch.equal(sparse.perturbed(net, 0.5)[1].weight, sparse.perturbed(net, 0.5)[1].weight)


def test_many_samples_have_a_small_error():
    net, batch = small(), few(50).train
    few_draws, many = (sparse.monte_carlo(net, batch, 0.5, n) for n in (20, 400))
    assert many[1] < 0.4 * few_draws[1]
    assert few_draws[0] == pytest.approx(many[0], abs=5 * few_draws[1])
    still = sparse.monte_carlo(net, batch, 0.0, 2)
    assert still == pytest.approx((float(cross_entropy(net(batch[0]), batch[1])), 0))


def test_training_with_noise_is_training():
    data = few()
    noisy, history = lab.training.fit(sparse.noise(small(), 0.3), data, epochs=4, progress=False)
    assert history.loss[-1] < history.loss[0]
    assert isinstance(noisy.model, nn.Sequential)


# The trainers ----------------------------------------------------------------------------------------


def ways(**more):
    given = {**QUICK, **more}
    return {
        "L1": lambda net, data: sparse.l1(net, data, 3.0, **given),
        "L1, subgradient": lambda net, data: sparse.l1(
            net, data, 1e-3, way="subgradient", least=0.05, **given
        ),
        "L0": lambda net, data: sparse.l0(net, data, 0.3, phi_rate=0.4, **given),
        "variational dropout": lambda net, data: sparse.variational_dropout(
            net, data, 3.0, **given | {"phi_rate": 0.2}
        ),
        "variational dropout, weights": lambda net, data: sparse.variational_dropout(
            net, data, 3.0, local=False, **given | {"phi_rate": 0.2}
        ),
        "movement": lambda net, data: sparse.movement(net, data, 0.7, **given),
    }  # fmt: skip


class Two(nn.Module):
    """A module of its own with a branch, an attribute and a convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.out, self.scale = nn.Conv2d(1, 3, 3), nn.Linear(108, 10), 2.0

    def forward(self, x):
        return self.out(torch.tanh(self.conv(x) * self.scale).flatten(1))


@pytest.mark.parametrize("name", list(ways()))
@pytest.mark.parametrize("make", [small, lambda: lab.models.lenet5((1, 8, 8)), Two])
def test_an_ordinary_network_with_exact_zeros_comes_back(name, make, tmp_path):
    data, net = few(100), make()
    before = {key: t.clone() for key, t in net.state_dict().items()}
    model, kept, history = ways()[name](net, data)
    assert type(model) is type(net)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(t, before[key]) for key, t in net.state_dict().items())
    assert list(kept) == list(masks.prunable(net))
    for key, mask in kept.items():
        assert torch.equal(mask, model.get_parameter(key) != 0)
    assert masks.sparsity(kept) > 0.01
    assert len(history.loss) == len(history.accuracy) == 3
    assert history.accuracy[-1] == lab.evaluation.accuracy(model, data.test)
    assert not model.training
    torch.save(model.state_dict(), tmp_path / "net.pt")
    again = make()
    again.load_state_dict(torch.load(tmp_path / "net.pt"))
    assert torch.equal(again.eval()(data.test[0]), model(data.test[0]))


@pytest.mark.parametrize("name", list(ways()))
def test_the_same_seed_gives_the_same_network_and_another_seed_another(name):
    data = few(64)
    nets = [ways(seed=seed)[name](small(), data)[0] for seed in (1, 1, 2)]
    first, second, third = (net.get_parameter("1.weight") for net in nets)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("name", list(ways()))
def test_in_float32_too(name):
    data = few(64)
    single = lab.data.Data(*((x.float(), y) for x, y in data))
    assert ways()[name](small().float(), single)[0].get_parameter("1.weight").dtype == torch.float32


def test_a_penalty_of_zero_removes_nothing_by_itself():
    data = few(64)
    for run in (
        sparse.l1(small(), data, 0, **QUICK),
        sparse.l1(small(), data, 0, way="subgradient", least=0, **QUICK),
    ):
        plain, _ = lab.training.fit(small(), data, epochs=2, batch_size=16, progress=False)
        plain, _ = lab.training.fit(plain, data, epochs=1, batch_size=16, seed=1, progress=False)
        assert masks.sparsity(run[1]) == 0
        torch.testing.assert_close(
            run[0].get_parameter("1.weight"), plain.get_parameter("1.weight")
        )
    assert masks.sparsity(sparse.l0(small(), data, 0, initial=0.99, **QUICK)[1]) == 0
    # what starts near zero is noise from the start
    assert masks.sparsity(sparse.variational_dropout(small(), data, 0, **QUICK)[1]) < 0.02


def test_the_subgradient_alone_leaves_no_zero_and_the_threshold_does():
    data = few()
    no_cut = sparse.l1(small(), data, 1e-2, way="subgradient", least=0, **QUICK)
    assert masks.sparsity(no_cut[1]) == 0
    assert masks.sparsity(sparse.l1(small(), data, 3.0, **QUICK)[1]) > 0.1


def test_a_larger_strength_leaves_fewer_weights():
    data = few()
    for train, strengths in ((sparse.l1, (1, 5, 20)), (sparse.l0, (0.1, 1, 10))):
        more = {"phi_rate": 0.3} if train is sparse.l0 else {}
        sparsities = [
            masks.sparsity(train(small(), data, s, **QUICK, **more)[1]) for s in strengths
        ]
        assert sparsities == sorted(sparsities)
        assert sparsities[0] < sparsities[-1]


MAKES = [small, lambda: lab.models.vgg_like((1, 8, 8)), lambda: lab.models.residual(4, 1)]


@pytest.mark.parametrize("make", MAKES)
def test_units_whose_gates_are_shut_go_whole_and_the_network_becomes_smaller(make):
    net, (x, _) = make().eval(), few(64).train
    wires = gates.wiring(net, x, "unit")
    phi = {
        key: torch.where(torch.arange(len(a)) % 3 == 1, -9.0, 9.0 * (a + 1))
        for key, a in gates.row(wires, net, 0.0).items()
    }
    gated = sampled.Sampled(
        net, phi, lambda θ, φ: {}, lambda θ, φ: gates.by_gates(wires, sparse.settled_gate, θ, φ)
    )
    model, kept = gates.settled(wires, x, gated)
    masked = masks.apply(model, kept).eval()
    alive = sparse.alive(masked, x)
    assert all(torch.equal(mask, phi[key] > 0) for key, mask in alive.items())
    less = structured.shrink(masked, alive, x)
    assert structured.count(less).parameters < structured.count(net).parameters
    torch.testing.assert_close(less(x), masked(x), atol=1e-9, rtol=1e-9)
    inside = structured.silence(net, alive, x)
    torch.testing.assert_close(masked(x), inside(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("train", "strength"), [(sparse.l1, 0.15), (sparse.l0, 0.05)], ids=["L1", "L0"]
)
def test_units_go_while_training_and_stay_away(train, strength):
    data, net = few(), small()
    options = {"epochs": 30, "batch_size": 20, "progress": False, "phi_rate": 0.03, "rate": 3e-3}
    model, kept, history = train(net, data, strength, per="unit", **options)
    alive = sparse.alive(model, data.train[0][:2])
    gone = {key: int((~mask).sum()) for key, mask in alive.items()}
    assert sum(gone.values()) > 0
    assert history.accuracy[-1] > 0.25
    less = structured.shrink(model, alive)
    torch.testing.assert_close(less(data.test[0]), model(data.test[0]), atol=1e-9, rtol=1e-9)
    assert all(torch.equal(mask, model.get_parameter(key) != 0) for key, mask in kept.items())


def test_movement_keeps_what_moves_away_from_zero():
    """One step by hand: S falls by rate · w ∂L/∂w̃, and the largest stay."""
    data = few(64)
    _, kept, _ = sparse.movement(
        net := small(), data, 0.5, warm=0, finish=0, epochs=1, batch_size=64, rate=0.0, phi_rate=1.0,
        optimizer=torch.optim.SGD, progress=False, on_empty="allow",
    )  # fmt: skip
    assert masks.sparsity(kept) == pytest.approx(0.5, abs=1e-3)
    first = masks.keep_top({k: torch.zeros_like(w) for k, w in masks.prunable(net).items()}, 0.5)
    run = masks.apply(net, first)
    x, y = data.train
    value = cross_entropy(run(x), y)
    g = dict(
        zip(first, torch.autograd.grad(value, list(masks.prunable(run).values())), strict=True)
    )
    want = masks.keep_top({k: -(g[k] * w).detach() for k, w in masks.prunable(net).items()}, 0.5)
    assert sum(int((want[k] != kept[k]).sum()) for k in kept) <= 2  # rounding of ties


def test_the_penalty_is_let_in_over_the_warm_up():
    seen = []
    net = sampled.Sampled(small(), {}, sampled.as_it_is, sampled.as_it_is)
    options = {"epochs": 5, "finish": 0.2, "warm": 0.5, "batch_size": 50, "progress": False}
    jointly(net, few(100), move=lambda net, rate: seen.append(rate), **options)
    assert seen == pytest.approx([1e-3 * min(1, t / 4) for t in range(1, 9)])


def test_what_is_zero_stays_zero_in_the_second_phase_and_nothing_else_becomes_so():
    data = few(100)
    first = sparse.l1(small(), data, 5.0, epochs=3, finish=0, progress=False, on_empty="allow")
    both = sparse.l1(small(), data, 5.0, epochs=6, finish=0.5, progress=False, on_empty="allow")
    assert all(torch.equal(mask, first[1][key]) for key, mask in both[1].items())
    assert not torch.equal(first[0].get_parameter("1.weight"), both[0].get_parameter("1.weight"))


def test_frozen_weights_stay_as_they_are():
    data = few(64)
    for run in ways().values():
        net = small()
        net[1].weight.requires_grad_(False)
        model, kept, _ = run(net, data)
        assert torch.equal(model[1].weight, net[1].weight)
        assert bool(kept["1.weight"].all())


def tied():
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10)
    )
    net[3].weight = net[1].weight
    return net


class Reader(nn.Module):
    """A network that reads a weight without calling its layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.b(linear(x.flatten(1), self.a.weight, self.a.bias))


def test_what_is_not_covered_is_refused_by_name():
    data = few(64)
    frozen = small().requires_grad_(False)
    upward = nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Flatten(), nn.Linear(162, 10))
    for net, why in (
        (tied(), "'1.weight' belongs to two"),
        (Reader(), "'a.weight' is read outside"),
        (upward, "ConvTranspose2d"),
    ):
        with pytest.raises(UncoveredError, match=why):
            sparse.variational_dropout(net, data, **QUICK)
        sparse.l0(net, data, 0.1, **QUICK)  # gates multiply the weight, wherever it is read
    with pytest.raises(ValueError, match="no weight to train"):
        sparse.l1(frozen, data, 0.1, **QUICK)
    with pytest.raises(UncoveredError, match="ConvTranspose2d"):
        sparse.l0(upward, data, 0.1, per="unit", **QUICK)
    half = small()
    half[1].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="'1.bias' is frozen"):
        sparse.l0(half, data, 0.1, per="unit", **QUICK)
    with pytest.raises(ValueError, match="no unit that can be removed"):
        sparse.l0(lab.models.mlp(hidden=()), data, 0.1, per="unit", **QUICK)


def test_a_layer_that_is_emptied_is_named():
    data = few(64)
    given = {"epochs": 2, "progress": False}
    with pytest.raises(ValueError, match=r"every weight of '1.weight' became zero"):
        sparse.l1(small(), data, 1e4, **given)
    model, kept, _ = sparse.l1(small(), data, 1e4, on_empty="allow", **given)
    assert masks.sparsity(kept) == 1
    assert torch.equal(model(data.test[0])[0], model(data.test[0])[1])
    with pytest.raises(ValueError, match=r"nothing would be left of layer '1'"):
        sparse.l1(small(), data, 1e4, per="unit", **given)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, data: sparse.l1(net, data, math.nan), "strength must be a finite number"),
        (lambda net, data: sparse.l1(net, data, -1), "strength must be .* 0 or more, got -1"),
        (lambda net, data: sparse.l1(net, data, 1, per="row"), "per must be one of .* got 'row'"),
        (lambda net, data: sparse.l1(net, data, 1, way="L2"), "way must be one of .* got 'L2'"),
        (lambda net, data: sparse.l0(net, data, 1, initial=0), "0 < initial < 1 .* got initial=0"),
        (lambda net, data: sparse.l0(net, data, 1, beta=0), "beta > 0, got .*beta=0"),
        (lambda net, data: sparse.l0(net, data, 1, warm=2), r"warm must lie in \[0, 1\], got 2"),
        (lambda net, data: sparse.noise(net, -0.1), "sigma must be .* 0 or more, got -0.1"),
        (lambda net, data: sparse.noise(net, math.inf), "sigma must be a finite number"),
        (lambda net, data: sparse.perturbed(net, -0.1), "sigma must be .* 0 or more, got -0.1"),
        (lambda net, data: sparse.monte_carlo(net, data.train, -1), "sigma must be .* got -1"),
        (
            lambda net, data: sparse.variational_dropout(net, data, log_variance=-math.inf),
            "log_variance must be a finite number",
        ),
        (lambda net, data: sparse.movement(net, data, 1.2), r"sparsity must lie in \[0, 1\]"),
        (lambda net, data: sparse.monte_carlo(net, data.train, 0.5, 1), "samples must be a whole"),
        (lambda net, data: sparse.exact_coins(lambda m: m, torch.zeros(2)), "one number for each of 4"),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_words(call, says):
    with pytest.raises(ValueError, match=says):
        call(small(), few(20))


# Figures and exercises -------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "strength"), [(0.8, 0.5), (-2.0, 1.0), (0.3, 0.5)])
def test_the_kink_shows_where_the_cost_is_least(weight, strength):
    picture = scenes.kink(weight, strength)
    costs = {line.get_label(): line.get_xydata() for line in picture.figure.axes[0].lines}
    for label in ("L1", "L2"):
        at, cost = costs[label].T
        best = float(at[cost.argmin()])
        said = {"L1": r"goes to (\S+) with \|v\|", "L2": r"to (\S+) with v²"}[label]
        assert float(re.search(said, picture.alt).group(1)) == pytest.approx(best, abs=0.011)


def test_the_coin_shows_its_atoms_and_its_density():
    picture = scenes.coin(0.5, 2 / 3)
    left = picture.figure.axes[0]
    shut, full = (bar.get_height() for bar in left.patches)
    z, density = left.lines[0].get_xydata().T
    assert shut + full + np.trapezoid(density, z) == pytest.approx(1, abs=0.01)
    assert f"P(z = 0) = {shut:.2f}, P(z = 1) = {full:.2f}" in picture.alt


def test_the_dial_shows_the_accuracy_with_noise():
    test = few().test
    nets = {"1": lab.models.mlp(hidden=(8,)), "2": small()}
    picture = scenes.dial(nets, test, 3, layers="2", sigma=0.0)
    assert picture.alt.endswith(f"test accuracy {lab.evaluation.accuracy(nets['2'], test):.2f}.")
    assert len(picture.figure.axes[0].lines) == 4


def test_the_frontier_shows_the_means_of_the_rows():
    rows = [
        {
            "method": m,
            "level": n,
            "seed": s,
            "zeros": 50 + 10 * n,
            "accuracy": 0.9 - 0.1 * n + s / 100,
        }
        for m in ("L0", "gradual")
        for n in (0, 1)
        for s in (0, 1, 2)
    ]
    picture = scenes.frontier(rows, ["L0", "gradual"], 100)
    assert "L0 0.190 with 40.0% left; gradual 0.190 with 40.0% left" in picture.alt


def test_the_sizes_say_how_many_are_not_zero():
    net = masks.apply(small(), masks.keep_top(masks.prunable(small()), 0.75, absolute=True))
    left = int(sum((w != 0).sum() for w in masks.prunable(net).values()))
    assert f"no penalty: {left} are not zero" in figures.sizes({"no penalty": net}).alt


def test_the_estimates_say_mean_and_spread():
    rows = torch.tensor([0.0, 1.0, 2.0])
    picture = figures.estimates({"straight through": rows}, 0.75)
    assert (
        "a slope that is 0.750: straight through mean 1.000, standard deviation 1.00" in picture.alt
    )


def test_what_goes_lies_above_the_line():
    w = torch.tensor([1.0, 1.0, 1e-3])
    state = [{"a": w}, {"a": torch.tensor([0.01, 100.0, 1e-4]).log()}]  # σ² is 0.01, 100, 1e-4
    picture = figures.certainty(state)
    assert "67% of the weights lie above σ = 4.5 |w|" in picture.alt
    assert "0.10 of those that stay, 0.01 of those that go" in picture.alt
    settle, states = figures.kept_state([]), []
    assert callable(settle)
    _, kept, _ = sparse.variational_dropout(
        small(), few(), settle=figures.kept_state(states), **QUICK
    )
    assert states[0][0].keys() >= kept.keys()


def test_pixels_are_counted():
    kept = masks.keep_all(lab.models.mlp(hidden=(4,)))
    next(iter(kept.values()))[:, :9] = False
    picture = figures.pixels({"L1": kept})
    assert "L1, 12% zeros, reads 55 pixels of 64" in picture.alt
    assert int((picture.figure.axes[0].images[0].get_array() == 0).sum()) == 9


def test_differences_and_sizes_are_means_over_the_seeds():
    rows = [
        {"method": "L0", "budget": "epochs", "level": n, "seed": s, "zeros": 3232 + 100 * n}
        | {"accuracy": 0.8 + s / 100, "gradual": 0.7, "parameters": 500 - n}
        for n in (0, 1)
        for s in (0, 1, 2)
    ]
    assert "L0 +0.110 with 50.0% left" in figures.against(rows, "epochs", ["L0"]).alt
    assert "L0 0.810 with 499 parameters" in scenes.smaller(rows).alt
    assert figures.column(rows, "level")[0].mean == pytest.approx(0.81)


def test_every_kind_and_depth_stands_at_its_noise_power():
    rows = [
        {"kind": kind, "depth": d, "seed": s, "accuracy": 0.9 - 0.1 * d + s / 100}
        for kind in ("noise 1", "noise 2")
        for d in (1, 2)
        for s in (0, 1, 2)
    ]
    picture = figures.drowning(rows, {"one draw for the batch": ["noise 1", "noise 2"]})
    (line, _) = picture.figure.axes[0].lines
    want = [(3, 0.81), (7, 0.71), (24, 0.81), (124, 0.71)]  # 2² − 1, 2³ − 1, 5² − 1, 5³ − 1
    assert line.get_xydata() == pytest.approx(np.array(want))
    # Ranks of the powers 1, 2, 3, 4; of the accuracies, two and two equal, 3.5, 1.5, 3.5, 1.5.
    rank = figures.order(rows, {"one": ["noise 1"], "other": ["noise 2"]})
    assert rank == pytest.approx(np.corrcoef([1, 2, 3, 4], [3.5, 1.5, 3.5, 1.5])[0, 1], abs=1e-6)
    told = figures.curves(rows, ["noise 1"], "depth", "hidden layers").alt
    assert told == "Test accuracy at 1, 2 hidden layers: noise 1 0.81, 0.71."


def test_a_row_of_the_table_is_the_mean_of_its_seeds():
    rows = [
        {"method": "L0", "level": 0, "seed": s, "zeros": 70 + 5 * s, "accuracy": 0.8 + s / 100}
        for s in (0, 1, 2)
    ]
    (found,) = figures.compressed(rows, weights=100)
    assert found["zeros"] == pytest.approx(0.75)
    assert found["times fewer"] == pytest.approx(4)
    assert found["test accuracy"].mean == pytest.approx(0.81)


def test_the_relative_noise_of_a_gate_is_that_of_its_draws():
    for initial in (0.5, 0.9):
        z = sparse.gate(torch.tensor(math.log(initial / (1 - initial))), uniform(DRAWS))
        assert figures.relative(initial) == pytest.approx(float(z.std() / z.mean()), rel=0.01)
    assert figures.size_of("noise 0.5, each sample") == 0.5
    assert figures.size_of("L0, half open, no penalty") == figures.relative(0.5)


def test_the_noise_power_is_that_of_new_networks():
    found = [limits.power(seed, 0.5, 2, 64)["ratio"] for seed in range(12)]
    assert np.mean(found) == pytest.approx(sparse.noise_power(0.5, 3), rel=0.35)


def test_several_draws_are_one_longer_batch():
    x, y = few(8).train
    many = limits.Many(sparse.noise(small(), 0.0), 3)
    outputs = many.train()(x)
    assert torch.equal(outputs, small()(x).repeat(3, 1))
    assert float(limits._each(outputs, y)) == pytest.approx(float(cross_entropy(small()(x), y)))
    assert len(many.eval()(x)) == 8


@pytest.mark.parametrize("name", scenes.TASKS)
def test_the_mistakes_of_a_task_are_mistakes(name):
    task, rng = scenes.TASKS[name], random.Random(0)
    for given_ in [task.draw(rng) for _ in range(20)]:
        for says, mistake in task.mistakes.items():
            assert not torch.allclose(mistake(*given_), task.answer(*given_)), says


def test_a_training_that_diverges_says_so():
    data = few(64)
    with pytest.raises(ValueError, match="diverged|NaN or infinite"):
        sparse.l0(small(), data, 0.1, rate=1e200, optimizer=torch.optim.SGD, **QUICK)
