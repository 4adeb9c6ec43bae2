"""Whole units: delete, merge, repair, the surgeon, and what each is worth."""

import copy
import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from teachkit import lab, masks, neurons, obd, structured
from teachkit.engine import merging
from teachkit.engine.surgeon import units as columns
from teachkit.engine.units import Hidden, Kept, observed, rebuild
from teachkit.lab.curves import spearman

SEEDS = st.integers(0, 99)
WIDTHS = st.lists(st.integers(2, 5), min_size=1, max_size=2)
close = torch.testing.assert_close


def dice(seed):
    return torch.Generator().manual_seed(seed)


def network(widths, seed, activation=nn.Tanh, bias=True):
    """A chain with random weights and biases, and a batch for it."""
    g = dice(seed)
    sizes = [3, *widths, 2]
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), activation()]
    net = nn.Sequential(*layers[:-1])
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g)
    return net, (torch.randn(14, 3, generator=g), torch.randint(2, (14,), generator=g))


def some(net, seed):
    """Masks that keep at least one unit of each hidden layer."""
    keep = {}
    for layer in neurons.hidden(net):
        n = net.get_submodule(layer.name).out_features
        keep[layer.name] = torch.rand(n, generator=dice(seed)) < 0.5
        keep[layer.name][seed % n] = True
    return keep


def test_nothing_changes_where_everything_stays():
    net, batch = network([4, 3], 1)
    for name, layer in observed(net, batch[0]).items():
        reader = dict(neurons.hidden(net))[name]
        close(layer.target, net[: int(reader) + 1](batch[0]))
        close(layer.rest(layer.target), net(batch[0]))

    def decide(name, layer):
        return Kept(torch.ones(len(layer.incoming)) > 0, layer.weight, layer.bias)

    close(rebuild(net, batch, decide)(batch[0]), net(batch[0]))


@given(WIDTHS, SEEDS, st.sampled_from([nn.Tanh, nn.ReLU, nn.Sigmoid]), st.booleans())
def test_leave_one_out_silences_each_unit(widths, seed, activation, bias):
    net, batch = network(widths, seed, activation, bias)
    found = neurons.leave_one_out(net, batch)
    want = neurons.leave_one_out_naive(net, batch)
    assert list(found) == list(want)
    for name, change in want.items():
        close(found[name], change)


def test_leave_one_out_in_parts_is_the_same(monkeypatch):
    net, batch = network([5, 4], 0)
    whole = neurons.leave_one_out(net, batch)
    monkeypatch.setattr("teachkit.engine.leave_one_out.AT_ONCE", 1)
    close(neurons.leave_one_out(net, batch), whole)


@given(WIDTHS, SEEDS)
def test_scores_are_sums_over_the_weights_of_a_unit(widths, seed):
    net, batch = network(widths, seed)
    h = obd.diagonal(net, batch)
    cross_entropy(net(batch[0]), batch[1]).backward()
    found = {m: neurons.scores(net, batch, m) for m in ("magnitude", "taylor", "obd")}
    for maker, reader in oracles.hidden_layers(net):
        w, v = net[maker].weight, net[reader].weight
        for j in range(len(w)):
            own = torch.cat([w[j], v[:, j]]).detach()
            bend = torch.cat([h[f"{maker}.weight"][j], h[f"{reader}.weight"][:, j]])
            assert float(found["magnitude"][str(maker)][j]) == pytest.approx(math.hypot(*own))
            assert float(found["obd"][str(maker)][j]) == pytest.approx(
                float((bend * own**2).sum() / 2)
            )
            slope = (v.grad[:, j] * v[:, j]).sum().abs().item()
            assert float(found["taylor"][str(maker)][j]) == pytest.approx(slope)


@given(SEEDS)
def test_taylor_is_the_first_order_of_leave_one_out(seed):
    net, batch = network([4], seed)
    small = 1e-5
    faint = copy.deepcopy(net)
    faint[0].weight.data *= small  # tanh is linear near zero
    faint[0].bias.data *= small
    change = neurons.leave_one_out(faint, batch)["0"].abs()
    error = neurons.scores(faint, batch, "taylor")["0"] - change
    assert float(error.abs().max()) < 100 * small**2  # what is left is of second order
    assert float(change.max()) > 1000 * small**2


