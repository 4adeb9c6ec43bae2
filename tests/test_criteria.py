"""One suite for every function that scores weights or prunes a network.

A new criterion registers once, in SCORES or in PRUNES, and is held to all of this.
"""

import copy
import math
import warnings
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from teachkit import fisher, lab, magnitude, masks, obd, obs, paradox


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def largest(model, batch, sparsity, loss=cross_entropy):
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        kept = magnitude.keep_largest(model, sparsity)
    return masks.apply(model, kept), kept


def hutchinson(model, batch, loss=cross_entropy):
    return obd.hutchinson(model, batch, loss, directions=3, generator=dice()).mean


# (model, batch, loss) -> Scores; a larger score stays.
SCORES = {
    "magnitude": lambda m, b, loss=cross_entropy: magnitude.scores(m),
    "random": lambda m, b, loss=cross_entropy: magnitude.random_scores(m, dice()),
    "LAMP": lambda m, b, loss=cross_entropy: magnitude.lamp_scores(m),
    "OBD": obd.scores,
    "OBD, row sums": obd.row_sum_scores,
    "OBD, Hutchinson": hutchinson,
    "OBD, recursion": obd.recursion,
    "empirical Fisher": fisher.scores,
    "true Fisher": lambda m, b, loss=cross_entropy: fisher.scores(m, b, loss, kind="true"),
    "T1": paradox.first_order,
    "T2": paradox.second_order,
    "T2, absolute": paradox.absolute,
    "SD": paradox.spread,
    "MEAN + SD": paradox.mean_plus_spread,
    "sampled Fisher": lambda m, b, loss=cross_entropy: fisher.scores(
        m, b, loss, kind="sampled", generator=dice()
    ),
}
# (model, batch, sparsity, loss=...) -> (model, masks).
PRUNES = {
    "magnitude without scores": largest,
    "OBD": obd.prune,
    "OBS": obs.prune,
    "OBS by layers": lambda m, b, s, loss=cross_entropy: obs.prune_layers(m, b, s, scope="global"),
    "OBS by layers, each": lambda m, b, s, loss=cross_entropy: obs.prune_layers(m, b, s),
    "OBS in one pass": lambda m, b, s, loss=cross_entropy: obs.prune_layers(m, b, s, method="pass"),
    "Fisher blocks": fisher.prune,
    "Fisher blocks, 2 steps": lambda m, b, s, loss=cross_entropy: fisher.prune(
        m, b, s, loss=loss, steps=2
    ),
}
PER_LAYER = {"OBS by layers, each", "OBS in one pass"}  # exact in every layer, not over all
WITHOUT_DATA = {"magnitude", "random", "LAMP", "magnitude without scores"}
CHAINS_ONLY = {
    "OBD, recursion",
    "SD",
    "MEAN + SD",
}  # refuses by name what is not a chain of known layers
DENSE = {"OBS": 5000}  # the most weights of a full inverse
SPARSITIES = (0.0, 0.3, 0.9, 1.0)
DTYPES = [torch.float32, torch.float64]


def asked(criterion, sizes, sparsity):
    """How many weights must go."""
    if criterion in PER_LAYER:
        return sum(masks.removed(n, sparsity) for n in sizes)
    return masks.removed(sum(sizes), sparsity)


@cache
def network(name, dtype):
    """A network of the course for 8x8 images, a little trained, and 40 images."""
    data = lab.data.digits()
    batch = tuple(part[:40] for part in data.train)
    batch = (batch[0].to(dtype), batch[1])
    model = lab.models.MODELS[name]((1, 8, 8)).to(dtype)
    return lab.training.fit(model, batch, epochs=3, progress=False)[0], batch


def state(model):
    return {n: t.clone() for n, t in model.state_dict().items()}, [
        m.training for m in model.modules()
    ]


def unchanged(model, before):
    tensors, modes = before
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def check_scores(found, model):
    weights = masks.prunable(model)
    assert list(found) == list(weights)
    for name, score in found.items():
        assert score.shape == weights[name].shape
        assert score.is_floating_point()
        assert not score.requires_grad
        assert bool(torch.isfinite(score).all())


