"""One suite for every function that scores weights or prunes a network.

A new criterion registers once, where it is defined, and is held to all of this. What it is excused
from stands in its entry: ``chains``, ``scope``, ``limit``, ``needs``.
"""

import copy
import importlib
import math
import pkgutil
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import teachkit
from teachkit import lab, masks
from teachkit.core import criteria
from teachkit.core.criteria import PRUNES, SCORES
from teachkit.core.layers import UncoveredError

# Importing a lesson registers its criteria.
for _module in pkgutil.iter_modules(teachkit.__path__):
    if _module.name not in ("__main__", "course", "experiments", "show"):
        importlib.import_module(f"teachkit.{_module.name}")

EXPENSIVE = 20  # passes; what costs more is tried on the smallest network alone
SPARSITIES = (0.0, 0.3, 0.9, 1.0)
DTYPES = [torch.float32, torch.float64]
ALL = [("score", name) for name in SCORES] + [("prune", name) for name in PRUNES]


def entry(criterion):
    kind, name = criterion
    return (PRUNES if kind == "prune" else SCORES)[name]


WITH_DATA = [criterion for criterion in ALL if "data" in entry(criterion).needs]


def asked(criterion, sizes, sparsity):
    """How many weights must go."""
    if entry(criterion).scope == "layer":
        return sum(masks.removed(n, sparsity) for n in sizes)
    return masks.removed(sum(sizes), sparsity)


def both(criterion, model, batch, sparsity=0.5, loss=cross_entropy):
    """Score and keep the top, or prune."""
    function = entry(criterion).function
    if criterion[0] == "prune":
        return function(model, batch, sparsity, loss=loss)
    kept = masks.keep_top(function(model, batch, loss), sparsity)
    return masks.apply(model, kept), kept


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


def check_scores(scores, model):
    weights = masks.prunable(model)
    assert list(scores) == list(weights)
    for name, score in scores.items():
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


def refusal(function, model, batch):
    """Why a network is not covered, in the words of the error; "" if it is."""
    try:
        function(model, batch)
    except UncoveredError as reason:
        return str(reason)
    return ""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        (criterion, net)
        for criterion, found in SCORES.items()
        for net in lab.models.MODELS
        if found.passes <= EXPENSIVE or net == "mlp"
    ],
)
def test_scores_of_the_networks_of_the_course(criterion, name, dtype):
    model, batch = network(name, dtype)
    before = state(model)
    reason = refusal(SCORES[criterion].function, model, batch)
    if reason:
        assert SCORES[criterion].chains
        assert any(type(layer).__name__ in reason for layer in model)
        return
    scores = SCORES[criterion].function(model, batch)
    check_scores(scores, model)
    unchanged(model, before)
    again = SCORES[criterion].function(model, batch)
    assert all(torch.equal(again[n], s) for n, s in scores.items())
    for sparsity in SPARSITIES:
        kept = masks.keep_top(scores, sparsity)
        check_pruned(("score", criterion), model, masks.apply(model, kept), kept, sparsity)
        stay = torch.cat([scores[n][m] for n, m in kept.items()])
        go = torch.cat([scores[n][~m] for n, m in kept.items()])
        assert not len(stay) or not len(go) or stay.min() >= go.max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", list(lab.models.MODELS))
@pytest.mark.parametrize("criterion", PRUNES)
def test_pruning_the_networks_of_the_course(criterion, name, dtype):
    model, batch = network(name, dtype)
    before = state(model)
    n = sum(w.numel() for w in masks.prunable(model).values())
    limit = PRUNES[criterion].limit
    if limit is not None and n > limit:
        with pytest.raises(ValueError, match=f"{n} .*GB.* at most {limit}"):
            PRUNES[criterion].function(model, batch, 0.5)
        return
    for sparsity in SPARSITIES if name == "mlp" else (0.9,):
        pruned, kept = PRUNES[criterion].function(model, batch, sparsity)
        check_pruned(("prune", criterion), model, pruned, kept, sparsity)
    unchanged(model, before)


