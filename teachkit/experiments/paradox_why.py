"""What a set of removals does to the network, what takes it back, and what tells it beforehand.

``python -m teachkit.experiments.paradox_why`` writes its tables into data/experiments; about half an
hour on one core, and with TEACHKIT_DATA set to a folder that holds MNIST as long again for MNIST. A
run that is interrupted goes on.
"""

from collections.abc import Sequence
from itertools import islice
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import experiments, magnitude, masks, obd, paradox, taylor
from teachkit.core.types import Batch, Masks, Params, Scores
from teachkit.engine.shifts import mean_step
from teachkit.experiments import settings
from teachkit.experiments.paradox import CRITERIA, DRAWS, SPARSITIES, chance
from teachkit.lab.evaluation import accuracy, evaluate
from teachkit.lab.sweep import Row

SEEDS = list(range(8))
FEW = SEEDS[:5]
CHOICES = ["T1", "T2", "row sums", "magnitude", "OBD"]
REPAIRS = {"": None, " + means": False, " + means and spreads": True}
FIVE = 5  # random sets a network where a product with the Hessian is taken of each
SEEN = 2000  # samples of MNIST, to estimate with, to repair with and to test on: no more is needed
NETS: experiments.Grid = {"net": [*settings.KNOWN, *settings.DIGITS, "1D"], "seed": SEEDS}
UNSEEN = {"digits": settings.DIGITS | settings.EPOCHS | settings.KINDS}
UNSEEN |= {"convolutions": settings.CONVOLUTIONS, "MNIST-1D": settings.SIGNALS}
LAW: experiments.Grid = {"net": [n for kinds in UNSEEN.values() for n in kinds], "seed": FEW}
TESTS: experiments.Grid = {"net": [*settings.KNOWN, "A, centred", "1D"], "seed": SEEDS}
KNOWN: experiments.Grid = {"net": list(settings.KNOWN), "seed": SEEDS}


def given(net: str, seed: int) -> tuple[nn.Module, Batch, Batch]:
    """A network, its training samples and its test samples, of MNIST the first 2000 of each."""
    (x, y), (x_test, y_test) = settings.samples(net)
    few = SEEN if settings.SETTINGS[net].data == "MNIST" else None
    return settings.network(net, seed), (x[:few], y[:few]), (x_test[:few], y_test[:few])


def repaired(
    model: nn.Module, scores: Scores, x: Tensor, test: Batch, sparsities: Sequence[float]
) -> list[float]:
    """Test accuracy, averaged over the sparsities, after each of ``REPAIRS``."""
    reached = []
    for spread in REPAIRS.values():
        nets = [masks.apply(model, masks.keep_top(scores, s)) for s in sparsities]
        if spread is not None:
            nets = [paradox.repair(model, net, x, spread=spread) for net in nets]
        reached.append(fmean(accuracy(net, test) for net in nets))
    return reached


def repairs_cell(net: str, seed: int) -> Row:
    """Each criterion without repair, with each unit's mean restored, and with its spread as well."""
    model, train, test = given(net, seed)
    row: Row = {"dense": accuracy(model, test)}
    draws = [repaired(model, s, train[0], test, SPARSITIES) for s in chance(model, seed)]
    found = {"random": np.mean(draws, axis=0).tolist()}
    for name in CHOICES:
        found[name] = repaired(model, CRITERIA[name](model, train), train[0], test, SPARSITIES)
    for name, reached in found.items():
        row |= {name + how: value for how, value in zip(REPAIRS, reached, strict=True)}
    return row


def removed(
    model: nn.Module, train: Batch, seed: int, sparsity: float, draws: int
) -> dict[str, list[Masks]]:
    """What T2 removes, random sets, and random sets of weights as large as T2's."""
    chosen = masks.keep_top(paradox.second_order(model, train), sparsity)
    dice, sizes = torch.Generator().manual_seed(7000 + seed), magnitude.scores(model)
    return {
        "T2": [chosen],
        "random": [masks.keep_top(s, sparsity) for s in islice(chance(model, seed), draws)],
        "as large": [paradox.matched(chosen, sizes, dice) for _ in range(draws)],
    }