def check_pruned(criterion, model, pruned, kept, sparsity):
    weights = masks.prunable(model)
    sizes = [w.numel() for w in weights.values()]
    assert list(kept) == list(weights)
    assert all(kept[n].dtype == torch.bool and kept[n].shape == w.shape for n, w in weights.items())
    assert sum(int((~m).sum()) for m in kept.values()) == asked(criterion, sizes, sparsity)
    after = masks.prunable(pruned)
    assert all(bool((after[n][~m] == 0).all()) for n, m in kept.items())
    assert all(bool(torch.isfinite(p).all()) for p in pruned.parameters())
    assert [p.dtype for p in pruned.parameters()] == [p.dtype for p in model.parameters()]
    if sparsity == 0:
        assert all(torch.equal(after[n], w) for n, w in weights.items())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("criterion", "name"),
    # Hutchinson's estimate loops over products that test_obd.py tests: one network is enough.
    [(c, n) for c in SCORES for n in lab.models.MODELS if c != "OBD, Hutchinson" or n == "mlp"],
)
def test_scores_of_the_networks_of_the_course(criterion, name, dtype):
    model, batch = network(name, dtype)
    before = state(model)
    found = SCORES[criterion](model, batch)
    check_scores(found, model)
    unchanged(model, before)
    again = SCORES[criterion](model, batch)
    assert all(torch.equal(again[n], s) for n, s in found.items())
    for sparsity in SPARSITIES:
        kept = masks.keep_top(found, sparsity)
        check_pruned(criterion, model, masks.apply(model, kept), kept, sparsity)
        stay = torch.cat([found[n][m] for n, m in kept.items()])
        go = torch.cat([found[n][~m] for n, m in kept.items()])
        assert not len(stay) or not len(go) or stay.min() >= go.max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", list(lab.models.MODELS))
@pytest.mark.parametrize("criterion", PRUNES)
def test_pruning_the_networks_of_the_course(criterion, name, dtype):
    model, batch = network(name, dtype)
    before = state(model)
    n = sum(w.numel() for w in masks.prunable(model).values())
    if n > DENSE.get(criterion, math.inf):
        with pytest.raises(ValueError, match=f"{n} .*GB.* at most {DENSE[criterion]}"):
            PRUNES[criterion](model, batch, 0.5)
        return
    for sparsity in SPARSITIES if name == "mlp" else (0.9,):
        pruned, kept = PRUNES[criterion](model, batch, sparsity)
        check_pruned(criterion, model, pruned, kept, sparsity)
    unchanged(model, before)


def small(dtype=torch.float64):
    generator = dice(5)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=dtype)
    x = torch.randn(30, 4, generator=generator, dtype=dtype)
    return net.to(dtype), (x, torch.arange(30) % 3)


def both(criterion, model, batch, sparsity=0.5, loss=cross_entropy):
    """Score and keep the top, or prune."""
    kind, name = criterion
    if kind == "prune":
        return PRUNES[name](model, batch, sparsity, loss=loss)
    kept = masks.keep_top(SCORES[name](model, batch, loss), sparsity)
    return masks.apply(model, kept), kept


ALL = [("score", name) for name in SCORES] + [("prune", name) for name in PRUNES]


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_small_network_at_every_sparsity(criterion, dtype):
    model, batch = small(dtype)
    for sparsity in (*SPARSITIES, 0.5, 1 / 35):
        pruned, kept = both(criterion, model, batch, sparsity)
        check_pruned(criterion[1], model, pruned, kept, sparsity)
        twice, kept_twice = both(criterion, model, batch, sparsity)
        assert all(torch.equal(kept_twice[n], m) for n, m in kept.items())
        assert all(
            torch.equal(a, b) for a, b in zip(twice.parameters(), pruned.parameters(), strict=True)
        )