def small(dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=dtype)
    x = torch.randn(30, 4, generator=generator, dtype=dtype)
    return net.to(dtype), (x, torch.arange(30) % 3)


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_small_network_at_every_sparsity(criterion, dtype):
    model, batch = small(dtype)
    for sparsity in (*SPARSITIES, 0.5, 1 / 35):
        pruned, kept = both(criterion, model, batch, sparsity)
        check_pruned(criterion, model, pruned, kept, sparsity)
        twice, kept_twice = both(criterion, model, batch, sparsity)
        assert all(torch.equal(kept_twice[n], m) for n, m in kept.items())
        assert all(
            torch.equal(a, b) for a, b in zip(twice.parameters(), pruned.parameters(), strict=True)
        )


@pytest.mark.parametrize("criterion", PRUNES)
def test_old_zeros_stay_zero_and_count(criterion):
    model, batch = small()
    first = masks.keep_top(masks.prunable(model), 0.4, "layer")
    start = masks.apply(model, first)
    pruned, kept = PRUNES[criterion].function(start, batch, 0.6)
    assert all(bool((kept[n] <= m).all()) for n, m in first.items())
    check_pruned(("prune", criterion), start, pruned, kept, 0.6)
    fewer, kept = PRUNES[criterion].function(start, batch, 0.2)  # less than is gone already
    for name, w in masks.prunable(start).items():
        assert torch.equal(fewer.get_parameter(name) == 0, w == 0)
    assert sum(int((~m).sum()) for m in kept.values()) == asked(("prune", criterion), [20, 15], 0.2)


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
    check_pruned(criterion, dead, pruned, kept, 0.5)


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
    if entry(criterion).chains:
        with pytest.raises(ValueError, match="Unused is not covered"):
            both(criterion, model, batch)
        return
    pruned, kept = both(criterion, model, batch)
    check_pruned(criterion, model, pruned, kept, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_nan_and_infinity_are_refused_by_name(criterion, value):
    model, (x, y) = small()
    if criterion in WITH_DATA:
        bad = x.clone()
        bad[3, 1] = value
        with pytest.raises(ValueError, match="the batch's x has 1 NaN or infinite"):
            both(criterion, model, (bad, y))
    model[2].weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"parameter '2.weight' has 1 NaN or infinite"):
        both(criterion, model, (x, y))


@pytest.mark.parametrize("criterion", WITH_DATA, ids=" ".join)
def test_an_empty_batch_is_refused(criterion):
    model, (x, y) = small()
    with pytest.raises(ValueError, match="at least 1"):
        both(criterion, model, (x[:0], y[:0]))
    with pytest.raises(TypeError, match=r"^the batch must be a tuple \(x, y\), got"):
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
        PRUNES[criterion].function(model, batch, sparsity)


@pytest.mark.parametrize("criterion", WITH_DATA, ids=" ".join)
def test_data_of_another_precision_is_refused(criterion):
    model, (x, y) = small()
    with pytest.raises(TypeError, match=r"the data is torch.float32 but parameter '0.weight'"):
        both(criterion, model, (x.float(), y))


@pytest.mark.parametrize("criterion", [c for c in ALL if entry(c).chains], ids=" ".join)
@pytest.mark.parametrize("name", ["mlp", "lenet_300_100", "lenet5", "vgg_like"])
def test_the_first_networks_of_the_course_are_covered(criterion, name):
    model, batch = network(name, torch.float64)
    both(criterion, model, batch)


# The registry --------------------------------------------------------------------------------------


def test_the_criteria_of_the_lessons_are_registered():
    assert set(SCORES) >= {
        *("magnitude", "random", "LAMP"),
        *("OBD", "OBD, row sums", "OBD, Hutchinson", "OBD, recursion"),
        *("empirical Fisher", "true Fisher", "sampled Fisher"),
        *("T1", "T2", "T2, absolute", "SD", "MEAN + SD"),
    }
    assert set(PRUNES) >= {
        *("magnitude without scores", "OBD", "Fisher blocks", "Fisher blocks, 2 steps"),
        *("OBS", "OBS by layers", "OBS by layers, each", "OBS in one pass"),
    }