@given(WIDTHS, SEEDS)
def test_deletion_is_real_and_equals_silence(widths, seed):
    net, batch = network(widths, seed, nn.Sigmoid)
    keep = some(net, seed)
    small, deaf = neurons.delete(net, keep), copy.deepcopy(net)
    for maker, reader in oracles.hidden_layers(net):
        deaf[reader].weight.data[:, ~keep[str(maker)]] = 0
        assert small[maker].out_features == int(keep[str(maker)].sum())
    close(small(batch[0]), deaf(batch[0]))


@given(WIDTHS, SEEDS, st.sampled_from([0.0, 1e-6, 0.1]), st.booleans())
def test_repair_is_least_squares(widths, seed, damping, bias):
    net, batch = network(widths, seed, bias=bias)
    keep = some(net, seed)
    small = neurons.repair(net, batch, keep, damping=damping)
    slow = oracles.unit_repair(net, batch[0], keep, damping)
    close(small(batch[0]), slow(batch[0]), rtol=1e-6, atol=1e-8)
    left = [small[a].out_features for a, _ in oracles.hidden_layers(small)]
    assert left == [int(mask.sum()) for mask in keep.values()]


@settings(max_examples=25)
@given(st.integers(2, 6), SEEDS, st.sampled_from([0.0, 1e-6, 0.1]), st.booleans())
def test_the_surgeon_removes_what_costs_least_after_the_best_repair(units, seed, damping, bias):
    net, batch = network([units], seed, bias=bias)
    layer = observed(net, batch[0])["0"]
    order = merging.elimination(layer, units, damping=damping).tolist()
    alive = list(range(units))
    for j in order[: units - 1]:
        errors = oracles.unit_errors(net, net, 0, 2, batch[0], alive, damping)
        assert errors[j] == pytest.approx(min(errors.values()), rel=1e-5, abs=1e-9)
        alive.remove(j)


@given(st.integers(2, 6), SEEDS, st.sampled_from([1e-6, 0.1]), st.booleans())
def test_the_plain_repair_and_elimination(count, seed, damping, bias):
    net, batch = network([count], seed, bias=bias)
    layer = observed(net, batch[0])["0"]
    X, W = layer.outputs, layer.weight
    if bias:
        X, W = torch.cat([X, torch.ones(14, 1)], 1), torch.cat([W, layer.bias[:, None]], 1)
    keep = torch.arange(X.shape[1]) != seed % count
    plain = neurons.least_squares(X, W, layer.target, keep, damping)
    kept = merging.least_squares(layer, keep[:count], damping=damping)
    close(plain[:, : count - 1], kept.weight, rtol=1e-6, atol=1e-8)
    if bias:
        close(plain[:, -1], kept.bias, rtol=1e-6, atol=1e-8)
    H, B = merging.normal_equations(layer, damping)
    P = torch.linalg.inv(H)
    order = neurons.elimination((P @ B).T, P, count, bias=bias)
    assert order == columns(P, (P @ B).T, count, protected=int(bias)).tolist()
    assert order == merging.elimination(layer, count, damping=damping).tolist()


@given(st.integers(2, 6), SEEDS, st.sampled_from([0.0, 0.1]))
def test_costs_are_the_rise_of_the_error(units, seed, damping):
    net, batch = network([units], seed)
    layer = observed(net, batch[0])["0"]
    H, B = merging.normal_equations(layer, damping)
    P = torch.linalg.inv(H)
    found = neurons.costs((P @ B).T, P)[:units]
    base = oracles.unit_fit(net, net, 0, 2, batch[0], range(units), damping)[0]
    errors = oracles.unit_errors(net, net, 0, 2, batch[0], range(units), damping)
    close(found, torch.tensor([errors[j] - base for j in range(units)]), rtol=1e-6, atol=1e-8)


@given(st.integers(2, 6), SEEDS)
def test_without_the_outgoing_weights_a_cost_is_what_the_others_cannot_say(units, seed):
    net, batch = network([units], seed)
    X = torch.cat([observed(net, batch[0])["0"].outputs, torch.ones(14, 1)], 1)
    found = neurons.costs(torch.ones(1, units + 1), torch.linalg.inv(X.T @ X))
    for j in range(units):
        others = [k for k in range(units + 1) if k != j]
        fit = torch.linalg.lstsq(X[:, others], X[:, j]).solution
        close(found[j], ((X[:, others] @ fit - X[:, j]) ** 2).sum())


