"""SmolLM2-135M, a language model with outliers among its inputs, pruned.

``python -m teachkit.experiments.smollm2`` writes its tables into data/experiments; on one core with
bfloat16 instructions an hour. Not run again by the tests: the model takes 93 MB, and bfloat16 products
differ in their last digits from machine to machine. A run that is interrupted goes on.

Calibrated is on 8 windows of 512 tokens, half from Python's help and half from The Devil's Dictionary,
another draw for each ``draw``; judged on 4 pieces of 512 tokens from the last tenth of each text.
Activations are in bfloat16, sums over them in float32 and more. ``seconds`` are the processor's for pruning
alone, ``peak`` is the most memory that the process has taken so far, in GB.
"""

import resource
import time
from functools import cache
from math import log10
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import experiments, scale
from teachkit.experiments.scale import WAYS, spread
from teachkit.lab import data, language
from teachkit.lab.sweep import Row
from teachkit.lab.tokens import Language

DRAWS = [0, 1, 2]
LENGTH = 512
MIXED = ["python", "devil"]
LAYERS = ["attention.q", "attention.o", "mlp.up", "mlp.down"]
PROFILES: experiments.Grid = {"block": list(range(30)), "layer": LAYERS}
PROMPTS = ["The capital of Germany is", "To open a file in Python, you"]
UNTOUCHED: experiments.Grid = {"way": ["magnitude"], "sparsity": [0.0, 0.5, "2:4"]}
UNTOUCHED_MORE: experiments.Grid = UNTOUCHED | {"sparsity": [0.3, 0.7]}
MAIN: experiments.Grid = {"draw": DRAWS, "sparsity": [0.5], "way": ["Wanda", "SparseGPT"]}
PATTERN: experiments.Grid = MAIN | {"sparsity": ["2:4"]}
MORE: experiments.Grid = MAIN | {"sparsity": [0.3, 0.7]}
OTHER: experiments.Grid = {
    "sparsity": [0.5],
    "way": ["Wanda, matrix", "magnitude, equal inputs", "Wanda, OWL"],
    "draw": DRAWS,
}
CALIBRATED: experiments.Grid = {
    "on": list(language.TEXTS),
    "way": ["Wanda", "SparseGPT"],
    "draw": DRAWS,
}
REFITS: experiments.Grid = {
    "sparsity": [0.5],
    "way": ["magnitude + least squares", "Wanda + least squares"],
    "draw": DRAWS,
}


@cache
def speaker() -> Language:
    """The model, read once."""
    return data.smollm2()


@cache
def tokens(text: str) -> tuple[Tensor, Tensor]:
    """Those to calibrate on, and those to judge by."""
    return language.halves(speaker().encode(language.text(text)))


def calibration(draw: int, texts: list[str], count: int = 8) -> Tensor:
    """So many windows of each text in turn."""
    dice = torch.Generator().manual_seed(draw)
    each = [language.windows(tokens(t)[0], LENGTH, count // len(texts), dice) for t in texts]
    return torch.cat(each)


def judged(model: nn.Module, *, speaks: bool) -> Row:
    """The perplexity on each text, and what the model goes on with if it is asked."""
    heard = Language(model, speaker().encode, speaker().decode)
    found: Row = {
        text: scale.perplexity(model, language.pieces(tokens(text)[1], LENGTH, 4))
        for text in language.TEXTS
    }
    said = [scale.says(heard, prompt, 20)[len(prompt) :] for prompt in PROMPTS if speaks]
    return found | {"says": said}


def run(way: str, sparsity: float | str, x: Tensor, *, speaks: bool = True) -> Row:
    """Prune and judge, with activations in bfloat16."""
    net, options = speaker().model, WAYS.get(way, {}) | {"progress": False}
    with torch.autocast("cpu", torch.bfloat16):
        start = time.process_time()
        if way == "magnitude, equal inputs":
            net = scale.equalised(net, scale.input_norms(net, x))
            options |= {"method": "magnitude", "scope": "row"}
        amount: Any = scale.owl(net, x) if way == "Wanda, OWL" else sparsity
        net, _ = scale.prune(net, x, sparsity=amount, chunk=4, **options)
        seconds = round(time.process_time() - start, 1)
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        return judged(net, speaks=speaks) | {"seconds": seconds, "peak": peak}


def untouched_cell(way: str, sparsity: float | str) -> Row:
    """What looks at no input needs no draw; at sparsity 0 the model is as it came."""
    return run(way, sparsity, calibration(0, MIXED))


def main_cell(sparsity: float | str, way: str, draw: int) -> Row:
    """One draw of the calibration set; the model of the first speaks."""
    return run(way, sparsity, calibration(draw, MIXED), speaks=not draw)


def calibrated_cell(on: str, way: str, draw: int) -> Row:
    """Half of the weights gone, by what one text alone shows."""
    return run(way, 0.5, calibration(draw, [on]), speaks=False)


def inputs_cell(layer: str) -> Row:
    """As for the small model, in the texts of the first draw."""
    with torch.autocast("cpu", torch.bfloat16):
        return spread(_norms(), layer)


def profile_cell(block: int, layer: str) -> Row:
    """The norms of a layer's inputs over their median, at 25 ranks from the largest to the least."""
    with torch.autocast("cpu", torch.bfloat16):
        norm = _norms()[f"blocks.{block}.{layer}.weight"]
    ordered = (norm / norm.median()).sort(descending=True).values
    places = torch.logspace(0, log10(len(ordered)), 25).round().long()
    ranks = torch.tensor(sorted(set(places.tolist())))
    return {"ranks": ranks.tolist(), "norms": [float(f"{n:.4g}") for n in ordered[ranks - 1]]}


@cache
def _norms() -> dict[str, Tensor]:
    return scale.input_norms(speaker().model, calibration(0, MIXED))


TABLES: experiments.Tables = {
    "smollm2_inputs": (inputs_cell, {"layer": LAYERS}),
    "smollm2_untouched": (untouched_cell, UNTOUCHED),
    "smollm2": (main_cell, MAIN),
    "smollm2_profiles": (profile_cell, PROFILES),
}
LATER: experiments.Tables = {  # not saved yet
    "smollm2_pattern": (main_cell, PATTERN),
    "smollm2_untouched_more": (untouched_cell, UNTOUCHED_MORE),
    "smollm2_other": (main_cell, OTHER),
    "smollm2_more": (main_cell, MORE),
    "smollm2_calibrated": (calibrated_cell, CALIBRATED),
    "smollm2_refits": (main_cell, REFITS),
}

if __name__ == "__main__":
    experiments.write({**TABLES, **LATER})
