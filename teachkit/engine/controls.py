"""Random sets of weights that share one property with a given set: the controls of an explanation.

"It is only that these weights are small", "it is only that they agree": draw at random among what is
as small, or agrees as much, and see whether the same happens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Masks
from teachkit.core.weights import change, split
from teachkit.engine.shifts import mean_inputs


def matched(
    kept: Masks, key: Mapping[str, Tensor], generator: torch.Generator, *, bins: int = 50
) -> Masks:
    """A random set with as many weights from every bin of a key as the given set, layer by layer.

    The control for "it is only that these weights are small": with key = |w| the drawn set has the same
    sizes, with key = spread the same spreads, and is random otherwise. The bins are of equal count.
    """
    checks.whole("bins", bins, 1)
    checks.masks(kept, key)
    drawn: Masks = {}
    for name, mask in kept.items():
        order, old = key[name].reshape(-1).argsort(), mask.reshape(-1)
        new = torch.ones_like(old)
        for part in torch.tensor_split(order, min(bins, len(order))):
            chosen = torch.randperm(len(part), generator=generator, device=generator.device)
            new[part[chosen[: int((~old[part]).sum())].to(part.device)]] = False
        drawn[name] = new.reshape(mask.shape)
    return drawn


def directed(
    model: nn.Module, x: Tensor, kept: Masks, share: float, generator: torch.Generator
) -> Masks:
    """A random set, as large in each layer, of which a share pushes its unit the way the given set does.

    The control for "it is only that they agree": nothing else of a weight is looked at. Removing w_i
    pushes its unit by −w_i ā_i; the way of a unit is the sign of the given set's pushes on it together.
    Weights that push nothing are not drawn, and where too few push one way fewer go.

    Args:
        model: the network.
        x: inputs, for the means ā.
        kept: the masks of the given set.
        share: of the drawn weights, from 0 (all push the other way) to 1.
        generator: of the draw.

    """
    checks.fraction("share", share)
    a = mean_inputs(model, x)
    gone = change(model, checks.masks(kept, a))
    drawn: Masks = {}
    for name, mask in kept.items():
        push = (-model.get_parameter(name).detach() * a[name]).flatten(1)
        way = (gone[name] * a[name]).flatten(1).sum(1, keepdim=True)
        with_it = (push * way).sign().reshape(mask.shape)
        m = int((~mask).sum())
        new = torch.ones_like(mask).reshape(-1)
        for sign, count in ((1, round(share * m)), (-1, m - round(share * m))):
            there = (with_it.reshape(-1) == sign).nonzero()[:, 0]
            order = torch.randperm(len(there), generator=generator, device=generator.device)
            new[there[order.to(there.device)[:count]]] = False
        drawn[name] = new.reshape(mask.shape)
    return drawn


def part(kept: Masks, m: int, generator: torch.Generator) -> Masks:
    """Masks that remove m of the weights that the given ones remove, at random; all where there are fewer."""
    checks.whole("m", m)
    removed = ~torch.cat([mask.reshape(-1) for mask in kept.values()])
    there = removed.nonzero()[:, 0]
    order = torch.randperm(len(there), generator=generator, device=generator.device)
    stay = torch.ones_like(removed)
    stay[there[order.to(there.device)[:m]]] = False
    return split(stay, kept)
