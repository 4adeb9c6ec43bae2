"""Rounding with and without GPTQ elsewhere: on convolutions, and on the small language model.

``python -m teachkit.experiments.compression_nets`` writes two tables into data/experiments; three minutes on
one core, and a quarter of an hour more for the two language models of other seeds, which are trained
first and kept. A run that is interrupted goes on.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

from teachkit import compression, experiments
from teachkit.experiments import scale
from teachkit.experiments.characters import network
from teachkit.experiments.compression import BITS, rounded
from teachkit.lab import data, models
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

EPOCHS = 10
CONV: experiments.Grid = {"seed": [0, 1, 2, 3, 4], "bits": BITS}
TEXT: experiments.Grid = {"seed": scale.SEEDS, "bits": BITS}
WAYS = ["nearest", "nearest, clipped", "GPTQ"]


@cache
def lenet5(seed: int) -> nn.Module:
    """LeNet-5 on the digits."""
    digits = data.digits()
    start = models.lenet5(tuple(digits.train[0].shape[1:]), seed=seed)
    return fit(start, digits.train, epochs=EPOCHS, seed=seed, progress=False)[0]


def conv_cell(seed: int, bits: int) -> Row:
    """Each filter with a scale of its own; GPTQ looks at 1000 of the 1400 digits."""
    return rounded(lenet5(seed), data.digits(), 1000 + seed, bits, "channel")


@cache
def text_dense(seed: int) -> float:
    """The loss of a language model as it is."""
    return float(scale.judged(network(seed))["loss"])


def text_cell(seed: int, bits: int) -> Row:
    """The loss of the next character; GPTQ looks at the windows that ``scale`` calibrates on."""
    net, x = network(seed), scale.calibration(seed)
    row: Row = {"dense": text_dense(seed)}
    for way in WAYS:
        batch = (x, torch.zeros(len(x), dtype=torch.long)) if way == "GPTQ" else None
        clip: Any = "best" if way.endswith("clipped") else 1.0
        made, _ = compression.round_layers(net, bits, batch, clip=clip)
        row[way] = scale.judged(made)["loss"]
    return row


TABLES: experiments.Tables = {
    "compression_rounding_conv": (conv_cell, CONV),
    "compression_rounding_text": (text_cell, TEXT),
}

if __name__ == "__main__":
    experiments.write(TABLES)
