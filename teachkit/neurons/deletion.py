"""Which unit can go: scores of whole units, and the loss without each of them, measured."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks, obd, taylor
from teachkit.core import checks
from teachkit.core.objective import measured
from teachkit.core.types import Batch, Loss, Scores
from teachkit.neurons.chain import Fold, Reading, hidden, reading, rebuild

CRITERIA = ("random", "magnitude", "taylor", "obd", "leave_one_out")
AT_ONCE = 2**16  # numbers in a batched evaluation, few enough to stay in the cache


def scores(
    model: nn.Module,
    batch: Batch,
    method: str,
    loss: Loss = cross_entropy,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """A score for each hidden unit, (units,) by layer name; a larger score stays.

    With w the weights into a unit and v those out of it: "random" is drawn from [0, 1),
    "magnitude" is √(Σw² + Σv²), "taylor" |Σ g v| with g the gradient, which is the first-order
    change of the loss without the unit (Molchanov et al. 2017), "obd" the sum of ½ h w² over w and
    v, "leave_one_out" the true change of the loss, see :func:`leave_one_out`.

    Args:
        model: a chain of Linear layers.
        batch: (x, y).
        method: one of ``CRITERIA``.
        loss: a mean loss.
        generator: for "random".

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> net[0].weight.data = torch.tensor([[3.0], [0.0]])
    >>> net[2].weight.data = torch.tensor([[4.0, 2.0]])
    >>> scores(net, (torch.ones(1, 1), torch.ones(1, 1)), "magnitude", nn.functional.mse_loss)
    {'0': tensor([5., 2.])}

    """
    checks.model(model, checks.batch(batch)[0])
    if method not in CRITERIA:
        raise ValueError(f"method must be one of {list(CRITERIA)}, got {method!r}")
    weights = {name: w.detach() for name, w in masks.prunable(model).items()}
    if method == "leave_one_out":
        return leave_one_out(model, batch, loss)
    if method == "random":
        sizes = {layer.name: len(weights[f"{layer.name}.weight"]) for layer in hidden(model)}
        return {name: torch.rand(n, generator=generator) for name, n in sizes.items()}
    if method == "taylor":
        g = taylor.gradient(model, batch, loss)
        products = {name: w * g[name] for name, w in weights.items()}
        return {u.name: products[f"{u.reader}.weight"].sum(0).abs() for u in hidden(model)}
    if method == "obd":
        return _both_sides(model, obd.scores(model, batch, loss))
    squares = _both_sides(model, {name: w**2 for name, w in weights.items()})
    return {name: total.sqrt() for name, total in squares.items()}


def leave_one_out(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The change of the loss without each unit, L(θ without j) − L(θ), (units,) by layer name.

    Without unit j the next layer hears z − a_j v_j, with the unit's output a_j and its outgoing
    weights v_j. So all units of a layer are measured in one batched evaluation of what follows.

    Args:
        model: a chain of Linear layers.
        batch: (x, y).
        loss: a mean loss.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[0].bias.data = torch.tensor([[1.0], [1.0]]), torch.zeros(2)
    >>> net[2].weight.data = torch.tensor([[2.0, 1.0]])
    >>> leave_one_out(net, (torch.ones(1, 1), torch.tensor([[3.0]])), nn.functional.mse_loss)
    {'0': tensor([4., 1.])}

    """
    x, y = checks.batch(batch)
    found: Scores = {}
    for layer in hidden(checks.model(model, x)):
        seen = reading(model, layer, x, x)
        heard = hears(seen.said, seen.weight, seen.bias)
        before = measured(loss, seen.rest(heard), y)
        found[layer.name] = without_each(seen, heard, y, loss) - before
    return found


def greedy(
    model: nn.Module, batch: Batch, sparsity: float, loss: Loss = cross_entropy
) -> nn.Module:
    """A smaller network: the unit whose loss without it is least goes, then all are measured again.

    Layer by layer, front to back, until ``masks.removed(units, sparsity)`` of each are gone.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y).
        sparsity: the share of each hidden layer's units that goes.
        loss: a mean loss.

    """
    _, y = checks.batch(batch)

    def fold(name: str, seen: Reading) -> Fold:
        keep = torch.ones(len(seen.incoming), dtype=torch.bool)
        heard = hears(seen.said, seen.weight, seen.bias)
        for _ in range(quota(name, len(keep), sparsity)):
            left = keep.nonzero()[:, 0]
            part = seen._replace(said=seen.said[:, left], weight=seen.weight[:, left])
            worst = left[without_each(part, heard, y, loss).argmin()]
            heard = heard - seen.said[:, worst, None] * seen.weight[:, worst]
            keep[worst] = False
        return Fold(keep, seen.weight[:, keep], seen.bias)

    return rebuild(model, batch, fold)


def without_each(seen: Reading, heard: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The loss without each unit, (units,), where the reader hears ``heard`` with all of them."""
    losses = []
    at_once = max(1, AT_ONCE // heard.numel())
    pairs = zip(torch.split(seen.said.T, at_once), torch.split(seen.weight.T, at_once), strict=True)
    with torch.no_grad():
        for a, v in pairs:
            outputs = seen.rest(heard - a[:, :, None] * v[:, None, :])
            losses += [measured(loss, output, y) for output in outputs]
    return torch.stack(losses)


def hears(said: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the reader makes of its inputs, A Vᵀ + c, (n, out)."""
    return said @ weight.T if bias is None else said @ weight.T + bias


def quota(name: str, units: int, sparsity: float) -> int:
    """How many units of a layer go; at least one must stay."""
    gone = masks.removed(units, sparsity)
    if gone == units:
        raise ValueError(
            f"at sparsity {sparsity:g} nothing is left of layer {name!r}, which has {units} units"
        )
    return gone


def _both_sides(model: nn.Module, values: Scores) -> Scores:
    """The sum over each unit's incoming and outgoing weights."""
    return {
        layer.name: values[f"{layer.name}.weight"].sum(1) + values[f"{layer.reader}.weight"].sum(0)
        for layer in hidden(model)
    }
