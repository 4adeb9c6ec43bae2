"""Which rule for the layers, when the net is retrained? ``python -m teachkit.experiments.densities``.

Writes data/experiments/densities.jsonl; about five minutes on one core. A run that is interrupted
goes on.
"""

from functools import cache, partial
from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, masks
from teachkit.lab import data, models
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import fit

GRID: dict[str, list[Any]] = {
    "rule": ["global", *magnitude.RULES],
    "sparsity": [0.9, 0.95, 0.97, 0.98],
    "seed": [0, 1, 2, 3, 4],
}
Adam = partial(torch.optim.Adam, lr=3e-3, weight_decay=1e-4)


@cache
def trained(seed: int) -> nn.Module:
    """The small VGG after five epochs on the digits."""
    start = models.vgg_like(seed=seed)
    return fit(start, data.digits().train, epochs=5, optimizer=Adam, seed=seed, progress=False)[0]


def cell(rule: str, sparsity: float, seed: int) -> dict[str, Any]:
    """Prune once by magnitude, each layer as the rule says, and train what is left for eight epochs."""
    net, (train, test) = trained(seed), data.digits()
    kept = magnitude.keep_by_rule(net, sparsity, rule)
    again, _ = fit(
        masks.apply(net, kept),
        train,
        epochs=8,
        optimizer=Adam,
        masks=kept,
        seed=100 + seed,
        progress=False,
    )
    return {
        "smallest": min(int(mask.sum()) for mask in kept.values()),
        "dense": evaluate(net, test).accuracy,
        "retrained": evaluate(again, test).accuracy,
    }


def main() -> None:
    """Run the grid and write its table."""
    experiments.write({"densities": (cell, GRID)})


if __name__ == "__main__":
    main()
