"""Criteria that mind the sum, and the protocol with fine-tuning between the cuts.

``python -m teachkit.experiments.paradox_sum`` writes its tables into data/experiments; about twenty
minutes on one core. A run that is interrupted goes on.
"""

from functools import cache
from statistics import fmean

import torch
from torch import Tensor, nn

from teachkit import experiments, magnitude, masks, obd, obs, paradox
from teachkit.core.types import Batch, Criterion, Data, Loss, Scores
from teachkit.experiments import settings
from teachkit.experiments.paradox import CRITERIA, DRAWS, SPARSITIES, chance
from teachkit.lab.curves import accuracy_curve
from teachkit.lab.evaluation import accuracy
from teachkit.lab.rounds import by_criterion, retrain
from teachkit.lab.sweep import Row

SEEDS = list(range(8))
CUTS = [0.3, 0.5, 0.7, 0.8, 0.9]
STEP = 0.02  # of the weights, before the saliencies of "OBD, in steps" are computed anew
RANKED = ["random", "magnitude", "|T2|", "SD", "OBD", "joint"]
MENDED = ["random", "magnitude", "OBD", "joint"]
SUMS: experiments.Grid = {
    "net": ["A", "D", "F", "width 32"],
    "seed": SEEDS,
    "way": [*RANKED, "OBD, in steps", "OBS, by layers", *(f"{name}, repaired" for name in MENDED)],
}
TOGETHER: experiments.Grid = {"at_once": [1, 2, 4, 8, 65], "seed": SEEDS}
ROUNDS: experiments.Grid = {
    "criterion": ["random", "T1", "T2", "|T2|", "row sums", "magnitude", "OBD", "SD"],
    "seed": SEEDS,
}


def label(sparsity: float) -> str:
    """How a column of these tables is called: the share removed in per cent."""
    return f"{100 * sparsity:.0f} %"


def columns(values: list[float], sparsities: list[float]) -> Row:
    """One column for each sparsity."""
    return {label(s): value for s, value in zip(sparsities, values, strict=True)}


def rankings(name: str, model: nn.Module, train: Batch, seed: int) -> list[Scores]:
    """The scores of a criterion, or 20 random rankings."""
    if name == "random":
        return list(chance(model, seed))
    return [CRITERIA[name](model, train)]


@cache
def by_joint_cost(net: str, seed: int) -> Scores:
    """The order of removal by the joint cost, of all weights."""
    return paradox.joint_scores(settings.network(net, seed), settings.samples(net).train)


def reached(model: nn.Module, scores: Scores, x: Tensor, test: Batch, mended: bool) -> list[float]:
    """Test accuracy at each cut, with means and spreads restored or without."""
    if not mended:
        return accuracy_curve(model, scores, test, CUTS)
    nets = [masks.apply(model, masks.keep_top(scores, s)) for s in CUTS]
    return [accuracy(paradox.repair(model, net, x, spread=True), test) for net in nets]


def sums_cell(net: str, seed: int, way: str) -> Row:
    """Test accuracy at five cuts, nothing trained after; random is the mean of 20 draws."""
    model, (train, test) = settings.network(net, seed), settings.samples(net)
    if way == "OBD, in steps":
        return columns([_in_steps(model, train, test, cut) for cut in CUTS], CUTS)
    if way == "OBS, by layers":
        nets = [obs.prune_layers(model, train, cut)[0] for cut in CUTS]
        return columns([accuracy(cut, test) for cut in nets], CUTS)
    name, mended = way.removesuffix(", repaired"), way.endswith(", repaired")
    draws = [by_joint_cost(net, seed)] if name == "joint" else rankings(name, model, train, seed)
    each = [reached(model, scores, train[0], test, mended) for scores in draws]
    return columns([fmean(at) for at in zip(*each, strict=True)], CUTS)


def _in_steps(model: nn.Module, train: Batch, test: Batch, cut: float) -> float:
    *_, (pruned, _) = paradox.stepwise(model, train, cut, round(cut / STEP), obd.scores)
    return accuracy(pruned, test)


def together_cell(at_once: int, seed: int) -> Row:
    """Net A, 30 % removed by the joint cost, so many weights by the same costs."""
    model, (train, test) = settings.network("A", seed), settings.samples("A")
    scores = paradox.joint_scores(model, train, at_once=at_once)
    return {"accuracy": accuracy_curve(model, scores, test, [0.3])[0]}


def rounds_cell(criterion: str, seed: int) -> Row:
    """Net A: cut to 10, 20, … 90 %, two epochs of training after each cut; accuracy after the training."""
    model, sets = settings.network("A", seed), settings.samples("A")
    draws = range(DRAWS if criterion == "random" else 1)
    each = [_fine_tuned(model, sets, by_name(criterion, seed, draw), seed) for draw in draws]
    return columns([fmean(at) for at in zip(*each, strict=True)], SPARSITIES)


def by_name(name: str, seed: int, draw: int) -> Criterion:
    """A criterion as a rule of rounds; random has a generator of its own."""
    dice = torch.Generator().manual_seed(1000 * (seed + 1) + draw)

    def scores(model: nn.Module, batch: Batch, loss: Loss = nn.functional.cross_entropy) -> Scores:
        return (
            magnitude.random_scores(model, dice)
            if name == "random"
            else CRITERIA[name](model, batch)
        )

    return scores


def _fine_tuned(model: nn.Module, sets: Data, criterion: Criterion, seed: int) -> list[float]:
    rule, options = by_criterion(criterion), {"epochs": 2, "seed": 100 + seed, "progress": False}
    run = retrain(model, sets, rule, SPARSITIES, **options)  # type: ignore[arg-type]
    return [step.retrained for step in run.steps]


TABLES: experiments.Tables = {
    "paradox_sum": (sums_cell, SUMS),
    "paradox_together": (together_cell, TOGETHER),
    "paradox_rounds": (rounds_cell, ROUNDS),
}

if __name__ == "__main__":
    experiments.write(TABLES)
