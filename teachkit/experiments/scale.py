"""The small language model pruned in every way: criterion against update, outliers brought in and taken out.

``python -m teachkit.experiments.scale`` writes seven tables into data/experiments; on one core half an hour,
and a quarter more for the two models of other seeds, which are trained first and kept. A run that is
interrupted goes on.

Calibrated is on 64 windows of 128 characters of the first nine tenths of Tiny Shakespeare, others for
each model; judged on 96 of the rest. ``loss`` is the cross-entropy of the next character, the logarithm
of the perplexity.
"""

from functools import cache
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import experiments, scale
from teachkit.experiments.characters import network
from teachkit.lab import language
from teachkit.lab.stretching import joints
from teachkit.lab.sweep import Row
from teachkit.lab.tokens import Characters, Language
from teachkit.lab.transformers import blocks_by_name

SEEDS = [0, 1, 2]
WAYS: dict[str, dict[str, Any]] = {
    "random": {"method": "random"},
    "magnitude": {"method": "magnitude"},
    "Wanda": {"method": "wanda"},
    "Wanda, matrix": {"method": "wanda", "scope": "layer"},
    "SparseGPT": {"method": "sparsegpt"},
    "OBS": {"method": "obs"},
    "random + least squares": {"method": "random", "refit": True},
    "magnitude + least squares": {"method": "magnitude", "refit": True},
    "Wanda + least squares": {"method": "wanda", "refit": True},
    "SparseGPT + least squares": {"method": "sparsegpt", "refit": True},
}
METHODS: experiments.Grid = {"seed": SEEDS, "way": list(WAYS), "sparsity": [0.3, 0.5, 0.7, "2:4"]}
OUTLIERS: experiments.Grid = {
    "seed": SEEDS,
    "size": [0, 1, 4, 16, 64],  # 0: all inputs made equally large
    "way": ["magnitude", "Wanda", "Wanda, matrix", "SparseGPT"],
}
SPREADS: experiments.Grid = {
    "seed": SEEDS,
    "spread": [0.5, 1.0, 2.0],
    "way": ["magnitude", "Wanda", "SparseGPT"],
}
INPUTS: experiments.Grid = {
    "seed": SEEDS,
    "layer": ["attention.q", "attention.o", "mlp.up", "mlp.down"],
}
DAMPED: experiments.Grid = {"seed": SEEDS, "damping": [1e-2, 1e-4, 1e-6]}
UNITS: experiments.Grid = {"seed": SEEDS, "part": ["mlp", "attention"], "left": [0.75, 0.5]}
CALIBRATED: experiments.Grid = {
    "seed": SEEDS,
    "on": ["shakespeare", "devil", "python", "letters by chance", "one letter"],
    "windows": [1, 8, 64],
}
PROMPT = "ROMEO:\nI "


@cache
def tokens() -> tuple[Tensor, Tensor]:
    """Those to calibrate on, and those to judge by."""
    text = language.text("shakespeare")
    return language.halves(Characters(text).encode(text))


def calibration(seed: int, count: int = 64) -> Tensor:
    """Windows of 128 characters, drawn for a model."""
    return language.windows(tokens()[0], 128, count, torch.Generator().manual_seed(100 + seed))


def judged(model: nn.Module) -> Row:
    """The loss on text that no model has seen."""
    pieces = language.pieces(tokens()[1], 128, 96)
    return {"loss": log(scale.perplexity(model, pieces, chunk=32))}


def methods_cell(seed: int, way: str, sparsity: float | str) -> Row:
    """A model, pruned, and what it goes on with."""
    options = WAYS[way] | {"generator": torch.Generator().manual_seed(seed), "progress": False}
    net, _ = scale.prune(network(seed), calibration(seed), sparsity=sparsity, **options)
    letters = Characters(language.text("shakespeare"))
    speaker = Language(net, letters.encode, letters.decode)
    return judged(net) | {"says": scale.says(speaker, PROMPT, 60)[len(PROMPT) :]}


def with_outliers(net: nn.Module, size: float, seed: int) -> nn.Module:
    """The same function with one input in 128 of each norm's readers ``size`` times as large."""
    dice, factors = torch.Generator().manual_seed(seed), {}
    for joint in joints(net):
        if len(joint.makers) > 1:  # a layer norm's weights and biases
            factor = torch.ones_like(joint.makers[0])
            factor[int(torch.randint(len(factor), (1,), generator=dice, device="cpu"))] = size
            factors[joint.key] = factor
    return scale.stretched(net, factors)


