"""The exact threshold of magnitude pruning and its masks, in units of one read of the weights.

float32 whatever the default, as pruned networks are. One read is ``torch.sum`` of the weights. The
masks are of a network of twelve equal layers.
"""

import copy
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.cases import Case, Competitor
from teachkit import magnitude, masks
from teachkit.core.layers import weighted
from teachkit.core.types import Masks

READ = "one read"
SPARSITY = 0.9
SIZES = {10**6: "1 million", 10**7: "10 million", 10**8: "100 million"}
LAYERS = 12


def cases(quick: bool) -> list[Case]:
    """Thresholds of three sizes and masks of two; tiny sizes when quick."""
    sizes = {20_000: "20 thousand"} if quick else SIZES
    few = {n: name for n, name in sizes.items() if n < 10**8}
    return [
        *(_thresholds(n, name) for n, name in sizes.items()),
        *(_masks(n, name) for n, name in few.items()),
    ]


def _thresholds(n: int, name: str) -> Case:
    """The k-th smallest |w| of n normal weights; the weights are made when they are first needed."""
    k = round(SPARSITY * n)
    ways: dict[str, Callable[[Tensor], Any]] = {
        "teachkit": lambda w: magnitude.threshold(w, k),
        "numpy.partition": lambda w: np.partition(np.abs(w.numpy()), k - 1)[k - 1],
        "torch.kthvalue": lambda w: w.abs().kthvalue(k).values,
        "torch.topk": lambda w: w.abs().topk(n - k + 1, sorted=False).values.min(),
    }
    if n >= 10**8:
        del ways["torch.topk"]  # 3 GB, and no news
    competitors = {READ: Competitor(lambda: normal(n).sum())}
    competitors |= {way: Competitor(partial(_threshold, run, n)) for way, run in ways.items()}
    return Case(f"threshold of {name} weights", READ, competitors, truth="torch.kthvalue")


@lru_cache(maxsize=1)
def normal(n: int) -> Tensor:
    """Weights drawn from a normal distribution."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


def _threshold(run: Callable[[Tensor], Any], n: int) -> dict[str, Tensor]:
    return {"threshold": torch.as_tensor(run(normal(n)), dtype=torch.float64)}


def network(n: int) -> nn.Sequential:
    """Twelve square linear layers with about n weights in all."""
    width = round((n / LAYERS) ** 0.5)
    dice = torch.Generator().manual_seed(0)
    layers = [nn.Linear(width, width, bias=False, dtype=torch.float32) for _ in range(LAYERS)]
    for layer in layers:
        nn.init.normal_(layer.weight, generator=dice)
    return nn.Sequential(*layers)


def _masks(n: int, name: str) -> Case:
    net = network(n)
    weights = list(masks.prunable(net).values())
    ways = {
        "teachkit, keep_largest": lambda: magnitude.keep_largest(net, SPARSITY),
        "teachkit, scores and keep_top": lambda: masks.keep_top(magnitude.scores(net), SPARSITY),
        "prune.global_unstructured, on a copy": lambda: pytorch(net),
    }
    competitors = {READ: Competitor(lambda: sum(w.detach().sum() for w in weights))}
    competitors |= {way: Competitor(partial(_numbers, run)) for way, run in ways.items()}
    title = f"masks of {name} weights ({4 * n // 1000:,} kB)"
    return Case(title, READ, competitors, truth="prune.global_unstructured, on a copy")


def pytorch(net: nn.Module) -> Masks:
    """The masks that torch.nn.utils.prune gives, with a copy of the network, which it changes."""
    own = copy.deepcopy(net)
    layers = [(module, "weight") for _, module in weighted(own)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=SPARSITY)
    return {name.removesuffix("_mask"): mask for name, mask in own.named_buffers()}


def _numbers(run: Callable[[], Masks]) -> dict[str, Tensor]:
    """The masks as they are; a comparison takes them for numbers, so one layer is enough."""
    name, kept = next(iter(run().items()))
    return {name: kept[:10].float()}
