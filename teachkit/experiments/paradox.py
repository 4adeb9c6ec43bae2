"""The random-baseline paradox: which criteria lose to random, on which networks, and why.

``python -m teachkit.experiments.paradox`` writes four tables into data/experiments; about
fifteen minutes on one core. A run that is interrupted goes on. With TEACHKIT_DATA set to a folder
that holds MNIST it writes a fifth, for LeNet-300-100; float32, so that its last digits depend on
the processor.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, obd, paradox
from teachkit.core import bars
from teachkit.core.types import Batch, Scores
from teachkit.experiments.networks import NETS, chain, lenet, trained
from teachkit.lab import data, models
from teachkit.lab.curves import accuracy_curve
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
DRAWS = 20
BOOKED = ("promised", "cross", "actual")
SEEDS = list(range(8))
MAIN: experiments.Grid = {"net": list(NETS), "seed": SEEDS}
SAMPLES: experiments.Grid = {
    "net": ["A", "D"],
    "samples": ["1400 train", "200 train", "200 held out"],
    "seed": SEEDS,
}
STEPS: experiments.Grid = {"steps": [1, 10, 100, 1000], "seed": SEEDS[:5]}
WIDTHS: experiments.Grid = {"width": [16, 32, 64, 128, 256], "seed": SEEDS}
MNIST: experiments.Grid = {"estimate": ["10000 train", "1000 held out"], "seed": SEEDS[:5]}
CRITERIA: dict[str, Callable[[nn.Module, Batch], Scores]] = {
    "magnitude": lambda model, batch: magnitude.scores(model),
    "T1": paradox.first_order,
    "T2": paradox.second_order,
    "|T2|": paradox.absolute,
    "OBD": obd.scores,
    "SD": paradox.spread,
    "MEAN + SD": paradox.mean_plus_spread,
    "MEAN + 0.1 SD": partial(paradox.mean_plus_spread, weight=0.1),
    "row sums": obd.row_sum_scores,
    "leave-one-out": paradox.leave_one_out,
}
QUICK = [name for name in CRITERIA if name != "leave-one-out"]


def mean_accuracy(
    model: nn.Module, scores: Scores, test: Batch, sparsities: Sequence[float] = SPARSITIES
) -> float:
    """Test accuracy averaged over the sparsities, one-shot, ranked over all layers."""
    return sum(accuracy_curve(model, scores, test, sparsities)) / len(sparsities)


def chance(model: nn.Module, seed: int) -> Iterator[Scores]:
    """20 random rankings, from a generator of their own."""
    dice = torch.Generator().manual_seed(5000 + seed)
    return (magnitude.random_scores(model, dice) for _ in range(DRAWS))


def random_accuracy(
    model: nn.Module, seed: int, test: Batch, sparsities: Sequence[float] = SPARSITIES
) -> float:
    """The mean of 20 random rankings."""
    shown = bars.bar(list(chance(model, seed)), "random rankings")
    return sum(mean_accuracy(model, scores, test, sparsities) for scores in shown) / DRAWS


def against_random(
    names: Iterable[str], model: nn.Module, seed: int, samples: Batch, test: Batch
) -> Row:
    """The mean accuracy of random rankings, and of these criteria estimated on some samples."""
    measured = {name: mean_accuracy(model, CRITERIA[name](model, samples), test) for name in names}
    return {"random": random_accuracy(model, seed, test), **measured}


def main_table(net: str, seed: int) -> Row:
    """Every criterion on one network, from all training data."""
    model, (train, test) = chain(net, seed), data.digits()
    rows = against_random(CRITERIA if net == "A" else QUICK, model, seed, train, test)
    return {"dense": accuracy(model, test), **rows}


def samples_table(net: str, samples: str, seed: int) -> Row:
    """The criteria estimated on other samples; accuracy on the 197 test images never used.

    And what 5 % by T2 are promised to do and do, on the samples of the estimate and on those 197.
    """
    train, test = data.digits()
    x, y = test if samples.endswith("held out") else train
    n = int(samples.split()[0])
    own, rest, model = (x[:n], y[:n]), (test[0][200:], test[1][200:]), chain(net, seed)
    kept = masks.keep_top(paradox.second_order(model, own), 0.05)
    books = {"own": paradox.account(model, own, kept), "other": paradox.account(model, rest, kept)}
    told = {f"{how}, {which}": getattr(b, how) for which, b in books.items() for how in BOOKED}
    return against_random(("T2", "OBD", "SD"), model, seed, own, rest) | told


def steps_table(steps: int, seed: int) -> Row:
    """Net A, 30 % removed by T2 in equal steps, with new scores before each."""
    train, test = data.digits()
    *_, (pruned, _) = paradox.stepwise(chain("A", seed), train, 0.3, steps)
    return {"accuracy": accuracy(pruned, test)}


def widths_table(width: int, seed: int) -> Row:
    """Networks of other widths, the second hidden layer half as wide as the first; 10 % removed."""
    train, test = data.digits()
    model = trained(partial(models.mlp, hidden=(width, width // 2)), seed)
    scores, dice = paradox.second_order(model, train), torch.Generator().manual_seed(6000 + seed)
    draws = [magnitude.random_scores(model, dice) for _ in range(DRAWS)]
    costs = [paradox.joint_cost(model, train, masks.keep_top(s, 0.1)) for s in (scores, *draws)]
    return {
        "random": random_accuracy(model, seed, test, [0.1]),
        "T2": mean_accuracy(model, scores, test, [0.1]),
        "joint T2": costs[0],
        "joint random": sum(costs[1:]) / DRAWS,
    }


def mnist_table(estimate: str, seed: int) -> Row:
    """LeNet-300-100 on MNIST: the main criteria, from 10,000 training images or 1,000 held out."""
    net, (train, test) = lenet(seed), experiments.mnist()
    rest = (test[0][1000:], test[1][1000:])
    x, y, n = (*test, 1000) if estimate == "1000 held out" else (*train, 10000)
    names = ("magnitude", "T1", "T2", "|T2|", "OBD", "SD", "row sums")
    return {"dense": accuracy(net, rest)} | against_random(names, net, seed, (x[:n], y[:n]), rest)


TABLES: experiments.Tables = {
    "paradox": (main_table, MAIN),
    "paradox_samples": (samples_table, SAMPLES),
    "paradox_widths": (widths_table, WIDTHS),
    "paradox_steps": (steps_table, STEPS),
}

if __name__ == "__main__":
    experiments.main(TABLES, {"paradox_mnist": (mnist_table, MNIST)})