@given(WIDTHS, SEEDS, st.sampled_from(["surgeon", "merge regression"]))
def test_surgeon_and_regression_end_in_least_squares(widths, seed, method):
    net, batch = network(widths, seed)
    small = neurons.prune(net, batch, 0.4, method)
    keep = {}
    for layer in neurons.hidden(net):  # which units stayed, told by their first-layer weights
        if layer.name == "0":
            rows = net[0].weight[:, None] == small[0].weight
            keep["0"] = rows.all(2).any(1)
    if len(widths) == 1:
        close(neurons.repair(net, batch, keep)(batch[0]), small(batch[0]), rtol=1e-6, atol=1e-8)
    assert [small[a].out_features for a, _ in oracles.hidden_layers(small)] == [
        n - masks.removed(n, 0.4) for n in widths
    ]


@given(st.integers(3, 6), SEEDS, st.sampled_from(["weights", "activations"]), st.data())
def test_merging_pairs(units, seed, by, data):
    net, batch = network([units], seed, data.draw(st.sampled_from([nn.ReLU, nn.Tanh])))
    said = net[:2](batch[0])
    if by == "activations" and bool((said.var(0) < 1e-9).any()):
        return  # a constant unit has its own test
    count = data.draw(st.integers(0, units - 1))
    small = neurons.merge(net, batch, count / units, by)
    assert small[0].out_features == units - count
    close(small(batch[0]), oracles.unit_merge(net, batch[0], count, by))


@given(SEEDS, st.floats(0.2, 5))
def test_parallel_relu_units_merge_without_a_trace(seed, factor):
    net, batch = network([4], seed, nn.ReLU)
    net[0].weight.data[2] = factor * net[0].weight.data[0]
    net[0].bias.data[2] = factor * net[0].bias.data[0]
    fresh = torch.randn(9, 3, generator=dice(seed + 1))
    merged = neurons.merge(net, batch, 0.25, "weights")
    close(merged(fresh), net(fresh))
    if bool((net[:2](batch[0]).var(0) > 1e-6).all()):
        close(neurons.merge(net, batch, 0.25, "activations")(fresh), net(fresh))
    for method in ("merge regression", "surgeon"):
        close(
            neurons.prune(net, batch, 0.25, method)(batch[0]), net(batch[0]), rtol=1e-3, atol=1e-4
        )


def test_a_constant_unit_becomes_a_bias():
    net, batch = network([4], 3)
    net[0].weight.data[1], net[0].bias.data[1] = 0.0, 0.7
    for by in ("activations", "regression"):
        small = neurons.merge(net, batch, 0.25, by)
        close(small(batch[0]), net(batch[0]), rtol=1e-4, atol=1e-5)
    close(small[0].weight, net[0].weight[[0, 2, 3]])


def test_without_a_bias_lines_go_through_the_origin():
    net, batch = network([4], 5, nn.Sigmoid, bias=False)
    layer = observed(net, batch[0])["0"]
    pairs = merging.by_activations(layer)
    for j in range(4):
        for i in range(4):
            slope = torch.linalg.lstsq(layer.outputs[:, i, None], layer.outputs[:, j]).solution
            close(pairs.ratio[j, i], slope[0])
    assert pairs.offset.abs().max() < 1e-12
    assert merging.merge_pairs(layer, merging.by_weights(layer), 2).bias is None


@settings(max_examples=20)
@given(WIDTHS, SEEDS)
def test_greedy_measures_again_after_each_unit(widths, seed):
    net, batch = network(widths, seed)
    small = neurons.greedy(net, batch, 0.5)
    deaf = copy.deepcopy(net)
    for maker, reader in oracles.hidden_layers(net):
        alive = list(range(net[maker].out_features))
        for _ in range(masks.removed(len(alive), 0.5)):
            losses = {
                j: cross_entropy(
                    neurons.without_unit(deaf, str(reader), j)(batch[0]), batch[1]
                ).item()
                for j in alive
            }
            worst = min(alive, key=losses.get)
            deaf = neurons.without_unit(deaf, str(reader), worst)
            alive.remove(worst)
    close(small(batch[0]), deaf(batch[0]))


@given(WIDTHS, SEEDS, st.sampled_from(list(neurons.METHODS)), st.booleans())
def test_every_method_meets_the_quota_and_leaves_the_model_alone(widths, seed, method, repaired):
    net, batch = network(widths, seed, nn.ReLU)
    before = copy.deepcopy(net.state_dict())
    repaired = repaired and method in neurons.CRITERIA
    small = neurons.prune(net, batch, 0.45, method, repaired=repaired, generator=dice(seed))
    left = [small[a].out_features for a, _ in oracles.hidden_layers(small)]
    assert left == [n - masks.removed(n, 0.45) for n in widths]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert structured.count(small).parameters < structured.count(net).parameters or left == widths