@pytest.mark.parametrize("criterion", PRUNES)
def test_old_zeros_stay_zero_and_count(criterion):
    model, batch = small()
    first = masks.keep_top(magnitude.scores(model), 0.4, "layer")
    start = masks.apply(model, first)
    pruned, kept = PRUNES[criterion](start, batch, 0.6)
    assert all(bool((kept[n] <= m).all()) for n, m in first.items())
    check_pruned(criterion, start, pruned, kept, 0.6)
    fewer, kept = PRUNES[criterion](start, batch, 0.2)  # less than is gone already
    for name, w in masks.prunable(start).items():
        assert torch.equal(fewer.get_parameter(name) == 0, w == 0)
    assert sum(int((~m).sum()) for m in kept.values()) == asked(criterion, [20, 15], 0.2)


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_one_weight(criterion):
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(2.0)
    x = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    batch = (x, 1.5 * x)
    for sparsity, left in ((0.0, 1), (1.0, 0)):
        pruned, kept = both(criterion, model, batch, sparsity, mse_loss)
        assert int((pruned.weight != 0).sum()) == int(kept["weight"].sum()) == left


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_a_frozen_layer_is_pruned_like_any_other(criterion):
    model, batch = small()
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    want, got = both(criterion, model, batch)[1], both(criterion, frozen, batch)[1]
    assert all(torch.equal(got[n], m) for n, m in want.items())


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_a_layer_whose_inputs_are_all_zero(criterion):
    model, batch = small()
    dead = nn.Sequential(model[0], nn.ReLU(), model[2])
    dead[0].bias.data.fill_(-100)
    pruned, kept = both(criterion, dead, batch)
    check_pruned(criterion[1], dead, pruned, kept, 0.5)


class Unused(nn.Module):
    """One of its layers never runs."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_a_layer_that_never_runs(criterion):
    _, batch = small()
    model = Unused().double()
    if criterion[1] in CHAINS_ONLY:
        with pytest.raises(ValueError, match="Unused is not covered"):
            both(criterion, model, batch)
        return
    pruned, kept = both(criterion, model, batch)
    check_pruned(criterion[1], model, pruned, kept, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_nan_and_infinity_are_refused_by_name(criterion, value):
    model, (x, y) = small()
    if criterion[1] not in WITHOUT_DATA:
        bad = x.clone()
        bad[3, 1] = value
        with pytest.raises(ValueError, match="the batch's x has 1 NaN or infinite"):
            both(criterion, model, (bad, y))
    model[2].weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"parameter '2.weight' has 1 NaN or infinite"):
        both(criterion, model, (x, y))


@pytest.mark.parametrize("criterion", [c for c in ALL if c[1] not in WITHOUT_DATA], ids=" ".join)
def test_an_empty_batch_is_refused(criterion):
    model, (x, y) = small()
    with pytest.raises(ValueError, match="at least 1"):
        both(criterion, model, (x[:0], y[:0]))
    with pytest.raises(TypeError, match="a batch is a tuple"):
        both(criterion, model, x)


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_a_model_without_prunable_weights(criterion):
    batch = (torch.ones(4, 3), torch.arange(4) % 3)
    model = nn.Sequential(nn.Flatten(), nn.Tanh())
    pruned, kept = both(criterion, model, batch)
    assert kept == {}
    assert isinstance(pruned, nn.Module)


@pytest.mark.parametrize("criterion", PRUNES)
@pytest.mark.parametrize(
    ("sparsity", "error"),
    [(1.5, ValueError), (-0.1, ValueError), (math.nan, ValueError), ("0.5", TypeError)],
)
def test_a_bad_sparsity_is_quoted(criterion, sparsity, error):
    model, batch = small()
    with pytest.raises(error, match=r"sparsity must .*\[0, 1\], got"):
        PRUNES[criterion](model, batch, sparsity)


@pytest.mark.parametrize("criterion", [c for c in ALL if c[1] not in WITHOUT_DATA], ids=" ".join)
def test_data_of_another_precision_is_refused(criterion):
    model, (x, y) = small()
    with pytest.raises(TypeError, match=r"the data is torch.float32 but parameter '0.weight'"):
        both(criterion, model, (x.float(), y))
