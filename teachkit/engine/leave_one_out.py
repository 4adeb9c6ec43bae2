"""The loss without one weight or one unit, measured for each of them: only what comes after runs again.

A removal leaves everything before it as it was. Without weight W_ij the output i of its layer loses
W_ij a_j, and as the activations that follow treat each output alone, only h_i = φ(z_i) moves, by a step
(n,) that is known at once; without unit i as a whole by −h_i. The next Linear layer's output becomes

    u + step · v_iᵀ,    u = V h + c,    v_i the column i of V,

an outer product instead of a product of matrices, and only the layers behind it run again. The steps of
many weights are made together, and as many changed outputs run side by side as stay in the processor's
cache. Where no Linear layer follows h, u is h itself and v_i the i-th unit vector.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import bars, checks
from teachkit.core.copies import still_copy
from teachkit.core.layers import UncoveredError, chain, kind, parameter_name
from teachkit.core.objective import measured
from teachkit.core.types import Batch, Loss, Scores

AT_ONCE = 2**16  # numbers in a batched evaluation, few enough to stay in the cache
STEPS = 2**20  # numbers in the steps that are made together
ALONE = ("pointwise", "nothing")  # roles of layers that treat each number alone


class After(NamedTuple):
    """What comes after a layer of units h (n, units).

    ``activation`` φ makes h of z, ``output`` u (n, out) is what the next Linear layer makes of h,
    ``columns`` Vᵀ (units, out) what one more of each unit adds to it; ``rest`` runs behind u.
    """

    activation: nn.Sequential
    output: Tensor
    columns: Tensor
    rest: nn.Sequential


@torch.no_grad()
def leave_one_out(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """L(θ − w_i e_i) − L(θ), measured for every prunable weight: no Taylor polynomial at all.

    UncoveredError: the network is not a chain of known layers, or has a convolution.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, 1.0]])
    >>> leave_one_out(net, (torch.ones(1, 2), torch.tensor([[3.0]])), nn.functional.mse_loss)
    {'weight': tensor([[4., 1.]])}

    """
    x, y = checks.batch(batch)
    layers = list(chain(still(checks.model(model, x))))
    _check_covered([layer for _, layer in layers])
    changes: Scores = {}
    for at, (name, layer) in enumerate(bars.bar(layers, "layers"), 1):
        a, x = x, layer(x)
        if isinstance(layer, nn.Linear):
            after = behind(x, [each for _, each in layers[at:]])
            without = _without_each_weight(layer.weight, a, x, after, y, loss)
            before = measured(loss, after.rest(after.output), y)
            changes[parameter_name(name, "weight")] = without - before
    return changes


def losses(
    u: Tensor, steps: Tensor, columns: Tensor, rest: nn.Sequential, y: Tensor, loss: Loss
) -> Tensor:
    """The loss where the layers ``rest`` get u + step_k · column_kᵀ instead of u (n, out), for each k.

    ``steps`` (k, n): by how much an input of the layer in front moves; ``columns`` (k, out): what it
    makes of that input.
    """
    values: list[Tensor] = []
    at_once = max(1, AT_ONCE // u.numel())
    pairs = zip(torch.split(steps, at_once), torch.split(columns, at_once), strict=True)
    for step, column in pairs:
        moved = torch.addcmul(u, step[:, :, None], column[:, None])
        outputs = rest(moved.flatten(0, 1)).unflatten(0, (len(step), len(u)))
        values += [measured(loss, output, y) for output in outputs]
    return torch.stack(values)


def behind(z: Tensor, layers: Sequence[nn.Module]) -> After:
    """What comes after a Linear layer with the output z (n, units): the layers behind it, in order."""
    if z.ndim != 2:
        raise UncoveredError(f"a Linear layer puts out {tuple(z.shape)}, not (samples, units)")
    cut = next((i for i, each in enumerate(layers) if kind(each).role not in ALONE), len(layers))
    activation, rest = nn.Sequential(*layers[:cut]), list(layers[cut:])
    h = activation(z)
    if rest and isinstance(rest[0], nn.Linear):
        return After(activation, rest[0](h), rest[0].weight.T, nn.Sequential(*rest[1:]))
    return After(activation, h, torch.eye(h.shape[1]).to(h), nn.Sequential(*rest))


def still(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without gradients, in which no layer overwrites its input."""
    copied = still_copy(model)
    for module in copied.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return copied


def _without_each_weight(
    W: Tensor, a: Tensor, z: Tensor, after: After, y: Tensor, loss: Loss
) -> Tensor:
    """The loss without each weight of a Linear layer that makes z (n, out) of a (n, in)."""
    without = torch.empty_like(W)
    for i, w in enumerate(W):
        own, column = z[:, i : i + 1], after.columns[i]
        for js in torch.split(torch.arange(len(w), device=w.device), max(1, STEPS // len(z))):
            steps = (after.activation(own - w[js] * a[:, js]) - after.activation(own)).T
            columns = column.expand(len(js), -1)
            without[i, js] = losses(after.output, steps, columns, after.rest, y, loss)
    return without


def _check_covered(layers: list[nn.Module]) -> None:
    """Refuse what the layers behind would not do to each sample alone, and weights that go twice."""
    weights = [id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)]
    if len(set(weights)) < len(weights):
        raise UncoveredError("two layers share a weight")
    for layer in layers:
        role = kind(layer).role
        if role in ("conv", "transposed"):
            raise UncoveredError(
                f"leave_one_out covers Linear layers; the model has a {type(layer).__name__}"
            )
        if role == "norm" and layer.running_var is None:
            raise UncoveredError(f"{layer} has no running statistics: it mixes the samples")
        if role == "flatten" and layer.start_dim != 1:
            raise UncoveredError(f"{layer} mixes the samples")
