"""Reproduce Han et al. (2015) on MNIST: ``python -m teachkit.experiments.han [processes]``.

LeNet-300-100 and LeNet-5 are trained, and pruned by the course's recipe; retrained at a tenth of
the rate, as the paper does, or at the full one. The control is the dense network, trained on for
as many epochs. Writes a table for each network, data/experiments/han_*.jsonl; about an hour on two
cores. A run that is interrupted goes on. MNIST is read from the folder in ``TEACHKIT_DATA``, or
downloaded once.
"""

import sys
import time
from functools import partial
from statistics import fmean
from typing import Any

import torch

from teachkit import experiments, magnitude, masks
from teachkit.experiments.networks import annealed
from teachkit.lab import models
from teachkit.lab.curves import Interval, interval
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

# Optimizers, rates and factors were chosen on seeds 7 to 9 with 10,000 of the training images held
# back. The qualities are older, and were found with an eye on the test images.
SETTINGS: dict[str, dict[str, Any]] = {
    "lenet_300_100": {
        "optimizer": "SGD",
        "epochs": 12,
        "rate": 0.1,
        "qualities": [0.5, 0.6, 0.7, 0.8, 0.8, 0.8],
        "factors": {"5.weight": 0.6},
        "retraining_epochs": 6,
    },
    "lenet5": {
        "optimizer": "Adam",
        "epochs": 6,
        "rate": 0.002,
        "qualities": [0.6, 0.7, 0.8, 0.9, 0.9],
        "factors": {"0.weight": 0.4, "3.weight": 0.9, "9.weight": 0.6},
        "retraining_epochs": 4,
    },
}
OPTIMIZERS: dict[str, Any] = {
    "SGD": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}
RETRAINING = {"rate / 10": 0.1, "full rate": 1.0, "dense, full rate": 1.0}
SEEDS = {"lenet_300_100": [0, 1, 2, 3, 4], "lenet5": [0, 1, 2]}


def grid(net: str) -> experiments.Grid:
    """The runs of one network."""
    return {"net": [net], "retraining": list(RETRAINING), "seed": SEEDS[net]}


def run(net: str, retraining: str, seed: int, **changes: Any) -> Row:
    """Train, prune and retrain one network; errors on the test images in percent, by round.

    L2 of 1e-4 and batches of 128; SGD has a momentum of 0.9. The rate falls to zero along a cosine, in the
    training and in each round. The control goes through the same rounds with nothing removed.
    Changes are of the settings, for a quick try.
    """
    start, settings = time.process_time(), SETTINGS[net] | changes
    parts, rate = experiments.mnist(), settings["rate"]
    optimizer = partial(OPTIMIZERS[settings["optimizer"]], weight_decay=1e-4)
    fixed: dict[str, Any] = {"batch_size": 128, "seed": seed, "progress": False}
    first = fixed | annealed(optimizer, rate, settings["epochs"])
    dense, _ = fit(models.MODELS[net](seed=seed).float(), parts.train, **first)
    trained = time.process_time()
    later = annealed(optimizer, rate * RETRAINING[retraining], settings["retraining_epochs"])
    control = retraining.startswith("dense")
    qualities = [0.0 if control else q for q in settings["qualities"]]
    options = fixed | later | {"factors": settings["factors"]}
    _, _, rounds = magnitude.han(dense, parts, qualities, **options)
    return {
        "settings": settings,
        "weights": {name: w.numel() for name, w in masks.prunable(dense).items()},
        "dense": _error(accuracy(dense, parts.test)),
        "kept": [r.kept for r in rounds],
        "pruned": [_error(r.pruned) for r in rounds],
        "retrained": [_error(r.retrained) for r in rounds],
        "minutes": [_minutes(start, trained), _minutes(trained, time.process_time())],
    }


def _error(right: float) -> float:
    return round(100 * (1 - right), 3)


def _minutes(start: float, end: float) -> float:
    return round((end - start) / 60, 2)


def factors(rows: list[Row]) -> list[float]:
    """All weights divided by those kept, by round, a mean over the runs."""
    times = [[sum(r["weights"].values()) / sum(kept.values()) for kept in r["kept"]] for r in rows]
    return [fmean(one) for one in zip(*times, strict=True)]


def changes(rows: list[Row]) -> Interval:
    """The error after retraining less the dense network's, in points, by round, over the runs."""
    return interval([[error - row["dense"] for error in row["retrained"]] for row in rows])


def shares(rows: list[Row], round_: int) -> list[float]:
    """The percentage of each layer that is kept after a round, a mean over the runs."""
    names = rows[0]["weights"]
    return [
        fmean(100 * row["kept"][round_][name] / row["weights"][name] for row in rows)
        for name in names
    ]


if __name__ == "__main__":
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    experiments.write({f"han_{net}": (run, grid(net)) for net in SETTINGS}, workers)