@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_every_entry_says_what_it_costs_needs_and_where_it_is_from(criterion):
    found = entry(criterion)
    assert found.name == criterion[1]
    assert set(found.needs) <= set(criteria.NEEDS)
    assert "data" in found.needs or not found.needs  # labels and curvature are of data
    assert math.isfinite(found.passes)
    assert (found.passes > 0) == ("data" in found.needs)  # who looks at data passes over it
    assert found.source.strip()
    assert found.scope in ("global", "layer")


def outcome(criterion, model, batch):
    """All numbers that a criterion gives, in a row: its scores, or the weights that it leaves."""
    if criterion[0] == "prune":
        nets = [both(criterion, model, batch, sparsity)[0] for sparsity in (0.3, 0.5, 0.8)]
        values = [p for net in nets for p in net.parameters()]
    else:
        values = list(entry(criterion).function(model, batch).values())
    return torch.cat([value.detach().reshape(-1) for value in values])


@pytest.mark.parametrize("need", ["data", "labels"])
@pytest.mark.parametrize("criterion", ALL, ids=" ".join)
def test_what_a_criterion_needs_is_true(criterion, need):
    """Other labels change what needs labels and nothing else; so does other data."""
    model, (x, y) = small()
    other = {"data": (x.flip(1) + 1, y), "labels": (x, (y + 1) % 3)}[need]
    same = torch.equal(outcome(criterion, model, (x, y)), outcome(criterion, model, other))
    assert same == (need not in entry(criterion).needs)


@pytest.mark.parametrize("name", [name for name, found in SCORES.items() if not found.needs])
def test_a_criterion_without_data_needs_no_batch(name):
    model, batch = small()
    alone, given = SCORES[name].function(model), SCORES[name].function(model, batch)
    assert all(torch.equal(alone[key], scores) for key, scores in given.items())


@pytest.fixture
def registry(monkeypatch):
    """The registry as it is; what enters leaves it after the test."""
    for table in (SCORES, PRUNES):
        known = dict(table)
        monkeypatch.setattr(criteria, "SCORES" if table is SCORES else "PRUNES", known)
    return criteria


def own(model, batch, loss=cross_entropy):
    return {name: -w.detach().abs() for name, w in masks.prunable(model).items()}


def test_a_learners_own_criterion_enters_with_one_line(registry):
    assert registry.criterion("largest go", passes=0, source="this course")(own) is own
    found = registry.SCORES["largest go"]
    assert found == ("largest go", own, 0, (), "this course", False, "global", None)
    model, batch = small()
    check_scores(found.function(model, batch), model)
    registry.criterion("largest go", passes=1, needs=("data",), source="again")(own)  # a cell twice
    assert registry.SCORES["largest go"].passes == 1
    assert list(registry.SCORES)[:-1] == list(SCORES)


def test_a_name_belongs_to_one_function(registry):
    registry.criterion("mine", passes=0, source="this course")(own)
    registry.pruner("mine", passes=0, source="this course")(both)  # a table of its own
    with pytest.raises(ValueError, match=r"there is a criterion 'mine' already: .*\.own"):
        registry.criterion("mine", passes=0, source="this course")(small)
    assert registry.SCORES["mine"].function is own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"needs": ("data", "luck")}, "needs must be of .*, got 'luck'"),
        ({"passes": -1}, "passes must be a finite number of 0 or more, got -1"),
        ({"passes": math.inf}, "passes must be"),
    ],
)
def test_a_bad_entry_is_refused(given, message, registry):
    with pytest.raises(ValueError, match=message):
        registry.criterion("bad", **{"passes": 1, "source": "this course"} | given)(own)
    assert "bad" not in registry.SCORES
