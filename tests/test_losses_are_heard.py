"""Every function that takes a loss works with it: another loss, another result."""

import importlib
import inspect

import pytest
import torch
from drawers import normal
from house import LESSONS
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from teachkit import masks
from teachkit.core import criteria

# Taken by the signature of a criterion; what is kept or returned has to do with no loss.
DEAF = {
    "engine.grams.wanda_scores",
    "lab.curves.accuracy_curve",
    "magnitude.scores",
    "magnitude.lamp_scores",
    "magnitude.prune",
    "magnitude.random",
    "neurons.magnitude",
}
GIVEN = {"t", "weights", "accuracy"}  # fields
TRIED = {  # elsewhere
    "engine.games.game",  # by its twin, with a layer and masks of its own
    "core.objective.refuse_sum_of",  # gives nothing; what it refuses has a test of its own
}
OPTIONS = {
    "neurons.scores": {"method": "taylor"},
    "neurons.prune": {"method": "taylor"},
    "structured.unit_scores": {"method": "taylor"},
}


def functions():
    """The public functions with a loss that the lessons have or import, by their place."""
    made = {}
    for lesson in LESSONS:
        try:
            module = importlib.import_module(f"teachkit.{lesson}")
        except ModuleNotFoundError:  # lesson 00 has no module
            continue
        for name, one in vars(module).items():
            if (
                inspect.isfunction(one)
                and one.__module__.startswith("teachkit.")
                and name[0] != "_"
            ):
                place = f"{one.__module__.removeprefix('teachkit.')}.{one.__name__}"
                taken = inspect.signature(one).parameters
                if {"model", "batch", "loss"} <= set(taken) and place not in TRIED:
                    made[place] = one
    return made


FUNCTIONS = functions()


def drawn():
    """A network of 15 weights, and a batch with targets that both losses take."""
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=i)
    return net, (normal(7, 2, seed=9), (torch.arange(7.0) % 2)[:, None])


def arguments(function):
    """What the function asks for, by the names of its parameters."""
    net, batch = drawn()
    weights = masks.prunable(net)
    known = {
        "model": net,
        "batch": batch,
        "delta": {name: 0.1 * p.detach() for name, p in net.named_parameters()},
        "kept": masks.keep_top({name: w.detach().abs() for name, w in weights.items()}, 0.5),
        "sparsity": 0.5,
        "k": 3,
        "sigma": 0.5,
        "name": "0.weight",
        "positions": torch.tensor([0, 3, 1]),
        "counts": [1, 3],
        "t": torch.tensor([0.5, 1.0]),
        "scores": {name: w.detach().abs() for name, w in weights.items()},
        "sparsities": [0.2, 0.7],
        "generator": torch.Generator().manual_seed(0),
    }
    asked = inspect.signature(function).parameters.values()
    needed = {p.name for p in asked if p.default is p.empty or p.name == "batch"}
    return {name: known[name] for name in needed - {"method", "labels"}}


def numbers(result):
    """All numbers of a result, of whatever make, in one vector."""
    if isinstance(result, nn.Module):
        return numbers(dict(result.named_parameters()))
    if isinstance(result, dict):
        return numbers(list(result.values()))
    if isinstance(result, (tuple, list)) or inspect.isgenerator(result):
        return torch.cat([torch.zeros(0), *(numbers(part) for part in result)])
    if isinstance(result, str):
        return torch.zeros(0)
    if callable(result):  # core.objective's loss of the parameters
        return numbers(result(dict(drawn()[0].named_parameters())))
    return torch.as_tensor(result).detach().double().reshape(-1)


def parts(result):
    """The numbers of each field by itself where the result has fields; not what was given to it."""
    fields = result._asdict() if hasattr(result, "_fields") else {"": result}
    return [numbers(part) for name, part in fields.items() if name not in GIVEN]


@pytest.mark.parametrize("place", sorted(FUNCTIONS))
def test_the_loss_that_is_given_decides(place):
    function = FUNCTIONS[place]
    one, again, other = (
        parts(function(**arguments(function), **OPTIONS.get(place, {}), loss=loss))
        for loss in (mse_loss, mse_loss, binary_cross_entropy_with_logits)
    )
    for a, b, c in zip(one, again, other, strict=True):
        assert torch.equal(a, b)
        assert not len(a) or torch.equal(a, c) == (place in DEAF)


@pytest.mark.parametrize("name", sorted(criteria.SCORES))
def test_the_loss_that_is_given_decides_about_the_scores(name):
    entry = criteria.SCORES[name]
    net, batch = drawn()
    losses = (mse_loss, binary_cross_entropy_with_logits)
    one, other = (numbers(entry.function(net, batch, loss)) for loss in losses)
    hears = {"labels", "second order"} & set(entry.needs) or "Fisher" in name
    assert torch.equal(one, other) != bool(hears)