def test_nothing_removed_is_the_same_network():
    net, batch = network([4, 3], 2)
    for method in neurons.METHODS:
        close(neurons.prune(net, batch, 0.0, method)(batch[0]), net(batch[0]))


@given(st.integers(1, 5), SEEDS, st.floats(0, 1))
def test_worth_by_enumeration(n, seed, keep):
    values = torch.randn(2**n, generator=dice(seed))
    rows = zip(neurons.every_mask(n), values, strict=True)
    teams = {frozenset(row.nonzero()[:, 0].tolist()): float(v) for row, v in rows}
    assert set(teams) == set(neurons.teams(range(n)))
    close(neurons.banzhaf(values), torch.tensor(neurons.banzhaf_naive(teams, n)))
    close(neurons.banzhaf(values, keep=keep), torch.tensor(neurons.banzhaf_naive(teams, n, keep)))
    close(neurons.shapley(values), torch.tensor(neurons.shapley_naive(teams, n)))


@given(st.integers(1, 6), SEEDS)
def test_what_ties_the_values_together(n, seed):
    values = torch.randn(2**n, generator=dice(seed))
    worth = neurons.shapley(values)
    close(worth.sum(), values[-1] - values[0])  # nothing is lost, nothing is made up
    nodes, weights = np.polynomial.legendre.leggauss(n)
    mean = sum(
        w / 2 * neurons.banzhaf(values, keep=(1 + t) / 2)
        for t, w in zip(nodes, weights, strict=True)
    )
    close(mean, worth)  # Owen 1972
    if n > 1:
        close(neurons.regress(neurons.every_mask(n), values).worth, neurons.banzhaf(values))
    alone = neurons.banzhaf(values, keep=0.0)
    close(alone, torch.stack([values[2 ** (n - 1 - j)] - values[0] for j in range(n)]))


@given(st.integers(1, 4), st.integers(15, 30), SEEDS)
def test_regression_by_lstsq(n, m, seed):
    rows = torch.rand(m, n, generator=dice(seed)) < 0.5
    values = torch.randn(m, generator=dice(seed + 1))
    X = torch.cat([torch.ones(m, 1), rows.double()], 1)
    if int(torch.linalg.matrix_rank(X)) <= n:
        with pytest.raises(ValueError, match="do not determine"):
            neurons.regress(rows, values)
        return
    found = neurons.regress(rows, values)
    want = torch.linalg.lstsq(X, values).solution
    close(torch.tensor([found.intercept, *found.worth]), want)
    G = torch.linalg.inv(X.T @ X)
    meat = sum(
        ((y - row @ want) / (1 - row @ G @ row)) ** 2 * torch.outer(row, row)
        for row, y in zip(X, values, strict=True)
        if float(row @ G @ row) < 1 - 1e-9
    )
    if bool(((X @ G) * X).sum(1).max() < 1 - 1e-9):
        close(found.errors, (G @ meat @ G).diagonal().sqrt()[1:])


def test_the_errors_cover_the_banzhaf_value():
    values = torch.randn(64, generator=dice(0))
    truth, inside = neurons.banzhaf(values), []
    for seed in range(100):
        rows = torch.randint(64, (100,), generator=dice(seed))
        found = neurons.regress(neurons.every_mask(6)[rows], values[rows])
        inside.append(((found.worth - truth).abs() < 1.96 * found.errors).double())
    assert 0.91 < float(torch.stack(inside).mean()) < 0.98


def minus_accuracy(output, y):
    return -(lab.evaluation.predictions(output) == y).double().mean()


@given(WIDTHS, SEEDS)
def test_the_value_of_a_team_is_measured_on_the_silenced_network(widths, seed):
    net, batch = network(widths, seed)
    for layer in neurons.hidden(net):
        units = net.get_submodule(layer.name).out_features
        rows = torch.rand(6, units, generator=dice(seed)) < 0.5
        found = neurons.game(net, batch, layer.name, rows)
        right = neurons.game(net, batch, layer.name, rows, minus_accuracy)
        for row, value, share in zip(rows, found, right, strict=True):
            deaf = copy.deepcopy(net)
            deaf.get_submodule(layer.reader).weight.data[:, ~row] = 0
            judged = lab.evaluation.evaluate(deaf, batch)
            assert (float(value), float(share)) == pytest.approx((-judged.loss, judged.accuracy))


