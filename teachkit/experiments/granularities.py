"""What does a coarser granularity cost? ``python -m teachkit.experiments.granularities``.

Writes data/experiments/granularities.jsonl; about five minutes on one core. A run that is
interrupted goes on.
"""

from functools import cache
from typing import Any

from torch import nn

from teachkit import experiments, magnitude, masks, structured
from teachkit.lab import data, models
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import fit

GRID: dict[str, list[Any]] = {
    "granularity": ["connection", "2:4", "block", "kernel", "position", "filter", "channel"],
    "seed": [0, 1, 2, 3, 4],
}
LAYERS = ("3.weight", "7.weight", "10.weight")  # the convolutions but the first


@cache
def trained(seed: int) -> nn.Module:
    """The small VGG after five epochs on the digits."""
    start = models.vgg_like(seed=seed)
    return fit(start, data.digits().train, epochs=5, seed=seed, progress=False)[0]


def cell(granularity: str, seed: int) -> dict[str, Any]:
    """Half of the groups of each convolution but the first go, lowest mean |w| first.

    Test accuracy before, right after, and after two epochs of fine-tuning with the masks held.
    """
    net, (train, test) = trained(seed), data.digits()
    scores = {name: s for name, s in magnitude.scores(net).items() if name in LAYERS}
    kept = structured.group_masks(scores, 0.5, granularity)
    cut = masks.apply(net, kept)
    tuned, _ = fit(cut, train, epochs=2, masks=kept, seed=100 + seed, progress=False)
    return {
        "left": sum(int(mask.sum()) for mask in kept.values()),
        "dense": evaluate(net, test).accuracy,
        "pruned": evaluate(cut, test).accuracy,
        "tuned": evaluate(tuned, test).accuracy,
    }


def main() -> None:
    """Run the grid and write its table."""
    experiments.write({"granularities": (cell, GRID)})


if __name__ == "__main__":
    main()