def split_of(model: nn.Module, train: Batch, test: Batch, kept: Masks, own: Scores) -> Row:
    """What one set does: the parts of its joint change, the loss and the accuracy, and the repair.

    ``own`` are the saliencies of the single weights.
    """
    x, cut, it = train[0], masks.apply(model, kept), paradox.split(model, train, kept)
    summed = paradox.sum_per_sample(model, train, kept)
    before, mended = evaluate(model, train).loss, paradox.repair(model, cut, x)
    shift = (cut(x) - model(x)).detach()
    return {
        **it._asdict(),
        "cross": sum(it) - sum(float(own[name][~mask].sum()) for name, mask in kept.items()),
        "by the mean": 0.5 * float(summed.mean()) ** 2,
        "by the spread": 0.5 * float(summed.var(correction=0)),
        "rise": evaluate(cut, train).loss - before,
        "rise, repaired": evaluate(mended, train).loss - before,
        "accuracy": accuracy(cut, test),
        "accuracy, repaired": accuracy(mended, test),
        "agreement": paradox.agreement(model, x, kept),
        "shift": float(shift.mean(0).norm()),
        "shift's spread": float(shift.var(0, correction=0).sum().sqrt()),
        "largest class": float(cut(x).argmax(1).bincount().max()) / len(x),
    }


def parts_cell(net: str, seed: int) -> Row:
    """5 % removed by T2, at random, and at random among weights as large (5 draws): what the sets do."""
    model, train, test = given(net, seed)
    row: Row = {}
    own = obd.scores(model, train)
    for name, sets in removed(model, train, seed, 0.05, FIVE).items():
        each = [split_of(model, train, test, kept, own) for kept in sets]
        row |= {f"{name}: {key}": fmean(one[key] for one in each) for key in each[0]}
    return row


def law_cell(net: str, seed: int) -> Row:
    """Numbers known before pruning 10 %, of T2's choice and of 20 random ones; and what then happens."""
    model, train, test = given(net, seed)
    sets = removed(model, train, seed, 0.1, DRAWS)
    chosen, draws = sets["T2"][0], sets["random"]
    book = paradox.account(model, train, chosen)
    g = taylor.gradient(model, train)
    by_t2, by_chance = (
        fmean(accuracy(masks.apply(model, kept), test) for kept in some)
        for some in ([chosen], draws)
    )
    return {
        "T2": by_t2,
        "random": by_chance,
        "joint T2": paradox.joint_cost(model, train, chosen),
        "joint random": fmean(paradox.joint_cost(model, train, kept) for kept in draws),
        "gradient": float(torch.cat([g[n].flatten() for n in chosen]).norm()),
        "coherence": paradox.coherence(model, train, chosen),
        "agreement": paradox.agreement(model, train[0], chosen),
        "promised": book.promised,
        "cross": book.cross,
        "push T2": _push(model, train[0], chosen),
        "push random": fmean(_push(model, train[0], kept) for kept in draws),
    }


def _push(model: nn.Module, x: Tensor, kept: Masks) -> float:
    """The length of the mean push on the outputs."""
    return float(paradox.pushes(model, x, kept).mean(0).norm())


def growth_cell(net: str, seed: int) -> Row:
    """How the mean push on the outputs and the joint cost grow with the number m of weights: exponents.

    m runs from 16 to 5 % in seven steps, taken at random out of T2's 5 %, at random out of all, and at
    random among weights as large as T2's; the exponent is the slope of a straight line, log on log,
    through the means of 5 draws.
    """
    model, train, _ = given(net, seed)
    sets = removed(model, train, seed, 0.05, FIVE)
    dice = torch.Generator().manual_seed(9000 + seed)
    most = sum(int((~mask).sum()) for mask in sets["T2"][0].values())
    counts = np.unique(np.geomspace(16, most, 7).round().astype(int))
    row: Row = {}
    for name, some in sets.items():
        drawn = [some[draw % len(some)] for draw in range(FIVE)]
        pushed = np.array(
            [[_two(model, train, paradox.part(kept, m, dice)) for m in counts] for kept in drawn]
        )
        for key, means in zip(("push", "joint"), pushed.mean(0).T, strict=True):
            row[f"{name}: {key}"] = float(np.polyfit(np.log(counts), np.log(means), 1)[0])
    return row