def outliers_cell(seed: int, size: float, way: str) -> Row:
    """Half of the weights gone, from a model that computes what the trained one does."""
    net, x = network(seed), calibration(seed)
    same = (
        with_outliers(net, size, seed) if size else scale.equalised(net, scale.input_norms(net, x))
    )
    pruned, _ = scale.prune(same, x, sparsity=0.5, progress=False, **WAYS[way])
    return judged(pruned) | {"dense": judged(same)["loss"]}


def with_spread(net: nn.Module, spread: float, seed: int) -> nn.Module:
    """The same function with all inputs that a norm makes stretched by factors exp(spread · N(0, 1))."""
    dice, factors = torch.Generator().manual_seed(seed), {}
    for joint in joints(net):
        if len(joint.makers) > 1:
            drawn = torch.randn(len(joint.makers[0]), generator=dice, device="cpu")
            factors[joint.key] = (spread * drawn).exp()
    return scale.stretched(net, factors)


def spreads_cell(seed: int, spread: float, way: str) -> Row:
    """As :func:`outliers_cell`, with many outliers instead of one."""
    same = with_spread(network(seed), spread, seed)
    pruned, _ = scale.prune(same, calibration(seed), sparsity=0.5, progress=False, **WAYS[way])
    return judged(pruned) | {"dense": judged(same)["loss"]}


def damped_cell(seed: int, damping: float) -> Row:
    """SparseGPT on widely stretched inputs, whose mean square is that of the largest few."""
    same = with_spread(network(seed), 2.0, seed)
    return judged(
        scale.prune(same, calibration(seed), "sparsegpt", 0.5, damping=damping, progress=False)[0]
    )


def units_cell(seed: int, part: str, left: float) -> Row:
    """Of the channels, or the heads, of each block those removed for real that write least."""
    net = network(seed)
    small = scale.without_units(net, strongest(net, calibration(seed), part, left))
    inside = blocks_by_name(small).values()
    return judged(small) | {"weights": sum(p.numel() for b in inside for p in b.parameters())}


def strongest(net: nn.Module, x: Tensor, part: str, left: float) -> dict[str, Tensor]:
    """Of each block's "mlp" or "attention" the share of channels or heads that writes most."""
    scores = {at: s for at, s in scale.unit_scores(net, x).items() if at.endswith(part)}
    return {
        at: s >= s.sort(descending=True).values[round(left * len(s)) - 1]
        for at, s in scores.items()
    }


def calibrated_cell(seed: int, on: str, windows: int) -> Row:
    """SparseGPT at 70 %, calibrated on so many windows of another text, or of no text at all."""
    dice = torch.Generator().manual_seed(200 + seed)
    letters = Characters(language.text("shakespeare"))
    if on in language.TEXTS:
        known = set(letters.known)
        words = "".join(c for c in language.text(on) if c in known)
        given = language.halves(letters.encode(words))[0]
    else:
        most = len(letters.known) if on == "letters by chance" else 1
        given = torch.randint(most, (100_000,), generator=dice, device=dice.device)
    x = language.windows(given, 128, windows, dice)
    return judged(scale.prune(network(seed), x, "sparsegpt", 0.7, progress=False)[0])


def inputs_cell(seed: int, layer: str) -> Row:
    """The largest norm of an input over the median, the least and the most of the blocks."""
    return spread(scale.input_norms(network(seed), calibration(seed)), layer)


def spread(norms: dict[str, Tensor], layer: str) -> Row:
    """Of the layers of a name: the largest norm over the median, and the energy of the largest hundredth."""
    found = [norm for name, norm in norms.items() if layer in name]
    ratios = [float(norm.max() / norm.median()) for norm in found]
    energy = [norm.square().sort(descending=True).values for norm in found]
    shares = [float(e[: max(round(len(e) / 100), 1)].sum() / e.sum()) for e in energy]
    return {"least": min(ratios), "most": max(ratios), "share": max(shares)}


TABLES: experiments.Tables = {
    "scale_inputs": (inputs_cell, INPUTS),
    "scale_outliers": (outliers_cell, OUTLIERS),
    "scale_methods": (methods_cell, METHODS),
    "scale_spreads": (spreads_cell, SPREADS),
    "scale_damped": (damped_cell, DAMPED),
    "scale_units": (units_cell, UNITS),
    "scale_calibrated": (calibrated_cell, CALIBRATED),
}

if __name__ == "__main__":
    experiments.write(TABLES)