def test_more_masks_come_closer():
    values = torch.randn(256, generator=dice(1)) + neurons.every_mask(8).double() @ torch.arange(
        8.0
    )
    truth, ranks = neurons.banzhaf(values), {}
    for count in (20, 400):
        drawn = [torch.randint(256, (count,), generator=dice(seed)) for seed in range(20)]
        found = [neurons.regress(neurons.every_mask(8)[rows], values[rows]) for rows in drawn]
        ranks[count] = sum(spearman(f.worth, truth) for f in found) / 20
    assert ranks[20] < ranks[400]


def test_only_chains_of_linear_layers():
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)
    shared = nn.Linear(3, 3)
    for net, says in [
        (lab.models.lenet5((1, 8, 8)), "layer '0' is a Conv2d"),
        (nn.Linear(2, 2), "must be a Sequential chain of Linear layers, got Linear"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), "BatchNorm1d"),
        (nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(3, 2)), "'1' is a Flatten"),
        (nn.Sequential(shared, nn.ReLU(), shared), "'2' is a Linear"),
    ]:
        with pytest.raises(ValueError, match=says):
            neurons.hidden(net)
    nested = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(64, 4), nn.Dropout()), nn.Linear(4, 10)
    )
    assert neurons.hidden(nested) == [Hidden("1.0", "2")]
    assert neurons.prune(nested, (x, y), 0.5)(x).shape == (4, 10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda n, b: neurons.prune(n, b, 0.5, "x"), "method must be one of"),
        (lambda n, b: neurons.prune(n, b, 0.5, repaired=True), "repaired is for"),
        (lambda n, b: neurons.prune(n, b, 0.9), "nothing is left of layer '0', which has 3 units"),
        (lambda n, b: neurons.prune(n, b, 0.9, "obd"), "nothing is left of layer '0'"),
        (lambda n, b: neurons.prune(n, b, 1.5), r"sparsity must lie in \[0, 1\], got 1.5"),
        (lambda n, b: neurons.scores(n, b, "x"), "method must be one of"),
        (lambda n, b: neurons.merge(n, b, 0.5, "x"), "by must be one of"),
        (lambda n, b: neurons.repair(n, b, {}), "keep lacks the hidden layer '0'"),
        (
            lambda n, b: neurons.game(n, b, "2", torch.ones(1, 3) > 0),
            r"layer must be one of \['0'\]",
        ),
        (
            lambda n, b: neurons.game(n, b, "0", torch.ones(1, 4) > 0),
            r"shape \(m, 3\), got \(1, 4\)",
        ),
        (lambda n, b: neurons.banzhaf(torch.ones(3)), "each of 2ⁿ masks"),
        (lambda n, b: neurons.shapley(torch.tensor([0.0, math.nan])), "values has 1 NaN"),
        (lambda n, b: neurons.every_mask(17), "units must be a whole number from 1 to 16"),
        (lambda n, b: neurons.regress(torch.ones(9, 2) > 0, torch.ones(9)), "draw more"),
        (lambda n, b: neurons.regress(torch.ones(9, 2) > 0, torch.ones(8)), "do not fit"),
        (lambda n, b: neurons.prune(n, (b[0] / 0, b[1]), 0.5), "NaN or infinite"),
    ],
)
def test_bad_input_is_quoted(call, says):
    net, batch = network([3], 0)
    with pytest.raises(ValueError, match=says):
        call(net, batch)


def test_wrong_kinds_are_refused():
    net, batch = network([3], 0)
    with pytest.raises(TypeError, match="masks must be boolean"):
        neurons.game(net, batch, "0", torch.ones(2, 3))


def test_float32_and_other_losses():
    net, (x, _) = network([4, 3], 0)
    net, x = net.float(), x.float()
    batch = x, torch.zeros(len(x), 2, dtype=torch.float32)
    for method in neurons.METHODS:
        small = neurons.prune(net, batch, 0.5, method, loss=mse_loss, generator=dice(0))
        assert small(x).dtype == torch.float32
    assert neurons.game(net, batch, "0", torch.ones(2, 4) > 0, mse_loss).shape == (2,)
