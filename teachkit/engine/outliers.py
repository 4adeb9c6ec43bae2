"""How large the inputs of a network's layers are, and how much each block keeps for it.

An input whose norm is many times that of the others is an outlier: large language models have them, small
networks have few. They are measured in one walk through the network as it is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.objective import eval_mode
from teachkit.engine import blockwise


def input_norms(
    model: nn.Module, tokens: Tensor, *, blocks: str | None = None, chunk: int = 8
) -> dict[str, Tensor]:
    """√ mean x_j² of the inputs of each Linear layer of the blocks, by its weight's name, (in,).

    An outlier is an input whose norm is many times the median.
    """
    found: dict[str, Tensor] = {}
    rows = (tokens[..., 0] if tokens.is_floating_point() else tokens).numel()
    with eval_mode(checks.model(model)):
        for stop in blockwise.walk(model, tokens, "norms", path=blocks, chunk=chunk):
            found |= {name: (s / rows).sqrt() for name, s in stop.look().items()}
    return found


def owl(
    model: nn.Module,
    tokens: Tensor,
    sparsity: float = 0.5,
    *,
    times: float = 5.0,
    spread: float = 0.08,
    blocks: str | None = None,
) -> dict[str, float]:
    """A sparsity for each weight: blocks with many outliers among Wanda's scores keep more.

    D is the share of a block's scores above ``times`` their mean; the blocks' densities grow with D in a
    line from the least to the most, 2 · spread apart, about the mean 1 − sparsity. Blocks are of one size.
    Source: Yin et al. 2024, section 3.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> sorted(owl(net, torch.eye(2), 0.5))
    ['0.weight', '1.weight']
    """
    names, shares = [], []
    with eval_mode(checks.model(model)):
        for stop in blockwise.walk(model, tokens, "norms", path=blocks):
            if stop.layers:
                names.append(list(stop.layers))
                shares.append(_share(stop, times))
    rule = owl_densities(shares, 1 - sparsity, spread)
    return {name: 1 - d for own, d in zip(names, rule, strict=True) for name in own}


def owl_densities(shares: Sequence[float], density: float, spread: float) -> list[float]:
    """Densities that grow with the shares of outliers in a line, 2 · spread apart, with the given mean.

    >>> [round(d, 3) for d in owl_densities([0.0, 0.01, 0.04], 0.5, 0.1)]
    [0.417, 0.467, 0.617]
    """
    least, most = min(shares), max(shares)
    raw = [2 * spread * (d - least) / (most - least) if most > least else 0.0 for d in shares]
    found = [d - sum(raw) / len(raw) + density for d in raw]
    if not 0 <= min(found) <= max(found) <= 1:
        raise ValueError(f"spread must leave all densities within [0, 1], got spread={spread:g}")
    return found


def _share(stop: blockwise.Stop, times: float) -> float:
    """The share of a block's scores that are above so many times their mean."""
    sums = stop.look()
    scores = [(at.weight.abs() * sums[n].sqrt()).reshape(-1) for n, at in stop.layers.items()]
    together = torch.cat(scores)
    return float((together > times * together.mean()).double().mean())
