"""Which rule for the layers, when the net is retrained? ``python -m teachkit.experiments.densities``.

Writes data/experiments/densities.jsonl; about five minutes on one core. A run that is interrupted
goes on.
"""

from functools import partial

import torch

from teachkit import experiments, magnitude
from teachkit.experiments.networks import retrained, trained
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row

GRID: experiments.Grid = {
    "rule": ["global", *magnitude.RULES],
    "sparsity": [0.9, 0.95, 0.97, 0.98],
    "seed": [0, 1, 2, 3, 4],
}
Adam = partial(torch.optim.Adam, lr=3e-3, weight_decay=1e-4)
network = partial(trained, models.vgg_like, epochs=5, optimizer=Adam)


def cell(rule: str, sparsity: float, seed: int) -> Row:
    """Prune once by magnitude, each layer as the rule says, and train what is left for eight epochs."""
    net = network(seed)
    kept = magnitude.keep_by_rule(net, sparsity, rule)
    return {
        "smallest": min(int(mask.sum()) for mask in kept.values()),
        "dense": accuracy(net, data.digits().test),
        "retrained": retrained(net, seed, kept, epochs=8, optimizer=Adam),
    }


TABLES: experiments.Tables = {"densities": (cell, GRID)}

if __name__ == "__main__":
    experiments.write(TABLES)
