"""What does a coarser granularity cost? ``python -m teachkit.experiments.granularities``.

Writes data/experiments/granularities.jsonl; about five minutes on one core. A run that is
interrupted goes on.
"""

from functools import partial

from teachkit import experiments, magnitude, masks, structured
from teachkit.experiments.networks import retrained, trained
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row

GRID: experiments.Grid = {
    "granularity": ["connection", "2:4", "block", "kernel", "position", "filter", "channel"],
    "seed": [0, 1, 2, 3, 4],
}
LAYERS = ("3.weight", "7.weight", "10.weight")  # the convolutions but the first
network = partial(trained, models.vgg_like, epochs=5)


def cell(granularity: str, seed: int) -> Row:
    """Half of the groups of each convolution but the first go, lowest mean |w| first.

    Test accuracy before, right after, and after two epochs of fine-tuning with the masks held.
    """
    net, test = network(seed), data.digits().test
    scores = {name: s for name, s in magnitude.scores(net).items() if name in LAYERS}
    kept = structured.group_masks(scores, 0.5, granularity)
    return {
        "left": sum(int(mask.sum()) for mask in kept.values()),
        "dense": accuracy(net, test),
        "pruned": accuracy(masks.apply(net, kept), test),
        "tuned": retrained(net, seed, kept, epochs=2),
    }


TABLES: experiments.Tables = {"granularities": (cell, GRID)}

if __name__ == "__main__":
    experiments.write(TABLES)