def _two(model: nn.Module, train: Batch, kept: Masks) -> tuple[float, float]:
    return _push(model, train[0], kept), paradox.joint_cost(model, train, kept)


def tests_cell(net: str, seed: int) -> Row:
    """Direct tests of the explanation, at 5 %: accuracy after each half of T2's step, and of directed sets.

    "mean alone": the network as it was, only its biases moved by the mean shift. "rest alone": T2's
    removals, with that shift taken off the biases. Directed sets are random weights, as many in each
    layer as T2's, 5 draws each: all pushing their units T2's way, or all the other way, or each unit
    the way of a random set. "bias sign": the share of the weights whose gradient has the sign of the
    gradient of their unit's bias; "downhill": the share of the units that the mean shift moves against
    the gradient of their bias.
    """
    model, train, test = given(net, seed)
    kept = removed(model, train, seed, 0.05, FIVE)["T2"][0]
    x, dice = train[0], torch.Generator().manual_seed(8000 + seed)
    shift = mean_step(model, x, masks.change(model, kept))
    ways = {
        "one way": [paradox.directed(model, x, kept, 1.0, dice) for _ in range(FIVE)],
        "other way": [paradox.directed(model, x, kept, 0.0, dice) for _ in range(FIVE)],
        "own ways": [
            paradox.directed(model, x, paradox.matched(kept, _alike(kept), dice), 1.0, dice)
            for _ in range(FIVE)
        ],
    }
    return {
        "T2": accuracy(masks.apply(model, kept), test),
        "mean alone": accuracy(_moved(model, shift, 1), test),
        "rest alone": accuracy(_moved(masks.apply(model, kept), shift, -1), test),
        "bias sign": _bias_signs(model, train),
        "downhill": _downhill(shift, taylor.gradient(model, train)),
    } | {
        name: fmean(accuracy(masks.apply(model, each), test) for each in sets)
        for name, sets in ways.items()
    }


def _alike(kept: Masks) -> Scores:
    """A key that tells no weight from another."""
    return {name: torch.zeros(mask.shape) for name, mask in kept.items()}


def _moved(model: nn.Module, shift: Params, sign: int) -> nn.Module:
    moved = masks.apply(model, {})
    with torch.no_grad():
        for name, step in shift.items():
            moved.get_parameter(name).add_(step, alpha=sign)
    return moved


def _downhill(shift: Params, gradient: Params) -> float:
    moved = torch.cat([-step * gradient[name] for name, step in shift.items()])
    return float((moved > 0)[moved != 0].double().mean())


def _bias_signs(model: nn.Module, train: Batch) -> float:
    g = taylor.gradient(model, train)
    same = []
    for name in masks.prunable(model):
        slope = g[name].flatten(1)
        bias = g[name.removesuffix("weight") + "bias"][:, None]
        same.append((slope * bias > 0)[slope != 0])
    return float(torch.cat(same).double().mean())


TABLES: experiments.Tables = {
    "paradox_repairs": (repairs_cell, NETS),
    "paradox_parts": (parts_cell, NETS),
    "paradox_growth": (growth_cell, KNOWN),
    "paradox_tests": (tests_cell, TESTS),
    "paradox_known": (law_cell, KNOWN),
    "paradox_law": (law_cell, LAW),
}
ON_MNIST: experiments.Tables = {
    "paradox_law_mnist": (law_cell, {"net": list(settings.MNIST), "seed": FEW}),
    "paradox_repairs_mnist": (repairs_cell, {"net": ["MNIST"], "seed": SEEDS}),
    "paradox_parts_mnist": (parts_cell, {"net": ["MNIST"], "seed": SEEDS}),
}

if __name__ == "__main__":
    experiments.main(TABLES, ON_MNIST)
